"""Files that are read again when they change: certificates, keys of token issuers, the policy.

A new version that can't be used leaves the old one in force, and says so once. Files that belong together count only if
none changed while the others were read.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from keybroker.settings import ConfigurationError, read_file

T = TypeVar("T")
Identity = tuple[tuple[int, int, int], ...]

LOOK_EVERY_SECONDS = 1.0


class WatchedFiles(Generic[T]):
    """What `parse` makes of the files' contents. `on_reload(what, good)` is told of each change.

    The first version must be good: otherwise ConfigurationError.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        parse: Callable[[Sequence[bytes]], T],
        *,
        what: str,
        on_reload: Callable[[str, bool], None],
    ) -> None:
        self._paths = tuple(paths)
        self._parse = parse
        self._what = what
        self._on_reload = on_reload
        self._lock = threading.Lock()
        self._identity = self._identify()
        self._refused: Identity | None = None
        self._value = self._load()
        self._looked_at = time.monotonic()

    def current(self) -> T:
        """The newest good version, at most LOOK_EVERY_SECONDS behind the files."""
        with self._lock:
            if time.monotonic() - self._looked_at >= LOOK_EVERY_SECONDS:
                self._look()
                self._looked_at = time.monotonic()
            return self._value

    def _look(self) -> None:
        identity: Identity = ()  # of files that can't be read
        try:
            identity = self._identify()
            if identity in {self._identity, self._refused}:
                return
            value = self._load()
            if self._identify() != identity:
                return  # still being written: the next look reads it whole
        except ConfigurationError as error:
            self._refuse(identity, error)
            return
        self._identity, self._value, self._refused = identity, value, None
        structlog.get_logger().info("reloaded", what=self._what)
        self._on_reload(self._what, True)  # noqa: FBT003  # the hook's signature

    def _refuse(self, identity: Identity, error: ConfigurationError) -> None:
        if identity == self._refused:
            return
        self._refused = identity
        structlog.get_logger().error("reload refused", what=self._what, why=str(error))
        self._on_reload(self._what, False)  # noqa: FBT003

    def _load(self) -> T:
        return self._parse([read_file(path, key=self._what) for path in self._paths])

    def _identify(self) -> Identity:
        try:
            stats = [path.stat() for path in self._paths]
        except OSError as error:
            raise ConfigurationError(f"{self._what}: can't read {error.filename}: {error.strerror}") from None
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)
