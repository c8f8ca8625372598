"""No sockets in unit tests. grpc's are not Python's and are not seen here; a test that serves grpc takes port 0."""

import pytest
import pytest_socket
from hypothesis import settings

# a slow moment of the machine is no failure of the code
settings.register_profile("unit", deadline=None, max_examples=100)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _no_sockets(request: pytest.FixtureRequest) -> None:
    """pytest-socket lifts it at the end of each test. Its marker enable_socket opens everything for a test."""
    if "loopback" not in request.fixturenames and not request.node.get_closest_marker("enable_socket"):
        pytest_socket.disable_socket(allow_unix_socket=True)  # asyncio wakes itself through a socket pair


@pytest.fixture
def loopback() -> None:
    """For a test that must serve or call a port of this machine: connections to elsewhere stay closed."""
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)
