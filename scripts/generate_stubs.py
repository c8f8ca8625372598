"""Generates the Python stubs under clients/python/ from protos/, or with --check reports drift."""

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "clients" / "python"


def protoc(sources: list[Path], outputs: list[str]) -> None:
    """Runs protoc over `sources`."""
    plugin = f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}"
    subprocess.run(  # noqa: S603  # our own files, our own interpreter
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", plugin, *outputs, *map(str, sources)],
        check=True,
    )


def generate(into: Path) -> list[Path]:
    """Writes the message stubs, and for each service the gRPC stubs, and returns their paths below `into`."""
    sources = sorted((PROTOS / "keymaterial").rglob("*.proto"))
    protoc(sources, [f"--python_out={into}", f"--pyi_out={into}"])
    services = [source for source in sources if source.stem.endswith("_service")]
    protoc(services, [f"--grpc_python_out={into}", f"--mypy_grpc_out=quiet:{into}"])
    return sorted(path.relative_to(into) for path in into.rglob("*_pb2*") if path.suffix in {".py", ".pyi"})


def main() -> int:
    """Writes the stubs; with --check writes nothing and returns 1 when they differ."""
    if "--check" not in sys.argv[1:]:
        generate(STUBS)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
        drifted = [
            path
            for path in fresh
            if not (STUBS / path).exists() or not filecmp.cmp(STUBS / path, Path(folder) / path, shallow=False)
        ]
        orphans = {path.relative_to(STUBS) for path in (STUBS / "keymaterial").rglob("*_pb2*.py*")} - set(fresh)
    for path in [*drifted, *sorted(orphans)]:
        print(f"{STUBS.name}/{path} does not match protos/: run make proto")
    return 1 if drifted or orphans else 0


if __name__ == "__main__":
    sys.exit(main())
