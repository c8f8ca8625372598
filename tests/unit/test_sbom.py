"""make sbom: what the lock file of the installation has, in CycloneDX."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_sbom_has_each_package_of_the_lock_file_with_its_hashes(tmp_path: Path) -> None:
    recipe = re.search(r"^\t\$\(BIN\)/cyclonedx-py (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    written = tmp_path / "sbom.json"
    arguments = [str(written) if part.startswith("build/") else part for part in recipe[1].split()]
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *arguments], cwd=ROOT, check=True, capture_output=True)
    bom = json.loads(written.read_text())
    assert (bom["bomFormat"], bom["metadata"]["component"]["name"]) == ("CycloneDX", "keybroker")
    locked = dict(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert len(locked) > 20
    components = {component["name"]: component for component in bom["components"]}
    assert {name: component["version"] for name, component in components.items()} == locked
    for name, component in components.items():
        assert component["purl"] == f"pkg:pypi/{name}@{locked[name]}"
        assert any(reference.get("hashes") for reference in component["externalReferences"])
