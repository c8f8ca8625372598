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
        self._unsettled: Identity | None = None
        self._told = ""
        self._value = self._parsed(self._read())
        self._looked_at = time.monotonic()

    def current(self) -> T:
        """The newest good version, at most LOOK_EVERY_SECONDS behind the files."""
        with self._lock:
            if time.monotonic() - self._looked_at >= LOOK_EVERY_SECONDS:
                self._look()
                self._looked_at = time.monotonic()
            return self._value

    def _look(self) -> None:
        try:
            identity = self._identify()
            if identity == self._identity:
                self._refused, self._told = None, ""
            if identity in {self._identity, self._refused} or not self._has_settled(identity):
                return
            contents = self._read()
            if self._identify() != identity:
                return  # it changed meanwhile: the next look reads it whole
        except ConfigurationError as error:  # not readable now; it may be at the next look
            self._refuse(str(error))
            return
        self._take(identity, contents)

    def _take(self, identity: Identity, contents: Sequence[bytes]) -> None:
        try:
            value = self._parsed(contents)
        except ConfigurationError as error:
            self._refused = identity
            self._refuse(str(error))
            return
        self._identity, self._value, self._refused, self._told = identity, value, None, ""
        structlog.get_logger().info("reloaded", what=self._what)
        self._on_reload(self._what, True)  # noqa: FBT003  # the hook's signature

    def _has_settled(self, identity: Identity) -> bool:
        """Whether nobody is still writing: nothing was written in the last second, or since the last look."""
        newest = max(modified_ns for modified_ns, *_ in identity) / 1e9
        settled = identity == self._unsettled or time.time() - newest >= LOOK_EVERY_SECONDS
        self._unsettled = identity
        return settled

    def _refuse(self, why: str) -> None:
        if why == self._told:
            return
        self._told = why
        structlog.get_logger().error("reload refused", what=self._what, why=why)
        self._on_reload(self._what, False)  # noqa: FBT003

    def _parsed(self, contents: Sequence[bytes]) -> T:
        try:
            return self._parse(contents)
        except ConfigurationError:
            raise
        except Exception as error:
            raise ConfigurationError(f"{self._what}: can't be used ({type(error).__name__})") from error

    def _read(self) -> Sequence[bytes]:
        return [read_file(path, key=self._what) for path in self._paths]

    def _identify(self) -> Identity:
        try:
            stats = [path.stat() for path in self._paths]
        except OSError as error:
            raise ConfigurationError(f"{self._what}: can't read {error.filename}: {error.strerror}") from None
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)
