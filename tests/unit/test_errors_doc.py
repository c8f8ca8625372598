import subprocess
import sys
from pathlib import Path

from keybroker.adapters.kms.error_table import ERROR_TABLE
from keybroker.domain.errors import REASONS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path("scripts/generate_errors_doc.py")


def run(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def copied(to: Path) -> Path:
    """A tree with the script and its page only, so that the real page is left alone."""
    (to / "scripts").mkdir()
    (to / "docs").mkdir()
    (to / SCRIPT).write_text((ROOT / SCRIPT).read_text())
    return to / "docs" / "errors.md"


def test_page_committed_is_what_the_tables_say() -> None:
    assert run("--check").returncode == 0


def test_page_has_a_row_for_every_reason_and_every_code() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted([*REASONS, *ERROR_TABLE])


def test_check_without_page_fails_and_writes_nothing(tmp_path: Path) -> None:
    page = copied(tmp_path)
    result = run("--check", root=tmp_path)
    assert result.returncode == 1
    assert "make docs" in result.stderr
    assert not page.exists()


def test_check_after_edit_fails_until_generated_again(tmp_path: Path) -> None:
    page = copied(tmp_path)
    assert run(root=tmp_path).returncode == 0
    page.write_text(page.read_text().replace("KEY_NOT_FOUND", "KEY_LOST", 1))
    assert run("--check", root=tmp_path).returncode == 1
    assert run(root=tmp_path).returncode == 0
    assert run("--check", root=tmp_path).returncode == 0
