"""No print of a configuration shows what its URLs may hold.

That is a proxy's password, the path of a credentials URI, the query of a JWKS URL.
"""

import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pprint import pformat
from typing import Any

import pytest

from keybroker.adapters.kms.credentials_http import Connection
from keybroker.kms_credentials import credentials_source
from keybroker.settings import ConfigurationError, InstanceSettings, Settings, load_settings, parse_settings

CANARY = "canary-8ce17b"
PROXY = f"http://user:{CANARY}@proxy.example:3128"
JWKS_URL = f"https://issuer.example/keys?code={CANARY}"
URI = f"https://credentials.example/{CANARY}?token={CANARY}"


def tree(**instance: Any) -> dict[str, Any]:
    smallest = {"region": "cn-hangzhou", "endpoint": "https://kms.example", "dkms_instance_id": "kst-example"}
    return {"kms": {"default_instance": "main", "instances": {"main": smallest | instance}}}


def secretive() -> Settings:
    identity = {"jwt": {"issuer": "https://issuer.example", "audience": "keybroker", "jwks_url": JWKS_URL}}
    callers = {"server": {"identity": identity}, "policy": {"file": "policy.yaml"}}
    return parse_settings(tree(proxy=PROXY, credentials={"uri": {"uri": URI}}) | callers)


def instance(settings: Settings) -> InstanceSettings:
    return settings.kms.instances["main"]


def raised_with_it(settings: Settings) -> str:
    with pytest.raises(RuntimeError) as caught:
        refuse(settings)
    return "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())


def refuse(settings: Settings) -> None:
    raise RuntimeError(settings)


PRINTS: dict[str, Callable[[Settings], object]] = {
    "repr": repr,
    "str": str,
    "format": lambda settings: f"{settings}",
    "pformat": pformat,
    "instance": lambda settings: repr(instance(settings)),
    "credentials": lambda settings: repr(instance(settings).credentials),
    "model_dump": lambda settings: repr(settings.model_dump()),
    "model_dump as JSON": lambda settings: json.dumps(settings.model_dump(mode="json")),
    "model_dump_json": lambda settings: settings.model_dump_json(),
    "identity": lambda settings: repr(settings.server.identity),
    "traceback with locals": raised_with_it,
}


@pytest.mark.parametrize("shown", PRINTS.values(), ids=PRINTS)
def test_print_of_a_configuration_shows_no_secret_of_a_url(shown: Callable[[Settings], object]) -> None:
    settings = secretive()
    assert instance(settings).proxy_url == PROXY
    text = str(shown(settings))
    assert any(key in text for key in ("proxy", "uri", "jwks_url"))
    assert CANARY not in text


def test_proxy_from_the_environment_is_as_hidden() -> None:
    values = {f"KEYBROKER__KMS__INSTANCES__MAIN__{key.upper()}": value for key, value in instance_values().items()}
    settings = load_settings(None, environ=values | {"KEYBROKER__KMS__DEFAULT_INSTANCE": "main"})
    assert instance(settings).proxy_url == PROXY
    assert CANARY not in repr(settings)


def instance_values() -> dict[str, str]:
    values: dict[str, str] = tree(proxy=PROXY)["kms"]["instances"]["main"]
    return values


def test_connection_to_a_credentials_endpoint_shows_no_proxy() -> None:
    connection = Connection(timeout_seconds=1.0, proxy=PROXY)
    assert is_dataclass(connection)
    assert asdict(connection)["proxy"] == PROXY
    assert CANARY not in repr(connection)


BAD_INSTANCES: dict[str, dict[str, Any]] = {
    "a proxy in parts": {"proxy": {"password": CANARY}},
    "several proxies": {"proxy": [PROXY]},
    "a URI in parts": {"credentials": {"uri": {"uri": [URI]}}},
    "a URI in place of its section": {"credentials": {"uri": URI}},
}


@pytest.mark.parametrize("bad", BAD_INSTANCES.values(), ids=BAD_INSTANCES)
def test_refusal_of_a_configuration_quotes_no_secret(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_settings(tree(**bad))
    assert "kms.instances.main" in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "credentials",
    [
        {"uri": {"uri": f"https://user:{CANARY}@credentials.example"}},
        {"uri": {"uri": f"https://user:{CANARY}@credentials.ex\u2100mple"}},
        {"uri": {"uri": f"http://credentials.example/{CANARY}"}},
        {"uri": {"uri": f"https://[{CANARY}"}},
        {"ecs_ram_role": {"metadata_endpoint": f"https://user:{CANARY}@ex\u2100mple"}},
    ],
    ids=["user", "characters", "clear", "brackets", "metadata"],
)
def test_refusal_of_a_credentials_url_does_not_quote_it(credentials: dict[str, Any]) -> None:
    settings = instance(parse_settings(tree(credentials=credentials)))
    with pytest.raises(ConfigurationError, match="it must be") as caught:
        credentials_source("main", settings)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(caught.value.__context__)
