"""The seed's step 3 by the openssl command: make material, wrap it."""

import base64
import subprocess
from pathlib import Path

OAEP_OPTIONS = ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")
PADDING_OPTIONS = {
    "RSAES_OAEP_SHA_256": OAEP_OPTIONS,
    "RSAES_PKCS1_V1_5": ("rsa_padding_mode:pkcs1",),
}


def random_material(folder: Path, length_bytes: int) -> Path:
    """`openssl rand -out KeyMaterial.bin N`."""
    path = folder / "KeyMaterial.bin"
    _openssl("rand", "-out", path, str(length_bytes))
    return path


def wrapped_b64(folder: Path, public_key_b64: str, material_path: Path, wrapping_algorithm: str) -> str:
    """`openssl pkeyutl -encrypt` under the wrapping public key, base64 on one line."""
    public_key_path, wrapped_path = folder / "PublicKey.bin", folder / "EncryptedKeyMaterial.bin"
    public_key_path.write_bytes(base64.b64decode(public_key_b64, validate=True))
    options = [part for option in PADDING_OPTIONS[wrapping_algorithm] for part in ("-pkeyopt", option)]
    key = ("-pubin", "-keyform", "DER", "-inkey", public_key_path)
    _openssl("pkeyutl", "-encrypt", "-in", material_path, *key, *options, "-out", wrapped_path)
    return _openssl("enc", "-e", "-base64", "-A", "-in", wrapped_path).decode()


def _openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout
