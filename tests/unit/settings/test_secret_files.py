import os
from collections.abc import Callable
from pathlib import Path

import pytest

from keybroker.secret_files import SecretFiles, environment_credentials
from keybroker.settings import ConfigurationError

KEY = "kms.instances.main.credentials"
CANARY = "canary-e5b0c4"


def written(directory: Path, *, key_id: str = "id-1", secret: str = "secret-1") -> list[Path]:
    directory.mkdir(exist_ok=True)
    for name, text in (("id", key_id), ("secret", secret)):
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / "id", directory / "secret"]


def swap(link: Path, target: Path) -> None:
    """Points the link elsewhere in one step, as Kubernetes does with ..data."""
    fresh = link.with_name("..new")
    fresh.symlink_to(target)
    fresh.replace(link)


class Interrupted(SecretFiles):
    """Does something after the first of its files has been read, as often as it is told."""

    def __init__(self, paths: list[Path], interrupt: Callable[[int], None], *, times: int) -> None:
        super().__init__(paths, key=KEY)
        self._first = paths[0]
        self._interrupt = interrupt
        self._times = times
        self.reads = 0

    def _text(self, path: Path) -> str:
        text = super()._text(path)
        if path == self._first and self.reads < self._times:
            self.reads += 1
            self._interrupt(self.reads)
        return text


def test_contents_are_in_the_order_of_the_paths_without_white_space_around(tmp_path: Path) -> None:
    paths = written(tmp_path, key_id="  id-1\n", secret="secret-1\r\n\n")
    assert SecretFiles(paths, key=KEY).contents() == ("id-1", "secret-1")
    assert SecretFiles(paths[::-1], key=KEY).contents() == ("secret-1", "id-1")


def test_construction_reads_nothing(tmp_path: Path) -> None:
    SecretFiles([tmp_path / "missing"], key=KEY)


def test_contents_of_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    reads: list[int] = []
    files = Interrupted(written(tmp_path), reads.append, times=100)
    assert files.contents() == files.contents() == ("id-1", "secret-1")
    assert len(reads) == 1


@pytest.mark.parametrize("name", ["id", "secret"])
def test_contents_follow_a_file_that_is_written_anew(name: str, tmp_path: Path) -> None:
    files = SecretFiles(written(tmp_path), key=KEY)
    files.contents()
    (tmp_path / name).write_text("something longer", encoding="utf-8")
    assert "something longer" in files.contents()


def test_contents_follow_a_file_that_is_replaced_by_one_of_the_same_size_and_time(tmp_path: Path) -> None:
    paths = written(tmp_path)
    files = SecretFiles(paths, key=KEY)
    files.contents()
    before = paths[0].stat()
    fresh = tmp_path / "fresh"
    fresh.write_text("id-2", encoding="utf-8")
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(paths[0])
    assert files.contents() == ("id-2", "secret-1")


def test_contents_follow_a_swap_of_all_files_by_symlink(tmp_path: Path) -> None:
    written(tmp_path / "first")
    written(tmp_path / "second", key_id="id-2", secret="secret-2")
    link = tmp_path / "..data"
    link.symlink_to(tmp_path / "first")
    files = SecretFiles([link / "id", link / "secret"], key=KEY)
    assert files.contents() == ("id-1", "secret-1")
    swap(link, tmp_path / "second")
    assert files.contents() == ("id-2", "secret-2")
    swap(link, tmp_path / "first")
    assert files.contents() == ("id-1", "secret-1")


def test_contents_are_of_one_generation_when_the_swap_comes_between_two_reads(tmp_path: Path) -> None:
    written(tmp_path / "first")
    written(tmp_path / "second", key_id="id-2", secret="secret-2")
    link = tmp_path / "..data"
    link.symlink_to(tmp_path / "first")
    files = Interrupted([link / "id", link / "secret"], lambda _: swap(link, tmp_path / "second"), times=1)
    assert files.contents() == ("id-2", "secret-2")
    assert files.contents() == ("id-2", "secret-2")


class Watched(type(Path())):  # type: ignore[misc]
    """A path that tells when it is about to be looked at."""

    before_access: Callable[[], None]

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        self.before_access()
        return super().stat(follow_symlinks=follow_symlinks)

    def read_bytes(self) -> bytes:
        self.before_access()
        return super().read_bytes()


