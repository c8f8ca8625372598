"""Prometheus's own tool reads /metrics."""

import subprocess
import urllib.request

import pytest

from keybroker_client import KeyBrokerError
from keymaterial.v1 import types_pb2
from tests.integration.conftest import RunningBroker


def test_promtool_accepts_the_metrics(broker: RunningBroker) -> None:
    broker.client.import_external_key(new_key=types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256))
    with pytest.raises(KeyBrokerError):
        broker.client.import_external_key(key_id="key-nowhere")
    broker.client.check_health()
    with urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=5) as reply:
        metrics = reply.read()
    assert b"keybroker_import_duration_seconds_bucket" in metrics
    checked = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
