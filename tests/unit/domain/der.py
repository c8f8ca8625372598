"""DER by hand, for public keys that no library would write."""


def _tagged(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def bit_string(content: bytes) -> bytes:
    return _tagged(0x03, b"\x00" + content)


NULL = b"\x05\x00"
RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d010101")
RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")


def rsa_public_key(modulus: int, exponent: int) -> bytes:
    """RSAPublicKey. Source: RFC 8017 A.1.1."""
    return sequence(integer(modulus), integer(exponent))


def rsa_spki(modulus: int, exponent: int, *, algorithm: bytes = RSA_ENCRYPTION + NULL) -> bytes:
    """SubjectPublicKeyInfo. Source: RFC 5280 §4.1, RFC 3279 §2.3.1."""
    return sequence(sequence(algorithm), bit_string(rsa_public_key(modulus, exponent)))
