"""The wrapping algorithms, as a table, and the wrapping itself.

Source: RFC 8017 §7.1 (RSAES-OAEP) and §7.2 (RSAES-PKCS1-v1_5); contract 1.3 (OAEP with SHA-256, MGF1 with SHA-256 and
an empty label). RSAES_OAEP_SHA_1 is left out on purpose: Dedicated KMS does not support it.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

WRAPPING_KEY_SPEC = "RSA_2048"
WRAPPED_LENGTH_BYTES = 256  # the modulus: 2048 bits


@dataclass(frozen=True, slots=True, eq=False)
class WrappingAlgorithm:
    """How key material is encrypted under the wrapping public key. `kms_name` is the KMS's word.

    Compared by identity: there are no others than those of this module.
    """

    kms_name: str
    padding: AsymmetricPadding


RSAES_OAEP_SHA_256 = WrappingAlgorithm(
    "RSAES_OAEP_SHA_256", OAEP(mgf=MGF1(algorithm=SHA256()), algorithm=SHA256(), label=None)
)
RSAES_PKCS1_V1_5 = WrappingAlgorithm("RSAES_PKCS1_V1_5", PKCS1v15())

WRAPPING_ALGORITHMS: dict[str, WrappingAlgorithm] = {
    algorithm.kms_name: algorithm for algorithm in (RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5)
}
