"""Wrapping public key, import token, algorithm and expiry: one value, never mixed across calls.

Source: contract 1.3; design, invariant 4.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from keybroker.domain.external_key import CmkName
from keybroker.domain.wrapping import WrappingAlgorithm


@dataclass(frozen=True, slots=True)
class ImportParameters:
    """What one GetParametersForImport answer gave for one CMK and one algorithm.

    `wrapping_public_key_der` is a SubjectPublicKeyInfo, vetted. `import_token` is the KMS's opaque text.
    `expires_at` is by the KMS's clock, UTC.
    """

    cmk: CmkName
    algorithm: WrappingAlgorithm
    wrapping_public_key_der: bytes
    import_token: str = field(repr=False)
    expires_at: datetime

    @property
    def wrapping_public_key_digest(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo."""
        return hashlib.sha256(self.wrapping_public_key_der).digest()
