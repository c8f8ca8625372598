"""What is refused is not quoted: an exception about a secret shows it neither itself nor by what it came from.

Looked at is all that Python prints of an exception that nobody catches (its text, and those of its causes), its
arguments, attributes and notes.
"""

import base64
import secrets
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from keybroker import __main__ as command
from keybroker import check_config
from keybroker.adapters.identity.jwks import parse_jwks
from keybroker.adapters.kms.credentials import Credentials
from keybroker.adapters.kms.credentials_http import Connection, CredentialsHttp, json_object, temporary_credentials
from keybroker.adapters.kms.replies import read_body
from keybroker.adapters.kms.transport import Reply, Transport
from keybroker.adapters.ledger.sealing import Keyring, Place, key_id
from keybroker.domain.key_material import KeyMaterial
from keybroker.domain.public_key_policy import load_wrapping_public_key
from keybroker.policy_file import parse_policy
from keybroker.rpc import requests
from keybroker.settings import parse_settings
from tests.canaries.search import Search, Secret
from tests.unit.settings.test_redaction import tree


def _keyring(secret: bytes) -> Keyring:
    return Keyring(current=secret.ljust(32, b"x")[:32])


def _transport(**changes: Any) -> Transport:
    usual: dict[str, Any] = {"proxy": None, "ca_bundle": None, "connect_timeout_seconds": 1, "read_timeout_seconds": 1}
    return Transport(**usual | {"pool_size": 1, "allow_emulator": False} | changes)


def _filled(secret: bytes) -> object:
    def fill(buffer: memoryview) -> None:
        buffer[:] = secret.ljust(32)
        raise ValueError("the source failed halfway")

    return KeyMaterial(32, fill=fill)


_PLACE = Place(record_id="record", cmk=("account", "region", "key"), algorithm="RSAES_OAEP_SHA_256", kind="token")
_HTTP = Connection(timeout_seconds=1.0)

REFUSALS: dict[str, Callable[[str], object]] = {
    "access-key secret with a space": lambda secret: Credentials("id", f"{secret[:20]} {secret}"),
    "access-key secret that is not ASCII": lambda secret: Credentials("id", f"{secret}\u00e9"),
    "STS token with a line break": lambda secret: Credentials("id", "secret", f"{secret}\n{secret}"),
    "endpoint with a password": lambda secret: _transport(endpoint=f"https://user:{secret}@kms.example"),
    "endpoint with a password and a bad port": lambda secret: _transport(endpoint=f"https://u:{secret}@kms.example:x"),
    "proxy that is no URL": lambda secret: _transport(endpoint="https://kms.example", proxy=f"ftp://u:{secret}@p"),
    "credentials URI in the clear": lambda secret: CredentialsHttp(
        f"http://elsewhere.example/{secret}", connection=_HTTP
    ),
    "credentials URI that is none": lambda secret: CredentialsHttp(f"https://[{secret}", connection=_HTTP),
    "credentials that are no JSON": lambda secret: json_object(f"{{{secret}".encode()),
    "credentials without an expiry": lambda secret: temporary_credentials(
        {"AccessKeyId": "id", "AccessKeySecret": secret, "SecurityToken": secret, "Expiration": secret}
    ),
    "reply that is cut off": lambda secret: read_body(Reply(200, {}, f'{{"ImportToken": "{secret}'.encode())),
    "reply that is no JSON": lambda secret: read_body(Reply(500, {}, f"<html>{secret}".encode())),
    "reply with an unknown code": lambda secret: read_body(
        Reply(400, {}, f'{{"Code": "{secret}", "Message": "{secret}"}}'.encode())
    ),
    "ledger keys that are the same": lambda secret: Keyring(
        current=secret.encode()[:32], old=(secret.encode()[:32], secret.encode()[:32])
    ),
    "ledger key that is short": lambda secret: Keyring(current=secret.encode()[:30]),
    "sealed value of another key": lambda secret: _keyring(secret.encode()).unseal(
        secret.encode(), _PLACE, sealed_by=key_id(secret.encode().ljust(32, b"x")[:32])
    ),
    "wrapping public key": lambda secret: load_wrapping_public_key(secret.encode()),
    "material of a source that fails": lambda secret: _filled(secret.encode()[:32]),
    "token keys": lambda secret: parse_jwks(f'{{"keys": [{{"kty": "oct", "k": "{secret}"}}]}}'.encode()),
    "token keys that are no JSON": lambda secret: parse_jwks(f"{{{secret}".encode()),
    "policy that is no YAML": lambda secret: parse_policy(f"rules: [{secret}, :".encode()),
    "policy with an unknown key": lambda secret: parse_policy(yaml.safe_dump({"rules": [{"name": secret}]}).encode()),
    "YAML with a key twice": lambda secret: parse_policy(f"a: {secret}\na: {secret}".encode()),
    "import token": lambda secret: requests.import_token(f"{secret} {secret}"),
    "wrapped material": lambda secret: requests.wrapped_key_material(secret.encode()),
    "proxy in parts": lambda secret: parse_settings(tree(proxy={"password": secret})),
    "URI in place of its section": lambda secret: parse_settings(tree(credentials={"uri": secret})),
    "secret in place of a section": lambda secret: parse_settings({"kms": secret}),
}


