"""STS, the metadata service and a credentials URI: what is asked, what is made of the answer, what stays inside."""

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keybroker.adapters.kms.credentials import Credentials, CredentialsError, Provider
from keybroker.adapters.kms.credentials_http import Connection
from keybroker.adapters.kms.credentials_uri import CredentialsUri
from keybroker.adapters.kms.ecs_metadata import EcsRamRole
from keybroker.adapters.kms.sts import AssumeRoleWithOidc, OidcRole
from tests.unit.adapters_kms.credential_doubles import (
    PROVIDER_ARN,
    ROLE_ARN,
    SESSION_TOKEN,
    Answer,
    Asked,
    Double,
    double,
    issued,
    metadata_service,
    reply_json,
    sts_reply,
    success,
)
from tests.unit.adapters_kms.support import replies, serving
from tests.unit.adapters_kms.test_transport_trust import LOOPBACK, Pki

pytestmark = pytest.mark.usefixtures("loopback")

OIDC_TOKEN = "canary-oidc.eyJh.bc_-"
CONNECTION = Connection(timeout_seconds=10.0)
ROLE = OidcRole(role_arn=ROLE_ARN, oidc_provider_arn=PROVIDER_ARN, session_name="keybroker", duration_seconds=3600)


def sts(url: str, **overrides: Any) -> Provider:
    arguments: dict[str, Any] = {
        "oidc_token": lambda: OIDC_TOKEN,
        "endpoint": url,
        "connection": CONNECTION,
        "now": lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return AssumeRoleWithOidc(ROLE, **(arguments | overrides))


def ecs(url: str, **overrides: Any) -> Provider:
    return EcsRamRole(**({"role_name": None, "endpoint": url, "connection": CONNECTION} | overrides))


def uri(url: str, **overrides: Any) -> Provider:
    return CredentialsUri(url, **({"connection": CONNECTION} | overrides))


def metadata_answering(last: Answer) -> Callable[[Asked], Answer]:
    """Hardened mode as it should be, and `last` for the credentials themselves."""
    sound = metadata_service()
    return lambda asked: last if asked.path.endswith("/keybroker-role") else sound(asked)


def wrapped(endpoint: str, values: object) -> Answer:
    return reply_json({"Credentials": values} if endpoint == "sts" else values)


@contextmanager
def endpoint_answering(endpoint: str, answer: Answer) -> Iterator[tuple[Double, Provider]]:
    """The endpoint of this name, whose answer with the credentials is `answer`."""
    answering = metadata_answering(answer) if endpoint == "ecs" else lambda _: answer
    with double(answering) as server:
        url = f"{server.url}/canary-path" if endpoint == "uri" else server.url
        yield server, {"sts": sts, "ecs": ecs, "uri": uri}[endpoint](url)


def failure(provider: Provider) -> CredentialsError:
    with pytest.raises(CredentialsError) as caught:
        provider.fetch()
    return caught.value


def test_sts_gets_one_unsigned_post_with_the_token_in_its_body() -> None:
    with double(lambda _: sts_reply(7)) as server:
        fetched = sts(f"{server.url}/").fetch()
    assert fetched.credentials == Credentials("STS.number7", "canary-secret-7", "canary-token-7")
    assert timedelta(minutes=59) < fetched.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/")
    assert asked.query == {
        "Action": "AssumeRoleWithOIDC",
        "Format": "JSON",
        "Version": "2015-04-01",
        "Timestamp": "2026-01-02T03:04:05Z",
    }
    assert asked.form == {
        "RoleArn": ROLE_ARN,
        "OIDCProviderArn": PROVIDER_ARN,
        "OIDCToken": OIDC_TOKEN,
        "RoleSessionName": "keybroker",
        "DurationSeconds": "3600",
    }
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in asked.headers


def test_oidc_token_is_read_for_each_fetch() -> None:
    tokens = iter(["first", "second"])
    with double(lambda _: sts_reply()) as server:
        provider = sts(server.url, oidc_token=lambda: next(tokens))
        provider.fetch()
        provider.fetch()
    assert [asked.form["OIDCToken"] for asked in server.asked] == ["first", "second"]


@pytest.mark.parametrize("problem", [OSError(OIDC_TOKEN), ValueError(OIDC_TOKEN), None], ids=["OS", "value", "empty"])
def test_without_an_oidc_token_nothing_is_asked(problem: Exception | None) -> None:
    def token() -> str:
        if problem is not None:
            raise problem
        return ""

    with double(lambda _: sts_reply()) as server:
        error = failure(sts(server.url, oidc_token=token))
    assert error.kind == "the OIDC token can't be read"
    assert error.__context__ is None
    assert server.asked == []


def test_metadata_service_is_asked_in_hardened_mode() -> None:
    with double(metadata_service()) as server:
        assert ecs(server.url).fetch().credentials.access_key_id == "STS.number1"
    put, roles, role = server.asked
    assert (put.method, put.path) == ("PUT", "/latest/api/token")
    assert 1 <= int(put.headers["x-aliyun-ecs-metadata-token-ttl-seconds"]) <= 21600
    assert (roles.method, roles.path) == ("GET", "/latest/meta-data/ram/security-credentials/")
    assert (role.method, role.path) == ("GET", "/latest/meta-data/ram/security-credentials/keybroker-role")
    assert {roles.headers["x-aliyun-ecs-metadata-token"], role.headers["x-aliyun-ecs-metadata-token"]} == {
        SESSION_TOKEN
    }


def test_metadata_service_is_not_asked_for_a_role_that_is_configured() -> None:
    with double(metadata_service(role="given")) as server:
        ecs(server.url, role_name="given").fetch()
    assert [asked.path.rpartition("/")[2] for asked in server.asked] == ["token", "given"]


@pytest.mark.parametrize("status", [403, 404, 405, 500])
def test_metadata_service_without_hardened_mode_is_not_asked_without_token(status: int) -> None:
    with double(lambda _: Answer(b"", status)) as server:
        assert failure(ecs(server.url)).kind == f"status {status}"
    assert [asked.method for asked in server.asked] == ["PUT"]


@pytest.mark.parametrize("token", ["", "two words", "a\nb", "x" * 5000, "\u00fc"])
def test_metadata_session_token_that_fits_no_header_is_malformed(token: str) -> None:
    with double(lambda _: Answer(token.encode())) as server:
        assert failure(ecs(server.url)).kind == "malformed answer"
    assert len(server.asked) == 1


@pytest.mark.parametrize("role", ["", "one\ntwo", "../api/token", "a b", "x" * 65, "a?b"])
def test_metadata_role_that_is_no_role_name_is_malformed(role: str) -> None:
    with double(metadata_service(role=role)) as server:
        assert failure(ecs(server.url)).kind == "malformed answer"
    assert len(server.asked) == 2


def test_credentials_uri_is_asked_as_it_is() -> None:
    with double(lambda _: reply_json(success())) as server:
        assert uri(f"{server.url}/path?a=b").fetch().credentials.access_key_id == "STS.number1"
    [asked] = server.asked
    assert (asked.method, asked.path, asked.query) == ("GET", "/path", {"a": "b"})


ENDPOINTS = ["sts", "ecs", "uri"]
BAD_VALUES: dict[str, object] = {
    "no object": ["canary"],
    "null": None,
    "nothing": {},
    "number for id": success(AccessKeyId=1),
    "no secret": {name: value for name, value in success().items() if name != "AccessKeySecret"},
    "empty token": success(SecurityToken=""),
    "blank token": success(SecurityToken=" "),
    "space in the secret": success(AccessKeySecret="canary x"),
    "line break in the token": success(SecurityToken="canary\nx"),
    "no expiration": success(Expiration=""),
    "expiration in words": success(Expiration="canary soon"),
    "expiration without zone": success(Expiration="2026-01-02T03:04:05"),
    "expiration as a number": success(Expiration=1767323045),
    "expiration out of range": success(Expiration="2026-13-02T03:04:05Z"),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("values", BAD_VALUES.values(), ids=BAD_VALUES)
def test_malformed_credentials_are_none(endpoint: str, values: object) -> None:
    with endpoint_answering(endpoint, wrapped(endpoint, values)) as (_, provider):
        error = failure(provider)
    assert error.kind in {"malformed answer", "refused"}
    assert "canary" not in everything(error)


ANSWERS = {
    "no JSON": (Answer(b"canary"), "malformed answer"),
    "no UTF-8": (Answer(b"\xff\xfe{"), "malformed answer"),
    "deep JSON": (Answer(b"[" * 60_000), "malformed answer"),
    "empty": (Answer(b""), "malformed answer"),
    "too long": (Answer(b" " * 70_000), "unreadable"),
    "refusal with a code": (
        reply_json({"Code": "AuthenticationFail.OIDCToken.Expired", "Message": "canary"}, status=400),
        "status 400 AuthenticationFail.OIDCToken.Expired",
    ),
    "refusal with an odd code": (reply_json({"Code": "canary-1 <script>"}, status=403), "status 403"),
    "refusal with a long code": (reply_json({"Code": "x" * 65}, status=403), "status 403"),
    "refusal with a number": (reply_json({"Code": 5}, status=503), "status 503"),
    "refusal in prose": (Answer(b"canary", 502), "status 502"),
    "no content": (Answer(b"", 204), "status 204"),
    "redirect": (Answer(b"", 302, {"Location": "/elsewhere"}), "status 302"),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(("answer", "kind"), ANSWERS.values(), ids=ANSWERS)
def test_answer_that_is_none_is_told_in_our_words(endpoint: str, answer: Answer, kind: str) -> None:
    with endpoint_answering(endpoint, answer) as (server, provider):
        error = failure(provider)
    assert error.kind == kind
    assert "canary" not in everything(error)
    assert not any(asked.path == "/elsewhere" for asked in server.asked)


@pytest.mark.parametrize("endpoint", ["ecs", "uri"])
@pytest.mark.parametrize(("code", "kind"), [("Failed", "refused Failed"), ("", "refused"), (None, "refused")])
def test_answer_200_that_says_no_success_is_a_refusal(endpoint: str, code: object, kind: str) -> None:
    with endpoint_answering(endpoint, reply_json(success(Code=code))) as (_, provider):
        assert failure(provider).kind == kind


@pytest.mark.parametrize("make", [sts, ecs, uri])
def test_endpoint_that_does_not_answer_is_given_up(make: Callable[..., Provider]) -> None:
    given_up = threading.Event()

    def never(_: Asked) -> Answer:
        given_up.wait(20)
        return Answer(b"")

    with double(never) as server:
        started = time.monotonic()
        assert failure(make(server.url, connection=Connection(timeout_seconds=0.2))).kind == "timeout"
        assert time.monotonic() - started < 5
        given_up.set()


@pytest.mark.parametrize("make", [sts, ecs, uri])
def test_endpoint_that_is_not_there_is_told(make: Callable[..., Provider]) -> None:
    assert failure(make("http://127.0.0.1:9")).kind == "connection"


@pytest.mark.parametrize("make", [sts, ecs, uri])
def test_plain_http_goes_to_no_proxy(make: Callable[..., Provider]) -> None:
    with double(metadata_service()) as server:
        server.answer = lambda asked: sts_reply() if asked.method == "POST" else metadata_or_uri(asked)
        make(server.url, connection=Connection(timeout_seconds=10, proxy="http://127.0.0.1:9")).fetch()


def metadata_or_uri(asked: Asked) -> Answer:
    return metadata_service()(asked) if asked.path.startswith("/latest") else reply_json(success())


def test_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with double(lambda _: sts_reply()) as server:
        sts(server.url).fetch()


def test_tls_is_verified_against_the_bundle(tmp_path: Path) -> None:
    pki = Pki(tmp_path, LOOPBACK)
    with serving(replies(success()), tls=pki.context) as server:
        trusting = Connection(timeout_seconds=10, ca_bundle=pki.ca_bundle)
        assert uri(f"https://{server.address}", connection=trusting).fetch().credentials.access_key_id == "STS.number1"
        assert failure(uri(f"https://{server.address}")).kind == "connection"
        assert len(server.requests) == 1


BAD_URLS = [
    "http://sts.example",
    "http://100.100.100.200.example",
    "ftp://127.0.0.1",
    "127.0.0.1:80",
    "https://",
    "https://user:canary@sts.example",
    "https://sts.example#canary",
    "",
]


@pytest.mark.parametrize("make", [sts, ecs, uri])
@pytest.mark.parametrize("url", BAD_URLS)
def test_url_that_is_neither_https_nor_this_machine_is_refused(make: Callable[..., Provider], url: str) -> None:
    with pytest.raises(ValueError, match="it must be") as caught:
        make(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("make", [sts, ecs])
@pytest.mark.parametrize("url", ["https://sts.example/path", "https://sts.example/?a=b"])
def test_endpoint_with_a_path_or_query_is_refused(make: Callable[..., Provider], url: str) -> None:
    with pytest.raises(ValueError, match="nothing else"):
        make(url)


def test_metadata_address_may_be_plain_http_for_the_metadata_service_alone() -> None:
    address = "http://100.100.100.200"
    ecs(address)
    for make in (sts, uri):
        with pytest.raises(ValueError, match="it must be https"):
            make(address)


@pytest.mark.parametrize("role_name", ["", "a/b", "../x", "a b", "x" * 65])
def test_role_name_that_is_none_is_refused(role_name: str) -> None:
    with pytest.raises(ValueError, match="role name"):
        ecs("http://127.0.0.1", role_name=role_name)


def everything(error: BaseException) -> str:
    """All that a logger could print of an error, the exceptions behind it too."""
    seen: list[str] = []
    behind: BaseException | None = error
    while behind is not None:
        seen += [repr(behind), json.dumps(vars(behind), default=str), *traceback.format_exception(behind)]
        behind = behind.__cause__ or behind.__context__
    return "\n".join(line for line in seen if 'File "' not in line)


@pytest.fixture
def all_logs() -> Iterator[list[str]]:
    """Every record of every logger, at every level."""
    records: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    collector = Collector()
    levels = {logger: logger.level for logger in (logging.getLogger(), logging.getLogger("urllib3"))}
    logging.getLogger().addHandler(collector)
    for logger in levels:
        logger.setLevel(logging.NOTSET)
    yield records
    logging.getLogger().removeHandler(collector)
    for logger, level in levels.items():
        logger.setLevel(level)


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_tokens_and_secrets_are_in_no_log_and_no_repr(good: bool, all_logs: list[str]) -> None:  # noqa: FBT001
    texts: list[str] = []
    for endpoint in ENDPOINTS:
        answer = wrapped(endpoint, success()) if good else reply_json({"Message": OIDC_TOKEN} | issued(), status=400)
        with endpoint_answering(endpoint, answer) as (_, provider):
            texts += [repr(provider.fetch() if good else everything(failure(provider))), repr(provider)]
    assert all("canary" not in text for text in [*texts, *all_logs])
    assert len(texts) == 6
