"""The same where a PKCS#11 token is the source of randomness: its module runs inside the broker. SoftHSM2."""

import subprocess
from pathlib import Path

import pytest

from tests.residue.site import Site

MODULES = [Path(f"/usr/{folder}/libsofthsm2.so") for folder in ("lib/softhsm", "lib64/pkcs11", "lib/pkcs11")]
PIN = "271828"
KEYS = 6


@pytest.fixture
def entropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The section of the configuration, for a token of its own."""
    module = next(path for path in MODULES if path.exists())
    (tmp_path / "tokens").mkdir()
    configuration = tmp_path / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    command = ["softhsm2-util", "--module", str(module), "--init-token", "--free", "--label", "residue"]
    subprocess.run([*command, "--pin", PIN, "--so-pin", PIN], check=True, capture_output=True)
    (tmp_path / "pin").write_text(PIN)
    token = {"module_file": str(module), "token_label": "residue", "pin_file": str(tmp_path / "pin")}
    return {"source": "pkcs11", "pkcs11": token}


@pytest.mark.parametrize("spec", ["Aliyun_AES_128", "Aliyun_AES_192", "Aliyun_AES_256"])
def test_nothing_is_left_of_keys_from_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entropy: dict[str, object], spec: str
) -> None:
    with Site(tmp_path, monkeypatch=monkeypatch, dump_protection=False, entropy=entropy) as site:
        for answer in site.imports(site.new_keys(KEYS, specs=[spec])):
            answer.result()
        site.wait_until_idle()
        assert len(site.unwrapped) == KEYS
        assert site.residues() == {}
