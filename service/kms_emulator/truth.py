"""What is true of the CMKs, whatever readings let the API show and faults let arrive: for tests that judge a client.

Nothing here is counted, throttled or struck by faults, and nothing changes.
"""

from kms_emulator.import_pairs import IssuedPair
from kms_emulator.keys import Key, KeyState
from kms_emulator.kms import Kms


class Truth:
    """Looks into one Kms; KmsError when a CMK does not exist."""

    def __init__(self, kms: Kms) -> None:
        self._kms = kms

    @property
    def key_ids(self) -> list[str]:
        """Every CMK that exists, seeded ones too, in the order of creation."""
        with self._kms.keyring.lock:
            return [key.key_id for key in self._kms.keyring.all(self._kms.clock.now())]

    @property
    def created_key_ids(self) -> list[str]:
        """Every CMK that a CreateKey made, in this order; those that are gone by now too."""
        return list(self._kms.created_key_ids)

    @property
    def aliases(self) -> dict[str, str]:
        """Alias name to key id."""
        with self._kms.keyring.lock:
            return dict(self._kms.keyring.aliases)

    def key_state(self, key_id: str) -> KeyState:
        """The true state of a CMK, whatever the readings let DescribeKey show."""
        return self._key(key_id).state

    def tags(self, key_id: str) -> dict[str, str]:
        """Its tags, those too that a filter of ListKeys does not find yet."""
        with self._kms.keyring.lock:
            return {name: tag.value for name, tag in self._key(key_id).tags.items()}

    def bound_material(self, key_id: str) -> bytes | None:
        """The material that the CMK is bound to, in the clear; None before that."""
        return self._key(key_id).bound_material

    def accepted_imports(self, key_id: str) -> list[bytes]:
        """Every different material that was ever bound, whoever imported it: a list of more than one is a defect.

        In the clear, in the order of acceptance.
        """
        return list(self._key(key_id).accepted_materials)

    def successful_imports(self, key_id: str) -> int:
        """How many ImportKeyMaterial calls were accepted, answered or not; foreign and seeded imports do not count."""
        return self._key(key_id).successful_imports

    def issued_pairs(self, key_id: str) -> list[IssuedPair]:
        """The pairs issued for the CMK, whether or not the reply arrived, expired ones too."""
        return self._kms.import_pairs.issued(self._key(key_id).key_id)

    def _key(self, key_id: str) -> Key:
        with self._kms.keyring.lock:
            return self._kms.keyring.find(key_id, self._kms.clock.now())
