"""Who may call what: every RPC against every kind of caller that may not, and the one that may."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import jwt
import pytest
import yaml
from google.protobuf.duration_pb2 import Duration
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keybroker_client import KeyBrokerClient
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from kms_emulator import Emulator
from tests.certificates import HOUR, Authority, Certificate, Issuer
from tests.integration.conftest import RunningBroker

ALLOWED = "spiffe://example.org/ns/payments/sa/importer"
UNKNOWN = "spiffe://example.org/ns/payments/sa/stranger"
OPERATOR = "spiffe://example.org/ns/ops/sa/admin"
OTHER_KEY = "key-hzz0000000000000000"
RPCS = [method.name for method in pb.DESCRIPTOR.services_by_name["KeyBrokerService"].methods]
OF_A_KEY = [rpc for rpc in RPCS if rpc != "GetImport"]
"""GetImport names no key. Whose request is asked for the ledger decides, not the policy."""


def policy(key_id: str, principal: str = f"x509:{ALLOWED}", operator: str = f"x509:{OPERATOR}") -> dict[str, Any]:
    return {
        "rules": [
            {
                "name": "payments",
                "callers": [principal],
                "rpcs": "*",
                "keys": [key_id],
                "may_create": True,
                "may_delete": True,
                "new_keys": {"specs": ["AES_256"], "aliases": ["alias/payments/*"], "tags": {"team": ["payments"]}},
            },
            {"name": "operators", "callers": [operator], "rpcs": ["Reflection", "Channelz"]},
        ]
    }


def request_for(rpc: str, key_id: str) -> Any:
    """A request that is good in itself. Those that create ask for a spec that no rule allows, if the key is another."""
    spec = types_pb2.KEY_SPEC_AES_128 if key_id == OTHER_KEY else types_pb2.KEY_SPEC_AES_256
    named: dict[str, Any] = {"request_id": str(uuid4()), "key_id": key_id}
    return {
        "ImportExternalKey": lambda: pb.ImportExternalKeyRequest(**named),
        "CreateExternalKey": lambda: pb.CreateExternalKeyRequest(
            request_id=str(uuid4()), new_key=types_pb2.NewKey(key_spec=spec)
        ),
        "GetImportParameters": lambda: pb.GetImportParametersRequest(key_id=key_id),
        "ImportWrappedKeyMaterial": lambda: pb.ImportWrappedKeyMaterialRequest(
            **named, wrapped_key_material=bytes(256), import_token="token"
        ),
        "GetImport": lambda: pb.GetImportRequest(request_id=str(uuid4())),
        "ListOrphanedKeys": pb.ListOrphanedKeysRequest,
        "DeleteOrphanedKey": lambda: pb.DeleteOrphanedKeyRequest(**named, pending_window=Duration(seconds=7 * 86400)),
        "DescribeKey": lambda: pb.DescribeKeyRequest(key_id=key_id),
        "ScheduleKeyDeletion": lambda: pb.ScheduleKeyDeletionRequest(
            **named, pending_window=Duration(seconds=7 * 86400)
        ),
        "CancelKeyDeletion": lambda: pb.CancelKeyDeletionRequest(**named),
    }[rpc]()


class World:
    """A CA, an issuer, a CMK, and a broker that knows one caller."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.folder = folder
        self.emulator = emulator
        self.authority = Authority()
        self.issuer = Issuer()
        self.key_id = emulator.create_key()
        server = self.authority.issue(dns_names=("localhost",))
        self.write("tls.crt", server.chain)
        self.write("tls.key", server.private_key)
        self.write("ca.crt", self.authority.pem)
        self.write("jwks.json", self.issuer.jwks())

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(path)
        return str(path)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def tls(self) -> dict[str, str]:
        return {"certificate_file": self.path("tls.crt"), "private_key_file": self.path("tls.key")}

    def mtls_sections(self, rules: dict[str, Any] | None = None) -> dict[str, Any]:
        self.write("policy.yaml", yaml.safe_dump(rules or policy(self.key_id)).encode())
        identity = {"mtls": {"client_ca_file": self.path("ca.crt")}}
        return self._sections(identity)

    def jwt_sections(self, subject: str = "system:serviceaccount:payments:importer") -> dict[str, Any]:
        rules = policy(self.key_id, f"jwt:{self.issuer.url}#{subject}", f"jwt:{self.issuer.url}#ops")
        self.write("policy.yaml", yaml.safe_dump(rules).encode())
        keys = {"jwks_file": self.path("jwks.json")}
        return self._sections(
            {"jwt": {"issuer": self.issuer.url, "audience": self.issuer.audience, "leeway_seconds": 0, **keys}}
        )

    def _sections(self, identity: dict[str, Any]) -> dict[str, Any]:
        server = {"tls": self.tls(), "identity": identity, "reflection": True, "channelz": True}
        return {"server": server, "policy": {"file": self.path("policy.yaml")}}

    @contextmanager
    def channel(self, broker: RunningBroker, certificate: Certificate | None = None) -> Iterator[grpc.Channel]:
        credentials = grpc.ssl_channel_credentials(
            self.authority.pem,
            certificate.private_key if certificate else None,
            certificate.chain if certificate else None,
        )
        with grpc.secure_channel(broker.address.replace("127.0.0.1", "localhost"), credentials) as channel:
            yield channel


