"""RSA decryption and AES-CMAC as the standards write them, sharing no code with the broker.

Slow and not constant in time: for tests only. Source: RFC 8017 §5.1.2 (RSADP), §7.1.2 (EME-OAEP), §7.2.2
(EME-PKCS1-v1_5), B.2.1 (MGF1); NIST SP 800-38B §6.1 and §6.2 (CMAC).
"""

import hashlib

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB


class DecryptionError(ValueError):
    pass


def _rsadp(key: RSAPrivateKey, ciphertext: bytes) -> bytes:
    private = key.private_numbers()
    modulus = private.public_numbers.n
    length_bytes = (modulus.bit_length() + 7) // 8
    representative = int.from_bytes(ciphertext, "big")
    if len(ciphertext) != length_bytes or representative >= modulus:
        raise DecryptionError("not a ciphertext of this modulus")
    return pow(representative, private.d, modulus).to_bytes(length_bytes, "big")


def _mgf1_sha256(seed: bytes, length_bytes: int) -> bytes:
    blocks = (hashlib.sha256(seed + counter.to_bytes(4, "big")).digest() for counter in range(length_bytes // 32 + 1))
    return b"".join(blocks)[:length_bytes]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def decrypt_oaep_sha256(key: RSAPrivateKey, ciphertext: bytes) -> bytes:
    encoded = _rsadp(key, ciphertext)
    masked_seed, masked_block = encoded[1:33], encoded[33:]
    seed = _xor(masked_seed, _mgf1_sha256(masked_block, 32))
    block = _xor(masked_block, _mgf1_sha256(seed, len(masked_block)))
    padding, one, message = block[32:].partition(b"\x01")
    if encoded[0] != 0 or block[:32] != hashlib.sha256(b"").digest() or any(padding) or not one:
        raise DecryptionError("not EME-OAEP with SHA-256, MGF1-SHA-256 and an empty label")
    return message


def decrypt_pkcs1_v1_5(key: RSAPrivateKey, ciphertext: bytes) -> bytes:
    encoded = _rsadp(key, ciphertext)
    padding, zero, message = encoded[2:].partition(b"\x00")
    if encoded[:2] != b"\x00\x02" or not zero or len(padding) < 8:
        raise DecryptionError("not EME-PKCS1-v1_5")
    return message


def _encrypt_block(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(AES(key), ECB()).encryptor()  # the block cipher itself is what CMAC is made of
    return encryptor.update(block) + encryptor.finalize()


def _doubled(block: bytes) -> bytes:
    number = int.from_bytes(block, "big") << 1
    if number >> 128:
        number = (number ^ 0x87) & ((1 << 128) - 1)
    return number.to_bytes(16, "big")


def aes_cmac(key: bytes, message: bytes) -> bytes:
    first_subkey = _doubled(_encrypt_block(key, bytes(16)))
    blocks = [message[start : start + 16] for start in range(0, len(message), 16)] or [b""]
    last = blocks.pop()
    if len(last) == 16:
        last = _xor(last, first_subkey)
    else:
        last = _xor((last + b"\x80").ljust(16, b"\x00"), _doubled(first_subkey))
    chained = bytes(16)
    for block in [*blocks, last]:
        chained = _encrypt_block(key, _xor(chained, block))
    return chained
