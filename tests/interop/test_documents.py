"""The documentation against what it documents."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel

from keybroker.domain.key_check_value import key_check_value
from keybroker.settings import Settings, parse_settings
from keybroker.telemetry.metrics import Metrics
from kms_emulator import Emulator
from tests.integration.conftest import RunningBroker
from tests.interop.documents import ROOT, run_block, shell_blocks


def test_readme_openssl_path_binds_the_material_that_openssl_made(
    emulator: Emulator, broker: RunningBroker, tmp_path: Path
) -> None:
    (block,) = shell_blocks("README.md")
    ended = run_block(f"{block}\necho KEY_ID=$KEY_ID", address=broker.address, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    key_id = ended.stdout.rpartition("KEY_ID=")[2].strip()
    assert emulator.key_state(key_id) == "Enabled"
    assert emulator.bound_material(key_id) == (tmp_path / "KeyMaterial.bin").read_bytes()


def test_readme_oaep_options_work_too(emulator: Emulator, broker: RunningBroker, tmp_path: Path) -> None:
    (block,) = shell_blocks("README.md")
    options = " ".join(re.findall(r"-pkeyopt\s+rsa_\w+:\w+", (ROOT / "README.md").read_text()))
    assert options.count("-pkeyopt") == 3
    block = block.replace("pkcs1-v1.5", "oaep-sha256").replace("-keyform DER", f"-keyform DER {options}")
    ended = run_block(f"{block}\necho KEY_ID=$KEY_ID", address=broker.address, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    key_id = ended.stdout.rpartition("KEY_ID=")[2].strip()
    assert emulator.bound_material(key_id) == (tmp_path / "KeyMaterial.bin").read_bytes()


def test_readme_python_example_runs(emulator: Emulator, broker: RunningBroker) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    ended = subprocess.run(
        [sys.executable, "-c", example.replace("127.0.0.1:50051", broker.address)],
        capture_output=True,
        text=True,
        check=True,
    )
    key_id, check_value = ended.stdout.split()
    assert str(key_check_value(emulator.bound_material(key_id) or b"")) == f"cmac-aes:{check_value}"


def test_readme_configuration_is_valid() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert parse_settings(yaml.safe_load(text)).kms.default_instance == "main"


def test_demo_enables_a_cmk_of_each_size_and_says_so() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "keybroker", "demo"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("PendingImport → Enabled") == 4
    assert ended.stdout.count("(the same in the KMS)") == 4
    for size in ("AES-128", "AES-192", "AES-256"):
        assert f"a new {size} CMK" in ended.stdout
    last_check_value = re.findall(r"cmac-aes:([0-9a-f]{6}) ", ended.stdout)[2]  # of the last that the broker generated
    assert re.search(rf"^ +check value +cmac-aes:{last_check_value}: 24 bits", ended.stdout, re.MULTILINE)
    assert re.search(r"^ +result +the signature is good$", ended.stdout, re.MULTILINE)
    assert re.search(r"^ +sound$", ended.stdout, re.MULTILINE)


def test_operations_names_every_configuration_key_and_default() -> None:
    document = (ROOT / "docs/operations.md").read_text()
    for key in _keys(Settings, ""):
        leaf = key.rpartition(".")[2]
        assert f"`{key}`" in document or f"`.{leaf}`" in document, key


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = list(_models(field.annotation))
        step = f"{prefix}{name}."
        if not inner:
            yield f"{prefix}{name}"
        for kind in inner:
            yield from _keys(kind, f"{step}NAME." if name == "instances" else step)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def test_operations_names_every_metric_of_the_broker() -> None:
    document = (ROOT / "docs/operations.md").read_text()
    own = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in Metrics().registry.collect()
        if metric.name.startswith(("keybroker_", "grpc_"))
    }
    assert own == set(re.findall(r"`((?:keybroker|grpc_server)_[a-z_]+)`", document))


def test_links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
