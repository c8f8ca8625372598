"""Reads the vectors of PyPI's cryptography-vectors, whose version the lock file pins.

asymmetric/RSA/oaep-custom: RSAES-OAEP with SHA-2, derived from RSA Laboratories' PKCS #1 v2.1 vectors and checked
against Bouncy Castle (says the file). asymmetric/RSA/pkcs1v15crypt-vectors.txt: RSA Laboratories. CMAC: NIST SP
800-38B, appendix D.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cryptography_vectors
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, RSAPublicNumbers

_ROOT = Path(cryptography_vectors.__file__).parent
_KEY_FIELDS = ("Prime 1", "Prime 2", "Exponent", "Prime exponent 1", "Prime exponent 2", "Coefficient")
_HEX = re.compile(r"(?:[0-9a-f]{1,2} ?)+|[0-9a-f]+")


@dataclass(frozen=True)
class Encryption:
    key: RSAPrivateKey
    message: bytes
    ciphertext: bytes


@dataclass(frozen=True)
class Mac:
    key: bytes
    message: bytes
    output: bytes


@cache
def oaep(mgf: str, digest: str) -> tuple[Encryption, ...]:
    """Of the files with two hashes in their names, the first is MGF1's."""
    return tuple(_encryptions(_ROOT / "asymmetric" / "RSA" / "oaep-custom" / f"oaep-{mgf}-{digest}.txt"))


@cache
def pkcs1_v1_5() -> tuple[Encryption, ...]:
    return tuple(_encryptions(_ROOT / "asymmetric" / "RSA" / "pkcs1v15crypt-vectors.txt"))


@cache
def cmac(bits: int) -> tuple[Mac, ...]:
    text = (_ROOT / "CMAC" / f"nist-800-38b-aes{bits}.txt").read_text(encoding="ascii")
    found = re.findall(r"KEY = (\w+)\nMESSAGE =(.*)\nOUTPUT = (\w+)", text)
    return tuple(Mac(*(bytes.fromhex(part) for part in vector)) for vector in found)


def _encryptions(path: Path) -> Iterator[Encryption]:
    """A heading is a comment that ends in a colon, its value the lines of hex below it.

    "Exponent" stands twice for each key: the public one first, under "Public key".
    """
    values: dict[str, str] = {}
    for heading, value in _headed_values(path):
        if heading == "Modulus" and "Coefficient" in values:
            values = {}  # the next key
        values[heading] = value
        if heading == "Encryption":
            message, ciphertext = (bytes.fromhex(values[name]) for name in ("Message", "Encryption"))
            yield Encryption(_private_key(values), message, ciphertext)


def _headed_values(path: Path) -> Iterator[tuple[str, str]]:
    heading, value = "", ""
    for line in [*path.read_text(encoding="ascii").splitlines(), "# end:"]:
        comment = re.fullmatch(r"# ([A-Za-z0-9 ]+): *", line)
        if comment:
            if value:
                yield heading, value
            heading, value = comment[1], ""
        elif _HEX.fullmatch(line) and heading:
            value += line.replace(" ", "")


@cache
def _key_of(numbers: tuple[int, ...]) -> RSAPrivateKey:
    p, q, d, dmp1, dmq1, iqmp, e, n = numbers
    return RSAPrivateNumbers(p, q, d, dmp1, dmq1, iqmp, RSAPublicNumbers(e, n)).private_key()


def _private_key(values: dict[str, str]) -> RSAPrivateKey:
    names = (*_KEY_FIELDS, "Public exponent", "Modulus")
    return _key_of(tuple(int(values[name], 16) for name in names))