def shown(error: BaseException) -> str:
    """All that is to be seen of it, and of what it came from."""
    notes = getattr(error, "__notes__", [])
    return "".join([*traceback.format_exception(error), str(error), repr(error), f"{error.args}{vars(error)}{notes}"])


@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
def test_refusal_quotes_no_secret(refuse: Callable[[str], object]) -> None:
    secret = secrets.token_urlsafe(30)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # each has its own
        refuse(secret)
    assert not isinstance(caught.value, AttributeError | TypeError)
    assert Search([Secret("secret", secret.encode())]).findings(shown(caught.value)) == []


def test_exception_that_quotes_a_secret_is_found() -> None:
    secret = secrets.token_urlsafe(30)
    for error in (ValueError(secret), ExceptionGroup("group", [KeyError(secret)])):
        assert Search([Secret("secret", secret.encode())]).findings(shown(error))


# At the start


def _configured(folder: Path, **changes: Any) -> str:
    config = tree()
    for name, value in changes.items():
        config[name] = config.get(name, {}) | value
    path = folder / "keybroker.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def _written(folder: Path, content: str) -> str:
    path = folder / "secret"
    path.touch(0o600)
    path.write_text(content)
    return str(path)


def _credentials(folder: Path, secret: str) -> dict[str, Any]:
    path = _written(folder, f"{secret} {secret}")
    files = {"access_key_id_file": path, "access_key_secret_file": path}
    return {"kms": tree(credentials={"files": files})["kms"]}


STARTS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "ledger key": lambda folder, secret: {"ledger": {"file": str(folder / "db"), "key_file": _written(folder, secret)}},
    "ledger key of the wrong length": lambda folder, secret: {
        "ledger": {
            "file": str(folder / "db"),
            "key_file": _written(folder, base64.b64encode(secret.encode()).decode()),
        }
    },
    "TLS key": lambda folder, secret: {
        "server": {"tls": {"certificate_file": _written(folder, secret), "private_key_file": _written(folder, secret)}}
    },
    "credentials": _credentials,
    "unknown key": lambda folder, secret: {"ledger": {"key": secret}},
    "value of another type": lambda folder, secret: {"server": {"max_concurrent_calls": secret}},
}


@pytest.mark.parametrize("serve", ["serve", "check-config"])
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_start_that_fails_quotes_no_secret(
    start: Callable[[Path, str], dict[str, Any]],
    serve: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "protect_from_dumps", lambda: None)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", key_secret := secrets.token_urlsafe(30))
    secret = secrets.token_urlsafe(30)
    assert command.main([serve, "--config", _configured(tmp_path, **start(tmp_path, secret))]) == 2
    printed = "".join(capfd.readouterr())
    assert "the configuration can't be used" in printed
    search = Search([Secret("secret", secret.encode()), Secret("key", key_secret.encode())])
    assert search.findings(printed) == []


def test_start_that_fails_unforeseen_says_types_and_places_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = secrets.token_urlsafe(30)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(secret) from KeyError(secret)

    monkeypatch.setattr(check_config, "App", fail)
    assert command.main(["check-config", "--config", _configured(tmp_path)]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("keybroker: failed: builtins.RuntimeError at fail:")
    assert "from builtins.KeyError" in printed.err
    assert Search([Secret("secret", secret.encode())]).findings(printed.err) == []
    assert "Traceback" not in printed.err
    assert sys.exception() is None
