"""How long the request line gets: gateways refuse one of 64 KiB and more."""

import pytest

from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import AES_256
from tests.unit.adapters_kms.support import CMK, client, deadline, key_body, replies, serving

pytestmark = pytest.mark.usefixtures("loopback")

LARGEST = {  # what types.proto allows, of the characters that are longest when percent-encoded
    "4 bytes in UTF-8": NewKey(
        AES_256,
        description="\U0001f511" * 1365,
        tags={f"{number}" + "\U0001f511" * 127: "\U0001f511" * 128 for number in range(9)},
    ),
    "escaped in JSON": NewKey(
        AES_256, description=" " * 5461, tags={f"{number}" + "\x01" * 127: "\x01" * 128 for number in range(9)}
    ),
}


@pytest.mark.parametrize("new_key", LARGEST.values(), ids=LARGEST)
def test_create_key_with_every_field_at_its_limit_stays_below_48_kib(new_key: NewKey) -> None:
    with serving(replies(key_body())) as server, client(server.address) as kms:
        kms.create_key(new_key, deadline=deadline())
        assert 32 * 1024 < server.requests[0].index(b"\r\n") < 48 * 1024


def test_import_with_the_longest_token_stays_below_64_kib() -> None:
    with serving(replies({"RequestId": "x"})) as server, client(server.address) as kms:
        kms.import_key_material(CMK, wrapped_key_material=b"\xff" * 256, import_token="/" * 16384, deadline=deadline())
        assert 48 * 1024 < server.requests[0].index(b"\r\n") < 64 * 1024
