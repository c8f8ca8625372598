"""Any configuration: one that the broker can be built from, or a ConfigurationError that names a key and no secret."""

import base64
import re
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from keybroker.app import App
from keybroker.settings import ConfigurationError, Settings, load_settings, parse_settings
from tests.certificates import Authority, Issuer
from tests.fuzz.examples import fuzzed
from tests.fuzz.files import ODD_VALUES, ODD_YAML, VALUES, bombs, mutations, places, put, written
from tests.unit.receipts.support import private_key

SECRET = "qzsecret5b20"  # what must not be quoted
PLANTED: dict[str, Any] = {
    "proxy": f"http://user:{SECRET}@proxy.example:3128",
    "credentials": {"uri": {"uri": f"https://credentials.example/{SECRET}?token={SECRET}"}},
}
INSTANCE: dict[str, Any] = {
    "region": "cn-hangzhou",
    "endpoint": "https://kms.cn-hangzhou.aliyuncs.com",
    "dkms_instance_id": "kst-example",
    "connect_timeout_seconds": 5.0,
    "allow_emulator": False,
    "quota_group": "a",
}
VARIABLE = st.from_regex(r"keybroker__[a-z_]{0,30}(__[a-z_]{0,12}){0,3}", fullmatch=True)
KNOWN = (
    "server__grpc_address",
    "server__tls",
    "kms",
    "kms__instances__main__proxy",
    "policy__file",
    "ledger__file",
    "receipts__key_file",
    "audit__file",
    "imports",
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every section, with files that are there."""
    folder: Path = tmp_path_factory.mktemp("configuration")
    certificate = Authority().issue(dns_names=("localhost",))
    contents = {
        "tls.crt": certificate.chain,
        "tls.key": certificate.private_key,
        "jwks.json": Issuer().jwks(),
        "policy.yaml": b"rules: []",
        "ledger.key": base64.b64encode(bytes(32)),
        "receipts.pem": private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    trusted = {"ca_bundle_file": str(folder / "tls.crt")}  # the system's takes long to read
    tls = {"certificate_file": str(folder / "tls.crt"), "private_key_file": str(folder / "tls.key")}
    jwt = {"issuer": "https://issuer.example", "audience": "a", "jwks_file": str(folder / "jwks.json")}
    server = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0", "tls": tls, "identity": {"jwt": jwt}}
    return {
        "server": server | {"max_concurrent_calls": 4, "max_deadline_seconds": 20.0},
        "policy": {"file": str(folder / "policy.yaml")},
        "kms": {
            "default_instance": "main",
            "instances": {
                "main": INSTANCE | trusted | PLANTED,
                "other": INSTANCE | trusted | {"credentials": {"ecs_ram_role": {}}},
            },
            "pacing": {"read_per_second": 16},
        },
        "imports": {"forbid_pkcs1_v1_5": True, "cached_parameters": 10},
        "ledger": {"file": str(folder / "ledger.db"), "key_file": str(folder / "ledger.key"), "old_key_files": []},
        "audit": {"file": str(folder / "audit.jsonl"), "stdout": False},
        "receipts": {"key_file": str(folder / "receipts.pem")},
        "entropy": {"source": "os"},
        "hardening": {"dump_protection": True},
        "logs": {"level": "INFO"},
    }


def judge(refusal: ConfigurationError) -> None:
    told = "".join(traceback.format_exception(refusal))
    assert SECRET not in told
    assert told.count("Traceback") == 1, "the refusal brings a foreign exception along"
    assert re.match(r".+: .", str(refusal), re.DOTALL), refusal


def built_or_refused(tree: Any) -> Settings | None:
    """What check-config does with a tree; None for a refusal."""
    started = time.process_time()
    try:
        settings = parse_settings(tree)
        App(settings)
    except ConfigurationError as error:
        refusal = error
    else:
        assert SECRET not in repr(settings)
        return settings
    judge(refusal)
    assert time.process_time() - started < 5
    return None


def test_every_section_is_fuzzed(good: dict[str, Any]) -> None:
    assert good.keys() == Settings.model_fields.keys()


def test_good_configuration_is_built(good: dict[str, Any]) -> None:
    settings = parse_settings(good)
    App(settings)
    assert SECRET in str(settings.kms.instances["main"].proxy_url)


def test_odd_value_anywhere_is_built_or_refused(good: dict[str, Any]) -> None:
    for place in filter(None, places(good)):
        for value in ODD_VALUES:
            built_or_refused(put(good, place, value))


def test_changed_configuration_is_built_or_refused(good: dict[str, Any]) -> None:
    @fuzzed(3.0)
    @given(tree=mutations(good))
    def prop(tree: Any) -> None:
        built_or_refused(tree)

    prop()


def test_file_of_changed_configuration_is_read_or_refused(good: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    @fuzzed()
    @given(tree=mutations(good))
    def prop(tree: Any) -> None:
        path.write_bytes(written(tree))
        read_or_refused(path, {})

    prop()


def test_changed_text_is_read_or_refused(good: dict[str, Any], tmp_path: Path) -> None:
    path, content = tmp_path / "config.yaml", written(good)

    @fuzzed()
    @given(place=st.integers(0, len(content)), cut=st.integers(0, 20), put=st.binary(max_size=4))
    def prop(place: int, cut: int, put: bytes) -> None:
        path.write_bytes(content[:place] + put + content[place + cut :])
        read_or_refused(path, {})

    prop()


@pytest.mark.parametrize("content", [*ODD_YAML, *bombs("kms")], ids=range(len(ODD_YAML) + 3))
def test_odd_yaml_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert not read_or_refused(path, {})


def test_variables_of_any_name_and_value_are_read_or_refused(good: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(written(good))
    texts = st.one_of(
        VALUES.map(lambda value: written(value).decode()),
        st.text(max_size=30),
        st.just(f"http://u:{SECRET}@["),
        st.just(SECRET),
    )
    names = st.one_of(VARIABLE, st.sampled_from([f"KEYBROKER__{name.upper()}" for name in KNOWN]))

    @fuzzed()
    @given(environ=st.dictionaries(names, texts, max_size=3))
    def prop(environ: dict[str, str]) -> None:
        read_or_refused(path, environ)

    prop()


def read_or_refused(path: Path, environ: dict[str, str]) -> bool:
    started = time.process_time()
    try:
        load_settings(path, environ=environ)
    except ConfigurationError as error:
        refusal = error
    else:
        return True
    judge(refusal)
    assert time.process_time() - started < 5
    return False