@pytest.fixture
def world(tmp_path: Path, emulator: Emulator) -> World:
    return World(tmp_path, emulator)


def code_of(channel: grpc.Channel, rpc: str, key_id: str, token: str = "") -> str:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    _, call = _with_call(getattr(KeyBrokerServiceStub(channel), rpc), request_for(rpc, key_id), metadata)
    return call.code().name


def _with_call(method: Any, request: Any, metadata: list[tuple[str, str]]) -> tuple[Any, Any]:
    try:
        return method.with_call(request, timeout=20, metadata=metadata)
    except grpc.RpcError as error:
        return None, error


def denials(logged: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (entry["method"].rpartition("/")[2], entry.get("reason", ""), entry.get("caller", ""))
        for entry in logged
        if entry["event"] == "call"
    ]


CERTIFICATES: dict[str, Callable[[World], Certificate | None]] = {
    "no certificate": lambda world: None,
    "wrong CA": lambda world: Authority("another").issue(uris=(ALLOWED,)),
    "expired": lambda world: world.authority.issue(
        uris=(ALLOWED,), not_before=datetime.now(UTC) - 3 * HOUR, not_after=datetime.now(UTC) - HOUR
    ),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_certificate_that_is_not_accepted_fails_in_the_handshake(
    world: World, make_broker: Callable[..., RunningBroker], case: str
) -> None:
    broker = make_broker(**world.mtls_sections())
    with world.channel(broker, CERTIFICATES[case](world)) as channel:
        assert {code_of(channel, rpc, world.key_id) for rpc in RPCS} == {"UNAVAILABLE"}
    assert world.emulator.calls == {}


NO_PRINCIPAL = {
    "no name": {},
    "several DNS names": {"dns_names": ("a.example", "b.example")},
    "SPIFFE id and another URI": {"uris": (ALLOWED, "https://example.org/x")},
    "URI that is no SPIFFE id": {"uris": ("https://example.org/x",)},
}


@pytest.mark.parametrize("case", NO_PRINCIPAL)
def test_certificate_without_one_clear_name_is_unauthenticated(
    world: World, make_broker: Callable[..., RunningBroker], case: str
) -> None:
    broker = make_broker(**world.mtls_sections())
    with world.channel(broker, world.authority.issue(**NO_PRINCIPAL[case])) as channel:  # type: ignore[arg-type]
        assert {code_of(channel, rpc, world.key_id) for rpc in RPCS} == {"UNAUTHENTICATED"}
    assert world.emulator.calls == {}


def test_trusted_caller_without_a_rule_is_denied_every_method_of_the_descriptor(
    world: World, make_broker: Callable[..., RunningBroker], logged: list[dict[str, Any]]
) -> None:
    broker = make_broker(**world.mtls_sections())
    with world.channel(broker, world.authority.issue(uris=(UNKNOWN,))) as channel:
        for rpc in RPCS:
            assert code_of(channel, rpc, world.key_id) == "PERMISSION_DENIED"
    assert world.emulator.calls == {}
    assert denials(logged) == [(rpc, "CALLER_NOT_ALLOWED", f"x509:{UNKNOWN}") for rpc in RPCS]


def test_allowed_caller_with_another_key_is_denied(
    world: World, make_broker: Callable[..., RunningBroker], logged: list[dict[str, Any]]
) -> None:
    broker = make_broker(**world.mtls_sections())
    with world.channel(broker, world.authority.issue(uris=(ALLOWED,))) as channel:
        for rpc in OF_A_KEY:
            assert code_of(channel, rpc, OTHER_KEY) == "PERMISSION_DENIED"
    assert world.emulator.calls == {}
    assert denials(logged) == [(rpc, "CALLER_NOT_ALLOWED", f"x509:{ALLOWED}") for rpc in OF_A_KEY]


def test_allowed_caller_imports(
    world: World, make_broker: Callable[..., RunningBroker], logged: list[dict[str, Any]]
) -> None:
    broker = make_broker(**world.mtls_sections())
    with world.channel(broker, world.authority.issue(uris=(ALLOWED,))) as channel:
        assert code_of(channel, "ImportExternalKey", world.key_id) == "OK"
    assert world.emulator.key_state(world.key_id) == "Enabled"
    assert [entry["rule"] for entry in logged if entry["event"] == "call"] == ["payments"]


def test_dns_name_is_a_principal_too(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.mtls_sections(policy(world.key_id, "x509:dns:importer.payments.example")))
    with world.channel(broker, world.authority.issue(dns_names=("Importer.payments.example",))) as channel:
        assert code_of(channel, "DescribeKey", world.key_id) == "OK"


@pytest.mark.parametrize(
    ("new_key", "code"),
    [
        ({"key_spec": types_pb2.KEY_SPEC_AES_256, "alias": "alias/payments/one", "tags": {"team": "payments"}}, "OK"),
        ({"key_spec": types_pb2.KEY_SPEC_AES_128}, "PERMISSION_DENIED"),
        ({"key_spec": types_pb2.KEY_SPEC_AES_256, "alias": "alias/billing"}, "PERMISSION_DENIED"),
        ({"key_spec": types_pb2.KEY_SPEC_AES_256, "alias": "alias/payments/a/b"}, "PERMISSION_DENIED"),
        ({"key_spec": types_pb2.KEY_SPEC_AES_256, "tags": {"team": "other"}}, "PERMISSION_DENIED"),
        ({"key_spec": types_pb2.KEY_SPEC_AES_256, "tags": {"owner": "payments"}}, "PERMISSION_DENIED"),
    ],
)
@pytest.mark.parametrize("rpc", ["CreateExternalKey", "ImportExternalKey"])
def test_new_cmk_must_be_what_the_rule_allows(
    world: World, make_broker: Callable[..., RunningBroker], rpc: str, new_key: dict[str, Any], code: str
) -> None:
    broker = make_broker(**world.mtls_sections())
    kind = pb.CreateExternalKeyRequest if rpc == "CreateExternalKey" else pb.ImportExternalKeyRequest
    request = kind(request_id=str(uuid4()), new_key=types_pb2.NewKey(**new_key))
    with world.channel(broker, world.authority.issue(uris=(ALLOWED,))) as channel:
        call = getattr(KeyBrokerServiceStub(channel), rpc)
        if code == "OK":
            call(request, timeout=10)
            return
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=10)
    assert caught.value.code().name == code  # type: ignore[attr-defined]
    assert world.emulator.calls == {}


