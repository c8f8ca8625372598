import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from keybroker.settings import ConfigurationError, Settings, is_loopback, load_settings, parse_settings, split_address

CANARY = "canary-71fd03"

# as the design has it
SMALLEST = """\
server: {grpc_address: "127.0.0.1:50051", http_address: "127.0.0.1:9464", reflection: true}
kms:
  default_instance: main
  instances:
    main: {region: cn-hangzhou, endpoint: "http://127.0.0.1:8088", dkms_instance_id: kst-example}
"""


def tree(**changes: Any) -> dict[str, Any]:
    """The smallest configuration with values at dotted paths changed ("__" for the dot); None leaves one out."""
    changed: dict[str, Any] = yaml.safe_load(SMALLEST)
    for path, value in changes.items():
        *sections, key = path.split("__")
        node = changed
        for section in sections:
            node = node.setdefault(section, {})
        if value is None:
            node.pop(key)
        else:
            node[key] = value
    return changed


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_settings(tree(**changes))
    return str(caught.value)


def written(path: Path, text: str = SMALLEST) -> Path:
    file = path / "keybroker.yaml"
    file.write_text(text, encoding="utf-8")
    return file


# What loads


def test_smallest_configuration_of_the_design_loads_with_safe_defaults(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path), environ={})
    assert settings.server.grpc_address == "127.0.0.1:50051"
    assert settings.server.reflection is True
    assert settings.kms.default_instance == "main"
    assert settings.kms.instances["main"].dkms_instance_id == "kst-example"
    assert settings.server.tls is None
    assert settings.server.allow_insecure_non_loopback is False
    assert settings.kms.instances["main"].allow_emulator is False
    assert settings.kms.instances["main"].credentials is None
    assert settings.imports.allow_foreign_tokens is False
    assert settings.logs.level == "INFO"


def test_defaults_that_are_documented_are_these() -> None:
    server = parse_settings(tree(server__grpc_address=None, server__http_address=None, server__reflection=None)).server
    assert (server.grpc_address, server.http_address) == ("127.0.0.1:50051", "127.0.0.1:9464")
    assert server.reflection is False
    assert (server.default_deadline_seconds, server.max_deadline_seconds) == (15.0, 20.0)


def test_environment_alone_is_a_configuration() -> None:
    settings = load_settings(
        None,
        environ={
            "KEYBROKER__KMS__DEFAULT_INSTANCE": "main",
            "KEYBROKER__KMS__INSTANCES__MAIN__REGION": "cn-hangzhou",
            "KEYBROKER__KMS__INSTANCES__MAIN__ENDPOINT": "https://kms.cn-hangzhou.aliyuncs.com",
            "KEYBROKER__KMS__INSTANCES__MAIN__DKMS_INSTANCE_ID": "kst-example",
        },
    )
    assert settings.kms.instances["main"].endpoint == "https://kms.cn-hangzhou.aliyuncs.com"


def test_environment_of_the_process_is_read_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYBROKER__LOGS__LEVEL", "ERROR")
    assert load_settings(written(tmp_path)).logs.level == "ERROR"


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_settings(tree()).server.reflection = False


# Every key can be overridden by the environment


@dataclass(frozen=True)
class Key:
    """One key that has no keys below it. `beside` are those that its section needs beside it."""

    path: tuple[str, ...]
    kind: Any
    at_least: int
    beside: tuple["Key", ...] = ()

    @property
    def variable(self) -> str:
        return "__".join(("KEYBROKER", *self.path)).upper()


