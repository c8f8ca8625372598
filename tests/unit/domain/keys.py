"""RSA keys and import parameters to test with."""

from datetime import UTC, datetime
from functools import cache

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keybroker.domain.external_key import CmkName
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, WrappingAlgorithm


@cache
def rsa_key(number: int = 0, *, bits: int = 2048, exponent: int = 65537) -> RSAPrivateKey:
    """The same key for the same arguments, within one run."""
    return generate_private_key(public_exponent=exponent, key_size=bits)


def spki_der(key: RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def import_parameters(
    *,
    algorithm: WrappingAlgorithm = RSAES_OAEP_SHA_256,
    wrapping_public_key_der: bytes | None = None,
    import_token: str = "an-import-token",
) -> ImportParameters:
    return ImportParameters(
        cmk=CmkName("1540355698840000", "cn-hangzhou", "key-hzz62f1cb66fa42qo0000"),
        algorithm=algorithm,
        wrapping_public_key_der=wrapping_public_key_der or spki_der(rsa_key().public_key()),
        import_token=import_token,
        expires_at=datetime(2026, 1, 3, 3, 4, 5, tzinfo=UTC),
    )
