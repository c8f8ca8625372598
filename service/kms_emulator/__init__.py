"""An emulator of Alibaba Cloud KMS with a Dedicated KMS instance, for the import of external key material.

It answers the vendor's SDK and any other client of the RPC-style API with signature v3. It guards nothing: bind it to
loopback only. What it does and does not imitate is docs/emulator-fidelity.md; it imports nothing of keybroker.
"""

from kms_emulator.emulator import Emulator
from kms_emulator.errors import KmsError
from kms_emulator.faults import Fault
from kms_emulator.keys import KeyState
from kms_emulator.readings import Readings
from kms_emulator.settings import AccessKey, EmulatorSettings
from kms_emulator.version import VERSION

__all__ = [
    "VERSION",
    "AccessKey",
    "Emulator",
    "EmulatorSettings",
    "Fault",
    "KeyState",
    "KmsError",
    "Readings",
]
