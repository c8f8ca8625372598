"""What the audit log is made of, from its settings."""

import pytest

from keybroker.adapters.clock import SystemClock
from keybroker.audit_store import make_audit_log
from keybroker.settings import AuditSettings, ConfigurationError


def test_standard_output_that_is_closed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor is the next file's that is opened: lines would go there."""
    monkeypatch.setattr("sys.__stdout__", None)
    with pytest.raises(ConfigurationError, match=r"^audit\.stdout: "):
        make_audit_log(AuditSettings(stdout=True), clock=SystemClock())
