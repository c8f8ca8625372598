"""What no test leaves behind for the next one."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A test that configures the broker's logs does it for itself."""
    last_resort = logging.lastResort
    before = structlog.get_config() if structlog.is_configured() else None
    yield
    logging.lastResort = last_resort
    if before is not None:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()
