"""Any metadata with any deadline: whoever does not show one good token is refused, and the broker goes on."""

from typing import Any, cast

import grpc
from hypothesis import example, given
from hypothesis import strategies as st

from keybroker.rpc.server import MAX_METADATA_BYTES
from keymaterial.v1 import key_broker_service_pb2 as pb
from tests.certificates import Issuer
from tests.fuzz.conftest import SUBJECT, Target
from tests.fuzz.examples import MARK, fuzzed
from tests.fuzz.judging import judge

Metadata = list[tuple[str, str | bytes]]

VISIBLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
NAMES = st.one_of(
    st.sampled_from(
        ["authorization", "authorization-bin", "proxy-authorization", "cookie", "x-forwarded-for", "traceparent"]
    ),
    st.from_regex(r"[a-z0-9_.-]{1,20}", fullmatch=True).filter(lambda name: not name.startswith("grpc-")),
)
DEADLINES = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 1e-6, 0.06, 10.0, 1e5, 1e9]), st.floats(0.2, 10))
LONGEST = MAX_METADATA_BYTES - 2048  # alone it is taken; two are beyond the limit, over which grpc takes its time
REFUSED_BEFORE = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}


def values(token: str) -> st.SearchStrategy[str]:
    """Like credentials, or not at all; of every size up to the limit."""
    return st.one_of(
        st.text(VISIBLE, max_size=40).map(lambda text: MARK + text),
        st.builds(
            lambda scheme, gap, rest: scheme + gap + rest,
            st.sampled_from(["Bearer", "bearer", "BEARER", "Basic", "", "Bearer Bearer"]),
            st.sampled_from([" ", "", "  ", " ,"]),
            st.sampled_from(
                [token, token + MARK, token[:-20], f"{MARK}.{MARK}.{MARK}", "", token + " ", f"{token},{token}"]
            ),
        ),
        st.sampled_from([1000, 2000, 4000, LONGEST]).map(lambda size: "Bearer " + "x" * size),
    )


@st.composite
def entries(draw: Any, token: str) -> Metadata:
    """Names with values as grpc takes them: bytes where the name ends in -bin, visible ASCII otherwise."""
    names = draw(st.lists(NAMES, max_size=4))
    return [(name, draw(st.binary(max_size=300)) if name.endswith("-bin") else draw(values(token))) for name in names]


def token_shown(metadata: Metadata) -> str:
    """The bearer token of the one authorization header; white space around it does not count."""
    shown = [str(value) for name, value in metadata if name == "authorization"]
    scheme, _, token = (shown[0] if len(shown) == 1 else "").strip(" ").partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else ""


def describe(target: Target, metadata: Metadata, deadline: float | None) -> grpc.Call:
    try:
        _, ended = target.stub.DescribeKey.with_call(
            pb.DescribeKeyRequest(key_id=target.known_key), metadata=tuple(metadata), timeout=deadline
        )
    except grpc.RpcError as error:
        return cast("grpc.Call", error)
    return ended


def test_call_with_any_metadata_is_the_callers_or_refused(guarded_target: Target, issuer: Issuer) -> None:
    token = issuer.token(SUBJECT)

    @fuzzed()
    @given(metadata=entries(token), deadline=DEADLINES)
    @example(metadata=[("authorization", f"Bearer {token}")], deadline=None)
    @example(metadata=[("authorization", f"Bearer {token}")] * 2, deadline=None)
    def prop(metadata: Metadata, deadline: float | None) -> None:
        ended = describe(guarded_target, metadata, deadline)
        if ended.code() is grpc.StatusCode.OK:
            assert token_shown(metadata) == token
            return
        info = judge(ended)
        if ended.code() not in REFUSED_BEFORE:
            assert info is not None
            assert info.reason == "CALLER_UNAUTHENTICATED"
            assert token_shown(metadata) != token

    prop()
    assert guarded_target.is_well(token)


def test_call_with_any_metadata_is_answered_where_callers_are_not_known(target: Target) -> None:
    @fuzzed()
    @given(metadata=entries(MARK), deadline=DEADLINES)
    def prop(metadata: Metadata, deadline: float | None) -> None:
        ended = describe(target, metadata, deadline)
        if ended.code() is not grpc.StatusCode.OK:
            assert ended.code() in REFUSED_BEFORE
            judge(ended)

    prop()
    assert target.is_well()
