import secrets

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keybroker.probe.material import ThrowawayMaterial

KEY, IV, NONCE = secrets.token_bytes(32), secrets.token_bytes(12), secrets.token_bytes(32)
VERSION_ID = b"2ab1a983-7072-4bbc-a582-584b5bd8aaaa"


def test_opens_a_blob_of_the_documented_layout() -> None:
    assert ThrowawayMaterial(KEY).opens(VERSION_ID + IV + AESGCM(KEY).encrypt(IV, NONCE, None), plaintext=NONCE)


def test_opens_nothing_else() -> None:
    sealed = AESGCM(KEY).encrypt(IV, NONCE, None)
    other = AESGCM(secrets.token_bytes(32)).encrypt(IV, NONCE, None)
    for blob in (b"", IV + sealed, VERSION_ID + sealed, VERSION_ID + IV + other, VERSION_ID + IV + sealed[:-1]):
        assert not ThrowawayMaterial(KEY).opens(blob, plaintext=NONCE)
    assert not ThrowawayMaterial(KEY).opens(VERSION_ID + IV + sealed, plaintext=b"something else")


def test_repr_shows_nothing() -> None:
    assert repr(ThrowawayMaterial(KEY)) == "ThrowawayMaterial()"
