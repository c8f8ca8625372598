"""What a wrapping public key must be before anything is wrapped with it.

A swapped or weak key would hand the material to whoever sent it, and a CMK is bound to its first material for ever. So:
SubjectPublicKeyInfo in DER without trailing bytes, RSA, exactly 2048 bits, exponent 65537, no tiny factors. That the
key is the KMS's own rests on TLS; a key of the right form from the wrong hands is not to be seen from here.

Source: contract 1.3 (form, size, exponent); NIST SP 800-56B §6.4.2 (public-key validation).
"""

import math

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from keybroker.domain.errors import BrokerError, Reason

KEY_SIZE_BITS = 2048
PUBLIC_EXPONENT = 65537
_SMALLEST_FACTOR = 752  # SP 800-56B §6.4.2.2: no factor smaller than this


def load_wrapping_public_key(der: bytes) -> RSAPublicKey:
    """Returns the key in `der`, a SubjectPublicKeyInfo, if it may be wrapped with.

    Reasons: WRAPPING_PUBLIC_KEY_REJECTED.
    """
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _rejected("it is not a public key in DER") from error
    if not isinstance(key, RSAPublicKey):
        raise _rejected("it is not an RSA key")
    numbers = key.public_numbers()
    if key.key_size != KEY_SIZE_BITS:
        raise _rejected(f"it has {key.key_size} bits instead of {KEY_SIZE_BITS}")
    if numbers.e != PUBLIC_EXPONENT:
        raise _rejected(f"its exponent is not {PUBLIC_EXPONENT}")
    if math.gcd(numbers.n, _PRODUCT_OF_SMALL_PRIMES) != 1:
        raise _rejected("its modulus has a tiny factor")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != der:
        raise _rejected("it is not a canonical SubjectPublicKeyInfo")
    return key


def _rejected(why: str) -> BrokerError:
    return BrokerError(
        Reason.WRAPPING_PUBLIC_KEY_REJECTED,
        f"The wrapping public key from the KMS is refused: {why}. Nothing was wrapped with it.",
    )


def _small_primes(limit: int) -> list[int]:
    return [n for n in range(2, limit) if all(n % d for d in range(2, math.isqrt(n) + 1))]


_PRODUCT_OF_SMALL_PRIMES = math.prod(_small_primes(_SMALLEST_FACTOR))
