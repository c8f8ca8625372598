"""The specs of a CMK that takes imported AES material.

Source: contract 1.1 and 1.4 (spec names, material lengths).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeySpec:
    """Type and size of a CMK. `kms_name` is the KMS's word; `length_bytes` the material's exact length."""

    kms_name: str
    length_bytes: int


AES_128 = KeySpec("Aliyun_AES_128", 16)
AES_192 = KeySpec("Aliyun_AES_192", 24)
AES_256 = KeySpec("Aliyun_AES_256", 32)

KEY_SPECS: dict[str, KeySpec] = {spec.kms_name: spec for spec in (AES_128, AES_192, AES_256)}