def test_wrapping_algorithm_not_in_the_rule_is_denied(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.mtls_sections())
    pkcs1 = types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5
    request = pb.GetImportParametersRequest(key_id=world.key_id, wrapping_algorithm=pkcs1)
    with (
        world.channel(broker, world.authority.issue(uris=(ALLOWED,))) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        KeyBrokerServiceStub(channel).GetImportParameters(request, timeout=5)
    assert caught.value.code().name == "PERMISSION_DENIED"  # type: ignore[attr-defined]
    assert world.emulator.calls == {}


def test_alias_gives_no_authority_over_what_it_names(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.mtls_sections())
    with world.channel(broker, world.authority.issue(uris=(ALLOWED,))) as channel:
        assert code_of(channel, "DescribeKey", "alias/payments/one") == "PERMISSION_DENIED"
    assert world.emulator.calls == {}


def test_rate_of_a_rule_holds_for_each_caller(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    rules = policy(world.key_id, "x509:spiffe://example.org/ns/payments/sa/*")
    rules["rules"][0]["requests_per_minute"] = 3
    broker = make_broker(**world.mtls_sections(rules))
    with world.channel(broker, world.authority.issue(uris=(ALLOWED,))) as channel:
        codes = [code_of(channel, "DescribeKey", world.key_id) for _ in range(5)]
    assert codes == ["OK", "OK", "OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
    with world.channel(broker, world.authority.issue(uris=(UNKNOWN,))) as channel:
        assert code_of(channel, "DescribeKey", world.key_id) == "OK"
    assert world.emulator.calls["DescribeKey"] == 4


def test_health_is_open_and_reflection_and_channelz_are_for_operators(
    world: World, make_broker: Callable[..., RunningBroker]
) -> None:
    broker = make_broker(**world.mtls_sections())
    for spiffe_id, may in ((OPERATOR, True), (ALLOWED, False)):
        with world.channel(broker, world.authority.issue(uris=(spiffe_id,))) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=5)
            assert next(watch).status == 1
            watch.cancel()
            assert _reflects(channel) is may
            assert _channelz(channel) is may
            assert code_of(channel, "DescribeKey", world.key_id) == ("PERMISSION_DENIED" if may else "OK")


def _reflects(channel: grpc.Channel) -> bool:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=5)
    answers = []
    with suppress(grpc.RpcError):
        answers.extend(call)
    return _allowed(call) and "keymaterial.v1.KeyBrokerService" in str(answers)


def _channelz(channel: grpc.Channel) -> bool:
    return _allowed(channelz_pb2_grpc.ChannelzStub(channel).GetServers.future(channelz_pb2.GetServersRequest()))


def _allowed(call: Any) -> bool:
    code = call.code()
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED}
    return code is grpc.StatusCode.OK