def keys(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key of the model. Instances are called "main"."""
    fields = {name: found for name, info in model.model_fields.items() for found in [_field(info, (*path, name))]}
    needed = [found for name, found in fields.items() if model.model_fields[name].is_required()]
    for found in fields.values():
        if isinstance(found, Key):
            others = tuple(other for other in needed if isinstance(other, Key) and other is not found)
            yield replace(found, beside=others)
        else:
            yield from keys(*found)


def _field(info: FieldInfo, path: tuple[str, ...]) -> Key | tuple[type[BaseModel], tuple[str, ...]]:
    kind: Any = info.annotation
    if get_origin(kind) in {Union, types.UnionType}:
        kind = next(member for member in get_args(kind) if member is not type(None))
    if get_origin(kind) is dict:
        return get_args(kind)[1], (*path, "main")
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind, path
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return Key(path, kind, next((limit.ge for limit in info.metadata if isinstance(limit, Ge)), 1))


SPECIAL = {
    "grpc_address": "127.0.0.1:7001",
    "http_address": "127.0.0.1:7002",
    "default_instance": "main",
    "region": "cn-beijing",
    "dkms_instance_id": "kst-other",
    "default_deadline_seconds": "12.5",
    "max_deadline_seconds": "19.5",
    "shutdown_grace_seconds": "31",
    "algorithms": "[ES256]",
    "jwks_url": "https://issuer.example/keys",
    "old_key_files": "[/a/old, /an/older]",
}

# What else has to be set for a section that does not stand alone.
TLS = {"KEYBROKER__SERVER__TLS__CERTIFICATE_FILE": "/a", "KEYBROKER__SERVER__TLS__PRIVATE_KEY_FILE": "/b"}
POLICY = {"KEYBROKER__POLICY__FILE": "/policy"}
LEDGER_KEY = {"KEYBROKER__LEDGER__KEY_FILE": "/key"}
JWT = "KEYBROKER__SERVER__IDENTITY__JWT__"
PKCS11 = "KEYBROKER__ENTROPY__PKCS11__"
NEEDS: dict[str, dict[str, str]] = {
    "entropy.source": {f"{PKCS11}MODULE_FILE": "/module.so", f"{PKCS11}TOKEN_LABEL": "a token"},
    "entropy.pkcs11": {"KEYBROKER__ENTROPY__SOURCE": "pkcs11"},
    "server.identity.mtls": TLS | POLICY,
    "server.identity.jwt.jwks_file": POLICY,
    "server.identity.jwt.jwks_url": POLICY,
    "server.identity.jwt": POLICY | {f"{JWT}JWKS_FILE": "/jwks"},
    "ledger.file": LEDGER_KEY,
    "ledger.mark_file": LEDGER_KEY | {"KEYBROKER__LEDGER__FILE": "/ledger"},
    "ledger.old_key_files": LEDGER_KEY,
    "policy": TLS | {"KEYBROKER__SERVER__IDENTITY__MTLS__CLIENT_CA_FILE": "/ca"},
}


def needs(key: "Key") -> dict[str, str]:
    name = ".".join(key.path)
    return next((values for prefix, values in NEEDS.items() if name == prefix or name.startswith(f"{prefix}.")), {})


def another_value(key: Key, before: Any) -> str:
    """A good value in the environment that is not the one before."""
    name = key.path[-1]
    texts = {
        bool: "false" if before else "true",
        int: str(key.at_least + (2 if before == key.at_least + 1 else 1)),
        float: "7.5",
        Path: f"/a/{name}",
        str: "https://another.example" if name.endswith("endpoint") else "another-text",
        SecretStr: "https://another.example",
    }
    if get_origin(key.kind) is Literal:
        return str(next(value for value in get_args(key.kind) if value != before))
    return SPECIAL.get(name) or texts[key.kind]


def value_at(settings: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        settings = settings[name] if isinstance(settings, Mapping) else getattr(settings, name, None)
    return settings.get_secret_value() if isinstance(settings, SecretStr) else settings


KEYS = list(keys(Settings))


def test_keys_of_the_model_were_found() -> None:
    found = {".".join(key.path) for key in KEYS}
    assert len(found) == len(KEYS)
    assert found >= {
        "server.tls.certificate_file",
        "server.allow_insecure_non_loopback",
        "kms.default_instance",
        "kms.instances.main.allow_emulator",
        "imports.cached_parameters",
        "logs.level",
    }
    assert any(name.startswith("kms.instances.main.credentials.") for name in found)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: ".".join(key.path))
@pytest.mark.parametrize("spelling", [str.upper, str.lower])
def test_key_is_overridden_by_its_variable(key: Key, spelling: Callable[[str], str], tmp_path: Path) -> None:
    before = value_at(parse_settings(tree()), key.path)
    text = another_value(key, before)
    beside = {other.variable: another_value(other, None) for other in key.beside}
    settings = load_settings(written(tmp_path), environ={**needs(key), **beside, spelling(key.variable): text})
    after = value_at(settings, key.path)
    shown = f"[{', '.join(map(str, after))}]" if isinstance(after, list) else str(after)
    assert (shown.lower() if key.kind is bool else shown) == str(float(text) if key.kind is float else text)
    assert key.path[-1] == "default_instance" or after != before


def test_variable_of_another_program_is_left_alone(tmp_path: Path) -> None:
    load_settings(written(tmp_path), environ={"KEYBROKER_PORT": "1", "KEYBROKER": "2", "MY_KEYBROKER__X": "3"})


def test_variable_adds_a_second_instance(tmp_path: Path) -> None:
    prefix = "KEYBROKER__KMS__INSTANCES__SECOND"
    settings = load_settings(
        written(tmp_path),
        environ={
            f"{prefix}__REGION": "cn-beijing",
            f"{prefix}__ENDPOINT": "https://kms.cn-beijing.aliyuncs.com",
            f"{prefix}__DKMS_INSTANCE_ID": "kst-second",
        },
    )
    assert set(settings.kms.instances) == {"main", "second"}


# What is refused

UNKNOWN = [(), ("server",), ("server", "tls"), ("kms",), ("kms", "instances", "main"), ("imports",), ("logs",)]


@pytest.mark.parametrize("sections", UNKNOWN, ids=lambda sections: ".".join(sections) or "top")
def test_unknown_key_in_the_file_is_named(sections: tuple[str, ...], tmp_path: Path) -> None:
    changed = tree(**{"__".join((*sections, "no_such_key")): CANARY})
    with pytest.raises(ConfigurationError) as caught:
        load_settings(written(tmp_path, yaml.safe_dump(changed)), environ={})
    assert f"{'.'.join((*sections, 'no_such_key'))}: unknown key" in str(caught.value).splitlines()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("sections", UNKNOWN, ids=lambda sections: ".".join(sections) or "top")
def test_unknown_key_in_the_environment_is_named(sections: tuple[str, ...], tmp_path: Path) -> None:
    variable = "__".join(("KEYBROKER", *sections, "NO_SUCH_KEY"))
    with pytest.raises(ConfigurationError) as caught:
        load_settings(written(tmp_path), environ={variable: CANARY})
    assert f"{'.'.join((*sections, 'no_such_key'))}: unknown key" in str(caught.value).splitlines()
    assert CANARY not in str(caught.value)


def test_unknown_keys_are_all_named_at_once() -> None:
    text = refusal(server__first=1, logs__second=2)
    assert "server.first: unknown key" in text
    assert "logs.second: unknown key" in text


MISSING = [
    "kms",
    "kms__default_instance",
    "kms__instances",
    "kms__instances__main__region",
    "kms__instances__main__endpoint",
    "kms__instances__main__dkms_instance_id",
]


@pytest.mark.parametrize("path", MISSING)
def test_missing_key_is_named(path: str) -> None:
    assert refusal(**{path: None}).startswith(f"{path.replace('__', '.')}: ")


BAD = {
    "server__grpc_address": ["", "50051", "localhost", "localhost:", ":50051", "localhost:65536", "::1:50051", "h:1:2"],
    "server__http_address": ["", "9464", "[::1]", "[::1]:", "http://localhost:9464", "localhost:9464/metrics"],
    "server__reflection": ["perhaps", 2],
    "server__max_concurrent_calls": [0, -1, 4097, "many", 1.5],
    "server__default_deadline_seconds": [0, -1, "soon", float("nan")],
    "server__keepalive_seconds": [0, float("inf"), float("nan"), 2_000_001],
    "server__max_connection_age_seconds": [float("inf"), 10**12],
    "server__allow_insecure_non_loopback": ["maybe"],
    "server__tls": ["file.pem", []],
    "kms__instances": [{}, [], "main"],
    "kms__instances__main__region": ["", "hangzhou", "cn-Hangzhou", "cn-hangzhou\n", "cn-hangzhou.evil.example", 5],
    "kms__instances__main__dkms_instance_id": ["", "kst_1", "k" * 65, "kst-1\n", 12],
    "kms__instances__main__connect_timeout_seconds": [0, float("inf")],
    "kms__instances__main__allow_emulator": ["yes please"],
    "imports__cached_parameters": [0, 1_000_001, "all"],
    "imports__parameters_expiry_margin_seconds": [-1, 43_201, float("nan")],
    "logs__level": ["info", "TRACE", "", 3],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in BAD.items() for value in values])
def test_bad_value_is_refused_naming_its_key(path: str, value: Any) -> None:
    lines = refusal(**{path: value}).splitlines()
    assert all(line.startswith(path.replace("__", ".")) for line in lines)


@pytest.mark.parametrize("name", ["Main", "1main", "-main", "", "m" * 64, "ma in", "main\n", "mäin"])
def test_instance_of_a_bad_name_is_refused(name: str) -> None:
    instances = tree()["kms"]["instances"]
    assert "kms.instances" in refusal(kms__instances={**instances, name: instances["main"]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kms__default_instance": "other"}, "default_instance 'other' is not one of the instances"),
        ({"server__shutdown_grace_seconds": 20.0}, "shutdown_grace_seconds must be greater than max_deadline_seconds"),
        ({"server__max_deadline_seconds": 25.0}, "shutdown_grace_seconds must be greater than max_deadline_seconds"),
        ({"server__max_deadline_seconds": 14.0}, "default_deadline_seconds must not be greater"),
        ({"server__default_deadline_seconds": 20.5}, "default_deadline_seconds must not be greater"),
        (
            {"imports__forbid_pkcs1_v1_5": True, "imports__allow_foreign_tokens": True},
            "forbid_pkcs1_v1_5 and allow_foreign_tokens exclude each other",
        ),
        ({"server__tls": {"certificate_file": "/chain.pem"}}, "server.tls.private_key_file"),
        ({"ledger__file": "/ledger"}, "ledger: file needs key_file"),
        ({"ledger__mark_file": "/mark", "ledger__key_file": "/key"}, "ledger: mark_file needs file"),
        ({"ledger__old_key_files": ["/old"]}, "ledger: old_key_files needs key_file"),
        (
            {"ledger": {"file": "/ledger", "mark_file": "/ledger", "key_file": "/key"}},
            "ledger: mark_file must be another one than file",
        ),
        (
            {"ledger": {"file": "/ledger", "key_file": "/key"}, "audit": {"file": "/ledger"}},
            "audit.file must be another one than ledger.file",
        ),
        (
            {"ledger": {"file": "/ledger", "mark_file": "/mark", "key_file": "/key"}, "audit": {"file": "/mark"}},
            "audit.file must be another one than ledger.mark_file",
        ),
        (
            {"ledger": {"file": "/ledger", "key_file": "/key"}, "audit": {"file": "/key"}},
            "audit.file must be another one than ledger.key_file",
        ),
        (
            {"ledger": {"key_file": "/key", "old_key_files": ["/old", "/older"]}, "audit": {"file": "/older"}},
            "audit.file must be another one than ledger.old_key_files",
        ),
        (
            {"receipts": {"key_file": "/receipts.pem"}, "audit": {"file": "/receipts.pem"}},
            "audit.file must be another one than receipts.key_file",
        ),
        ({"ledger__tombstone_days": 0}, "ledger.tombstone_days"),
        ({"entropy__source": "pkcs11"}, "entropy: source: pkcs11 and the section pkcs11 come together"),
        (
            {"entropy__pkcs11": {"module_file": "/m", "token_label": "t"}},
            "entropy: source: pkcs11 and the section pkcs11 come together",
        ),
        (
            {"entropy": {"source": "pkcs11", "pkcs11": {"module_file": "/m", "token_label": "t" * 33}}},
            "entropy.pkcs11.token_label",
        ),
        ({"entropy__source": "dice"}, "entropy.source"),
    ],
)
def test_inconsistent_configuration_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"server__shutdown_grace_seconds": 20.01},
        {"server__default_deadline_seconds": 20.0},
        {"imports__forbid_pkcs1_v1_5": True},
        {"imports__allow_foreign_tokens": True},
        {"server__max_concurrent_calls": 4096},
        {"imports__cached_parameters": 1_000_000},
        {"imports__parameters_expiry_margin_seconds": 0},
    ],
)
def test_configuration_at_its_limit_is_taken(changes: dict[str, Any]) -> None:
    parse_settings(tree(**changes))


# Never open by accident

LOOPBACK = ["127.0.0.1", "127.8.9.10", "localhost", "[::1]"]
ELSEWHERE = [
    "0.0.0.0",
    "[::]",
    "10.0.0.1",
    "192.168.1.1",
    "broker.example",
    "[fd00::1]",
    "0",
    "127.1",
    "localhost.evil.example",
    "[::ffff:10.0.0.1]",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_address_needs_no_tls(host: str) -> None:
    parse_settings(tree(server__grpc_address=f"{host}:50051"))


@pytest.mark.parametrize("host", ELSEWHERE)
def test_address_that_others_reach_is_refused_without_tls(host: str) -> None:
    text = refusal(server__grpc_address=f"{host}:50051")
    assert "can be reached by others and there is no TLS and no identity" in text
    assert "allow_insecure_non_loopback" in text


@pytest.mark.parametrize("host", ELSEWHERE)
def test_address_that_others_reach_is_refused_with_tls_but_without_identity(host: str) -> None:
    tls = {"certificate_file": "/chain.pem", "private_key_file": "/key.pem"}
    assert "there is no identity" in refusal(server__grpc_address=f"{host}:50051", server__tls=tls)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy__file": "/policy.yaml"}, "policy and server.identity come together"),
        (
            {"server__identity": {"mtls": {"client_ca_file": "/ca.pem"}}, "policy__file": "/p"},
            "identity.mtls needs tls",
        ),
        ({"server__identity": {}, "policy__file": "/p"}, "exactly one of mtls, jwt"),
        (
            {"server__identity": {"jwt": {"issuer": "a", "audience": "b"}}, "policy__file": "/p"},
            "exactly one of jwks_file, jwks_url",
        ),
        (
            {
                "server__identity": {"jwt": {"issuer": "a", "audience": "b", "jwks_url": "http://issuer.example/"}},
                "policy__file": "/p",
            },
            "jwks_url",
        ),
        (
            {
                "server__identity": {
                    "jwt": {"issuer": "a", "audience": "b", "jwks_file": "/j", "algorithms": ["HS256"]}
                },
                "policy__file": "/p",
            },
            "algorithms",
        ),
        ({"kms__instances__main__credentials": {}}, "exactly one of"),
    ],
)
def test_identity_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(**changes)


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize(
    "permission",
    [
        {"server__allow_insecure_non_loopback": True},
        {
            "server__tls": {"certificate_file": "/chain.pem", "private_key_file": "/key.pem"},
            "server__identity": {"mtls": {"client_ca_file": "/ca.pem"}},
            "policy__file": "/policy.yaml",
        },
    ],
    ids=["loud setting", "tls and identity"],
)
def test_address_that_others_reach_is_taken_with(host: str, permission: dict[str, Any]) -> None:
    parse_settings(tree(server__grpc_address=f"{host}:50051", **permission))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("localhost:1", ("localhost", 1)), ("[::1]:65535", ("::1", 65535)), ("0.0.0.0:0", ("0.0.0.0", 0))],
)
def test_split_address(value: str, expected: tuple[str, int]) -> None:
    assert split_address(value) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.254", "::1", "localhost"])
def test_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "128.0.0.1", "::", "LOCALHOST", "localhost.", "example", "127.1"])
def test_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


# Files and variables that are no configuration

NOT_YAML = {
    "an open bracket": "server: [",
    "a tab": "server:\n\tx: 1",
    "an unknown tag": "server: !thing x",
    "a Python object": "server: !!python/object/apply:os.system [true]",
    "a date that is none": "server: 2026-13-45",
    "a number that is none": "server: !!int many",
    "too deep nesting": "[" * 3000,
    "a list for a key": "? [a]\n: b",
    "two documents": "a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("text", NOT_YAML.values(), ids=NOT_YAML.keys())
def test_file_that_is_not_yaml_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--config: .*keybroker\.yaml is not YAML"):
        load_settings(written(tmp_path, text), environ={})


@pytest.mark.parametrize("text", NOT_YAML.values(), ids=NOT_YAML.keys())
def test_variable_that_is_not_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^KEYBROKER__SERVER: the value is not YAML$"):
        load_settings(None, environ={"KEYBROKER__SERVER": text})


def test_key_that_stands_twice_is_refused_with_the_line(tmp_path: Path) -> None:
    text = SMALLEST + "logs: {level: INFO}\nlogs: {level: DEBUG}\n"
    with pytest.raises(ConfigurationError, match="has a key twice in line"):
        load_settings(written(tmp_path, text), environ={})


def test_file_that_is_not_yaml_is_refused_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in line 3"):
        load_settings(written(tmp_path, f"logs:\n  level: INFO\n\t{CANARY}: x\n"), environ={})


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keybroker.yaml"
    file.write_bytes(b"\x80\x81")
    with pytest.raises(ConfigurationError, match="is not YAML"):
        load_settings(file, environ={})


@pytest.mark.parametrize("text", ["- a\n- b\n", "text", "5", "true"])
def test_file_that_holds_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must hold a mapping"):
        load_settings(written(tmp_path, text), environ={})


def test_file_that_is_empty_is_refused_for_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^kms: Field required$"):
        load_settings(written(tmp_path, "# nothing\n"), environ={})


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_file_that_can_not_be_read_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path if kind == "directory" else tmp_path / "missing.yaml"
    with pytest.raises(ConfigurationError, match=re.escape(f"--config: can't read {path}: ")):
        load_settings(path, environ={})


def test_variable_below_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KEYBROKER__LOGS__LEVEL__MORE: level is not a section"):
        load_settings(
            written(tmp_path, f"{SMALLEST}logs: {{level: INFO}}\n"), environ={"KEYBROKER__LOGS__LEVEL__MORE": "x"}
        )


@pytest.mark.parametrize("path", ["a\x00b", "\ud800"], ids=["NUL", "surrogate"])
@pytest.mark.parametrize("key", ["ledger.key_file", "ledger.old_key_files", "policy.file"])
def test_path_that_no_file_can_have_is_refused_by_name(key: str, path: str) -> None:
    changes = {"ledger": {"key_file": "k", "old_key_files": ["o"]}, "policy": {"file": "p"}}
    section, name = key.split(".")
    changes[section][name] = [path] if name == "old_key_files" else path
    with pytest.raises(ConfigurationError, match=f"^{re.escape(key)}: is not a path$"):
        parse_settings(tree(**changes))


def test_section_that_is_no_mapping_is_refused_without_our_names() -> None:
    with pytest.raises(ConfigurationError, match=r"^server\.tls: must be a mapping$"):
        parse_settings(tree(server__tls=[1]))


yaml_like = st.one_of(st.text(max_size=30), st.from_regex(r"[-\[\]{}:,!&*?|>'\"%@`0-9a-z.\n ]{0,30}", fullmatch=True))


@given(text=yaml_like)
def test_variable_of_any_text_is_taken_or_a_configuration_error(text: str) -> None:
    try:
        load_settings(None, environ={"KEYBROKER__KMS": text})
    except ConfigurationError:
        return
    raise AssertionError("a configuration out of noise")


# Nothing secret in what is said

SECRET_VALUES = [
    {"kms__instances__main__proxy": {"http": f"http://user:{CANARY}@proxy.example"}},
    {"kms__instances__main__endpoint": [f"https://user:{CANARY}@kms.example"]},
    {"kms__instances__main__dkms_instance_id": f"{CANARY}!"},
    {"kms__instances__main__region": f"{CANARY}!"},
    {"kms__instances__main__credentials": {"access_key_id": CANARY, "access_key_secret": CANARY}},
    {"kms__instances__main__credentials": CANARY},
    {"kms__instances__main__allow_emulator": CANARY},
    {"server__tls": {"private_key": f"-----BEGIN PRIVATE KEY----- {CANARY}"}},
    {"server__max_concurrent_calls": CANARY},
    {"logs__level": CANARY},
    {"kms": CANARY},
    {"secret": CANARY},
]


@pytest.mark.parametrize("changes", SECRET_VALUES, ids=lambda changes: next(iter(changes)))
def test_refusal_quotes_no_value(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_settings(tree(**changes))
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_model_itself_quotes_no_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(tree(kms__instances__main__proxy=[CANARY]))
    assert CANARY not in str(caught.value)


def test_refusal_of_yaml_quotes_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(written(tmp_path, f"secret: {CANARY}: ["), environ={})
    assert CANARY not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, environ={"KEYBROKER__SERVER": f"{CANARY}: ["})
    assert CANARY not in str(caught.value)
