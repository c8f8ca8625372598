"""Values from mounted files or the environment, read again when they change.

Kubernetes swaps the files of a Secret together, and other tools replace them one by one: what is read counts only if
no file changed while the others were read.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from keybroker.settings import ConfigurationError, read_file

Identity = tuple[int, int, int]
_ATTEMPTS = 5


class SecretFiles:
    """The contents of some small text files as one value."""

    def __init__(self, paths: Sequence[Path], *, key: str) -> None:
        self._paths = tuple(paths)
        self._key = key
        self._lock = threading.Lock()
        self._read: tuple[tuple[Identity, ...], tuple[str, ...]] | None = None

    def contents(self) -> tuple[str, ...]:
        """The text of each file, in the order of the paths. Raises ConfigurationError."""
        with self._lock:
            for _ in range(_ATTEMPTS):
                before = self._identities()
                if self._read is not None and self._read[0] == before:
                    return self._read[1]
                texts = tuple(self._text(path) for path in self._paths)
                if self._identities() == before:
                    self._read = (before, texts)
                    return texts
        raise ConfigurationError(f"{self._key}: the files keep changing")

    def _text(self, path: Path) -> str:
        try:
            return read_file(path, key=self._key).decode("ascii").strip()
        except UnicodeDecodeError:
            raise ConfigurationError(f"{self._key}: {path} is not ASCII text") from None

    def _identities(self) -> tuple[Identity, ...]:
        try:
            stats = [path.stat() for path in self._paths]
        except OSError as error:
            raise ConfigurationError(f"{self._key}: can't read {error.filename}: {error.strerror}") from None
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)


def environment_credentials(environ: Mapping[str, str] = os.environ) -> tuple[str, str, str]:
    """Access key id, its secret and the STS token ("" for none) from the vendor's variables.

    Raises ConfigurationError if the first two are not set. Source: contract 4, item 1.
    """
    names = ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise ConfigurationError(f"no KMS credentials: set {' and '.join(missing)}, or credentials of the instance")
    key_id, secret = (environ[name] for name in names)
    return key_id, secret, environ.get("ALIBABA_CLOUD_SECURITY_TOKEN", "")


def vendor_variable(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """The value of a variable that the vendor's tools set, such as ACK's RRSA webhook; "" if it is not set."""
    return environ.get(name, "").strip()