SUBJECT = "system:serviceaccount:payments:importer"


def _alg_none(issuer: Issuer) -> str:
    claims = jwt.decode(issuer.token(SUBJECT), options={"verify_signature": False})
    return jwt.encode(claims, "", algorithm="none", headers={"kid": issuer.key_id})


def _hs256_with_the_public_key(issuer: Issuer) -> str:
    def encoded(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    header = encoded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": issuer.key_id}).encode())
    signing_input = header + b"." + issuer.token(SUBJECT).split(".")[1].encode()
    signature = hmac.new(issuer.public_pem(), signing_input, hashlib.sha256).digest()
    return (signing_input + b"." + encoded(signature)).decode()


TOKENS: dict[str, Callable[[Issuer], str]] = {
    "none": lambda issuer: "",
    "garbage": lambda issuer: "not.a.token",
    "expired": lambda issuer: issuer.token(SUBJECT, exp=datetime.now(UTC) - timedelta(seconds=5)),
    "not yet valid": lambda issuer: issuer.token(SUBJECT, nbf=datetime.now(UTC) + HOUR),
    "wrong audience": lambda issuer: issuer.token(SUBJECT, aud=["another"]),
    "wrong issuer": lambda issuer: issuer.token(SUBJECT, iss="https://another.example"),
    "no expiry": lambda issuer: issuer.token(SUBJECT, exp=None),
    "alg none": _alg_none,
    "unknown key": lambda issuer: issuer.token(SUBJECT, headers={"kid": "another"}),
    "another's key under a known id": lambda issuer: Issuer().token(SUBJECT),
    "HS256 signed with the public key": _hs256_with_the_public_key,
}


@pytest.mark.parametrize("case", TOKENS)
def test_token_that_is_not_valid_is_unauthenticated_for_every_rpc(
    world: World, make_broker: Callable[..., RunningBroker], case: str, logged: list[dict[str, Any]]
) -> None:
    broker = make_broker(**world.jwt_sections())
    token = TOKENS[case](world.issuer)
    with world.channel(broker) as channel:
        for rpc in RPCS:
            assert code_of(channel, rpc, world.key_id, token) == "UNAUTHENTICATED"
    assert world.emulator.calls == {}
    assert denials(logged) == [(rpc, "CALLER_UNAUTHENTICATED", "") for rpc in RPCS]


@pytest.mark.parametrize(
    ("subject", "key", "code"),
    [
        ("system:serviceaccount:payments:stranger", "own", "PERMISSION_DENIED"),
        (SUBJECT, "other", "PERMISSION_DENIED"),
    ],
)
def test_token_of_a_caller_whom_the_policy_does_not_let_is_denied(
    world: World,
    make_broker: Callable[..., RunningBroker],
    logged: list[dict[str, Any]],
    subject: str,
    key: str,
    code: str,
) -> None:
    broker = make_broker(**world.jwt_sections())
    key_id = world.key_id if key == "own" else OTHER_KEY
    rpcs = RPCS if key == "own" else OF_A_KEY
    with world.channel(broker) as channel:
        for rpc in rpcs:
            assert code_of(channel, rpc, key_id, world.issuer.token(subject)) == code
    assert world.emulator.calls == {}
    principal = f"jwt:{world.issuer.url}#{subject}"
    assert denials(logged) == [(rpc, "CALLER_NOT_ALLOWED", principal) for rpc in rpcs]


def test_token_of_an_allowed_caller_imports(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.jwt_sections())
    with world.channel(broker) as channel:
        assert code_of(channel, "ImportExternalKey", world.key_id, world.issuer.token(SUBJECT)) == "OK"
    assert world.emulator.key_state(world.key_id) == "Enabled"


def test_invalid_token_never_falls_back_to_a_certificate(
    world: World, make_broker: Callable[..., RunningBroker]
) -> None:
    """With tokens configured a certificate is no credential, and the other way round."""
    by_token = make_broker(**world.jwt_sections())
    with world.channel(by_token, world.authority.issue(uris=(ALLOWED,))) as channel:
        assert code_of(channel, "DescribeKey", world.key_id, "not.a.token") == "UNAUTHENTICATED"
    by_certificate = make_broker(**world.mtls_sections())
    with world.channel(by_certificate, world.authority.issue(uris=(UNKNOWN,))) as channel:
        assert code_of(channel, "DescribeKey", world.key_id, world.issuer.token(SUBJECT)) == "PERMISSION_DENIED"


def test_unknown_method_is_not_served(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.mtls_sections())
    with world.channel(broker, world.authority.issue(uris=(ALLOWED,))) as channel:
        call = channel.unary_unary("/keymaterial.v1.KeyBrokerService/DeleteKeyMaterial")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_client_library_and_certificates_work_together(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.mtls_sections())
    mine = world.authority.issue(uris=(ALLOWED,))
    credentials = grpc.ssl_channel_credentials(world.authority.pem, mine.private_key, mine.chain)
    with KeyBrokerClient(
        broker.address.replace("127.0.0.1", "localhost"), retries=0, credentials=credentials
    ) as client:
        assert client.import_external_key(key_id=world.key_id).key.key_id == world.key_id


def test_kbctl_calls_with_a_token_file(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.jwt_sections())
    address = broker.address.replace("127.0.0.1", "localhost")
    world.write("mine.jwt", f"{world.issuer.token(SUBJECT)}\n".encode())
    world.write("strange.jwt", world.issuer.token("stranger").encode())
    base = [sys.executable, "-m", "kbctl", "--address", address, "--tls-ca", world.path("ca.crt")]
    command = ["describe", "--key-id", world.key_id]
    ended = [
        subprocess.run([*base, "--token-file", world.path(name), *command], check=False, capture_output=True, text=True)
        for name in ("mine.jwt", "strange.jwt")
    ]
    assert [each.returncode for each in ended] == [0, 9]
    assert "CALLER_NOT_ALLOWED" in ended[1].stderr
    without_tls = [sys.executable, "-m", "kbctl", "--token-file", world.path("mine.jwt"), *command]
    refused = subprocess.run(without_tls, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "never sent in the clear" in refused.stderr


@pytest.mark.parametrize("sent_along", ["another's certificate", "the CA"])
def test_certificates_sent_along_never_say_who_calls(
    world: World, make_broker: Callable[..., RunningBroker], logged: list[dict[str, Any]], sent_along: str
) -> None:
    """TLS proves the private key of the leaf only; anybody can append an allowed caller's certificate."""
    broker = make_broker(**world.mtls_sections())
    other = world.authority.issue(uris=(ALLOWED,)).chain if sent_along != "the CA" else world.authority.pem
    stranger = world.authority.issue(uris=(UNKNOWN,))
    with world.channel(broker, Certificate(stranger.chain + other, stranger.private_key)) as channel:
        assert code_of(channel, "DescribeKey", world.key_id) == "PERMISSION_DENIED"
    assert world.emulator.calls == {}
    assert denials(logged) == [("DescribeKey", "CALLER_NOT_ALLOWED", f"x509:{UNKNOWN}")]
    allowed = world.authority.issue(uris=(ALLOWED,))
    with world.channel(broker, Certificate(allowed.chain + world.authority.pem, allowed.private_key)) as channel:
        assert code_of(channel, "DescribeKey", world.key_id) == "OK"


def test_certificate_of_an_intermediate_is_accepted(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.mtls_sections())
    intermediate = world.authority.issue_authority("intermediate")
    mine = intermediate.issue(uris=(ALLOWED,))
    with world.channel(broker, Certificate(mine.chain + intermediate.pem, mine.private_key)) as channel:
        assert code_of(channel, "DescribeKey", world.key_id) == "OK"
