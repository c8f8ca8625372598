"""docs/receipts.md: its table names every claim, its example is what kbctl shows of it, its commands and code run."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kbctl.__main__ import main as kbctl
from keybroker.adapters.receipts import ReceiptKey
from keybroker.domain.receipt import payload
from keybroker.receipt_keys import read_receipt_key
from tests.interop.documents import ROOT, run_block, shell_blocks
from tests.unit.domain.test_receipt import FULL, ROW
from tests.unit.receipts.support import ISSUED

DOCUMENT = (ROOT / "docs/receipts.md").read_text()
(EXAMPLE,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
(PYTHON,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
SHOWN = DOCUMENT.partition("--jwks jwks.json\n")[2].partition("```")[0]
NOT_IN_EVERY = {"caller_sha256", "kms.created.request_id", "sends.more_unknown"}


def paths(claims: dict[str, Any], above: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in claims.items():
        found |= paths(value, f"{above}{name}.") if isinstance(value, dict) else {above + name}
    return found


def documented() -> set[str]:
    """The claims of the table's first column; ".name" stands for a sibling of the one before it."""
    found: list[str] = []
    for cell in re.findall(r"^\| (`[^|]+) \| [^|]+ \|[^|]*\|$", DOCUMENT, re.MULTILINE):
        for name in cell.split("`")[1::2]:
            found.append(found[-1].rpartition(".")[0] + name if name.startswith(".") else name)
    return set(found)


def test_table_names_every_claim() -> None:
    assert documented() == paths(FULL) | NOT_IN_EVERY


def test_example_has_the_claims_of_a_receipt() -> None:
    assert paths(json.loads(EXAMPLE)) == paths(FULL) - {"caller", "audit_line"} | {"kms.created.request_id"}


@pytest.fixture
def handed_out(tmp_path: Path) -> ReceiptKey:
    """The key and jwks.json that the document's commands make."""
    (block,) = shell_blocks("docs/receipts.md")
    ended = run_block(block, address="127.0.0.1:1", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    return read_receipt_key(tmp_path / "receipts.pem", "--key")


def test_example_is_what_kbctl_shows_of_it(handed_out: ReceiptKey, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "receipt.jws").write_text(handed_out.sign(json.dumps(json.loads(EXAMPLE)).encode()))
    assert kbctl(["receipt", "verify", str(tmp_path / "receipt.jws"), "--jwks", str(tmp_path / "jwks.json")]) == 0
    shown = capsys.readouterr().out
    assert shown == re.sub(r"(?<=signed with    ).*", handed_out.kid, SHOWN)


@pytest.mark.parametrize("good", [True, False])
def test_code_verifies_with_another_library(handed_out: ReceiptKey, tmp_path: Path, *, good: bool) -> None:
    receipt = handed_out.sign(payload(ROW, version="1", issued_at=ISSUED))
    if not good:
        header, claims, signature = receipt.split(".")
        receipt = f"{header}.{claims[:-4]}AAAA.{signature}"
    (tmp_path / "receipt.jws").write_text(receipt + "\n")
    ended = subprocess.run(
        [sys.executable, "-c", PYTHON], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode == 0, str(FULL["evidence"]) in ended.stdout) == (good, good), ended.stderr
    assert good or "BadSignatureError" in ended.stderr
