"""Interop tests use the same emulator and broker as the integration tests."""

from tests.integration.conftest import (  # noqa: F401  # fixtures
    broker,
    emulator,
    make_broker,
    make_emulator,
)
