"""Only the configuration module reads files and environment (design, "Layers"): a scan of the source.

It sees names, not behaviour: what a library opens on its own (a CA bundle named in the settings, tzdata) is not here.
"""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "service" / "keybroker"
ALLOWED = {
    "settings/loading.py": "the configuration",
    "secret_files.py": "mounted credentials and the vendor's variables",
    "adapters/audit/file.py": "the audit log's file",
    "audit_command.py": "the audit log's files that the command line names",
    "audit_store.py": "opens the audit log: reads no file itself",
    "adapters/entropy/pkcs11_token.py": "opens a session with an HSM: no file",
    "adapters/entropy/system.py": "/dev/urandom, into the caller's buffer",
    "adapters/ledger/database.py": "the ledger's file",
    "adapters/ledger/files.py": "makes the ledger's files",
    "adapters/ledger/mark.py": "the ledger's mark",
    "domain/secret_memory.py": "maps memory: no file",
    "process_hardening.py": "/proc: whether there is swap, and what of this process is in it",
    "demo.py": "plays a caller: what its own openssl wrote into its own temporary directory",
}
WORDS = """
open open_code fdopen read_text read_bytes readlines readlink iterdir rglob scandir listdir urlopen
getenv getenvb environ environb expandvars expanduser get_data read_binary
"""
READERS = set(WORDS.split())
MODULES = {"fileinput", "configparser", "dotenv", "tempfile", "shutil", "glob", "mmap", "sqlite3", "shelve"}


def readings(source: str) -> list[str]:
    """The names in the source that read files or environment, each with its line."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Name | ast.Attribute):
            names = [node.id if isinstance(node, ast.Name) else node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0], *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        found += [f"{name} in line {node.lineno}" for name in names if name in READERS | MODULES]
    return found


MODULE_FILES = sorted(SOURCE.rglob("*.py"))


def test_modules_were_found() -> None:
    names = {str(path.relative_to(SOURCE)) for path in MODULE_FILES}
    assert len(names) > 40
    assert names >= {*ALLOWED, "app.py", "rpc/server.py", "adapters/kms/client.py", "domain/key_material.py"}


@pytest.mark.parametrize("path", MODULE_FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_reads_no_files_and_no_environment(path: Path) -> None:
    found = readings(path.read_text(encoding="utf-8"))
    if str(path.relative_to(SOURCE)) in ALLOWED:
        assert found, "it reads nothing any more: take it off the list"
    else:
        assert not found


@pytest.mark.parametrize(
    "source",
    [
        "open('f')",
        "import io\nio.open('f')",
        "import os\nos.environ['X']",
        "import os as o\no.getenv('X')",
        "from os import environ",
        "from os import environ as e",
        "from os import getenv as g",
        "from pathlib import Path\nPath('f').read_text()",
        "p.read_bytes()",
        "p.open()",
        "with p.open('rb') as f: pass",
        "read = open",
        "import os\nos.open('f', 0)",
        "import tempfile",
        "import glob as g",
        "from importlib.resources import open_text, read_binary",
        "from urllib.request import urlopen",
    ],
)
def test_scan_sees(source: str) -> None:
    assert readings(source)


@pytest.mark.parametrize(
    "source", ["read_file(path, key='x')", "opened = 1", "environment_credentials()", "x.reopen()"]
)
def test_scan_lets_pass(source: str) -> None:
    assert not readings(source)
