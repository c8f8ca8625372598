"""What is required is told by /readyz, on loopback."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from keybroker.adapters.kms.credentials import Credentials
from keybroker.app import App
from keybroker.background import BackgroundApp
from keybroker.domain.secret_memory import MEMORY
from keybroker.settings import parse_settings

INSTANCE = {"region": "cn-hangzhou", "endpoint": "http://127.0.0.1:9", "dkms_instance_id": "kst-example"}


def readiness(**hardening: bool) -> tuple[int, dict[str, Any]]:
    tree = {
        "server": {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"},
        "kms": {"default_instance": "main", "instances": {"main": INSTANCE}},
        "hardening": hardening,
    }
    app = App(parse_settings(tree), credentials=lambda: Credentials("an-id", "a-secret", ""))
    with BackgroundApp(app) as running:
        try:
            with urllib.request.urlopen(f"{running.http_url}/readyz", timeout=10) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize(
    ("locked", "hardening", "status"),
    [
        (True, {"require_memory_lock": True}, 200),
        (False, {"require_memory_lock": True}, 503),
        (False, {}, 200),
    ],
)
def test_readiness_tells_of_locked_memory_and_requires_it_when_it_is_to(
    monkeypatch: pytest.MonkeyPatch,
    locked: bool,  # noqa: FBT001
    hardening: dict[str, bool],
    status: int,
) -> None:
    monkeypatch.setattr(MEMORY, "all_locked", locked)
    answer, details = readiness(**hardening)
    assert answer == status
    assert details["ready"] is (status == 200)
    assert details["hardening"]["memory_locked"] is locked
