"""The operations of the API, by name."""

from collections.abc import Mapping
from typing import NoReturn

from kms_emulator.kms import Kms
from kms_emulator.operation import Call, Operation
from kms_emulator.operations.aliases import ALIAS_OPERATIONS
from kms_emulator.operations.create_key import CREATE_KEY
from kms_emulator.operations.cryptography import CRYPTOGRAPHY_OPERATIONS
from kms_emulator.operations.importing import IMPORT_OPERATIONS
from kms_emulator.operations.lifecycle import LIFECYCLE_OPERATIONS
from kms_emulator.operations.read_keys import READ_KEY_OPERATIONS
from kms_emulator.operations.tags import TAG_OPERATIONS

OPERATIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        CREATE_KEY,
        *READ_KEY_OPERATIONS,
        *IMPORT_OPERATIONS,
        *LIFECYCLE_OPERATIONS,
        *ALIAS_OPERATIONS,
        *TAG_OPERATIONS,
        *CRYPTOGRAPHY_OPERATIONS,
    )
}


def _unknown(kms: Kms, call: Call) -> NoReturn:
    raise AssertionError((kms, call))


UNKNOWN_OPERATION = Operation(name="", handler=_unknown, quota="", source="", parameters=())
"""What a request that names no known operation is treated as; the gateway refuses it."""