@pytest.mark.parametrize("step", range(1, 8))
def test_contents_are_of_one_generation_whenever_the_swap_comes(step: int, tmp_path: Path) -> None:
    written(tmp_path / "first")
    written(tmp_path / "second", key_id="id-2", secret="secret-2")
    link = tmp_path / "..data"
    link.symlink_to(tmp_path / "first")
    paths = [Watched(link / "id"), Watched(link / "secret")]
    accesses = 0

    def count() -> None:
        nonlocal accesses
        accesses += 1
        if accesses == step:
            swap(link, tmp_path / "second")

    for path in paths:
        path.before_access = count
    contents = SecretFiles(paths, key=KEY).contents()
    assert contents == (("id-1", "secret-1") if step == 7 else ("id-2", "secret-2"))
    assert accesses == {1: 6, 7: 6}.get(step, 12)  # two looks and a read of each file, twice if it changed meanwhile


def test_contents_of_files_that_never_rest_are_refused(tmp_path: Path) -> None:
    paths = written(tmp_path)
    files = Interrupted(paths, lambda number: written(tmp_path, key_id="i" * (number + 10)) and None, times=100)
    with pytest.raises(ConfigurationError, match=f"{KEY}: the files keep changing"):
        files.contents()
    assert files.reads == 5


def test_contents_after_files_have_come_to_rest_are_right(tmp_path: Path) -> None:
    paths = written(tmp_path)
    files = Interrupted(paths, lambda number: written(tmp_path, key_id="i" * (number + 10)) and None, times=3)
    assert files.contents() == ("i" * 13, "secret-1")


@pytest.mark.parametrize("name", ["id", "secret"])
def test_missing_file_is_named(name: str, tmp_path: Path) -> None:
    paths = written(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigurationError) as caught:
        SecretFiles(paths, key=KEY).contents()
    assert str(caught.value) == f"{KEY}: can't read {tmp_path / name}: No such file or directory"


def test_file_that_went_missing_is_named_and_its_return_noticed(tmp_path: Path) -> None:
    paths = written(tmp_path)
    files = SecretFiles(paths, key=KEY)
    files.contents()
    paths[1].unlink()
    with pytest.raises(ConfigurationError, match="can't read"):
        files.contents()
    written(tmp_path, secret="secret-2")
    assert files.contents() == ("id-1", "secret-2")


def test_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Is a directory"):
        SecretFiles([tmp_path], key=KEY).contents()


def test_file_that_is_not_ascii_is_refused_without_its_text(tmp_path: Path) -> None:
    paths = written(tmp_path, secret=f"{CANARY}\u00e9")
    with pytest.raises(ConfigurationError) as caught:
        SecretFiles(paths, key=KEY).contents()
    assert str(caught.value) == f"{KEY}: {paths[1]} is not ASCII text"
    assert caught.value.__suppress_context__


# The environment

ID, SECRET, TOKEN = (f"ALIBABA_CLOUD_{name}" for name in ("ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SECURITY_TOKEN"))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [({ID: "id", SECRET: "s"}, ("id", "s", "")), ({ID: "id", SECRET: "s", TOKEN: "t"}, ("id", "s", "t"))],
)
def test_environment_credentials_are_the_vendor_s_variables(
    environ: dict[str, str], expected: tuple[str, str, str]
) -> None:
    assert environment_credentials(environ) == expected


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, f"{ID} and {SECRET}"),
        ({ID: "id"}, SECRET),
        ({SECRET: CANARY}, ID),
        ({ID: "", SECRET: CANARY}, ID),
        ({ID: "id", SECRET: "", TOKEN: CANARY}, SECRET),
    ],
)
def test_environment_credentials_that_are_missing_are_named(environ: dict[str, str], missing: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        environment_credentials(environ)
    assert f"set {missing}, or credentials" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_environment_credentials_of_the_process_are_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        monkeypatch.setenv(ID, f"id-{number}")
        monkeypatch.setenv(SECRET, f"secret-{number}")
        monkeypatch.delenv(TOKEN, raising=False)
        assert environment_credentials() == (f"id-{number}", f"secret-{number}", "")
