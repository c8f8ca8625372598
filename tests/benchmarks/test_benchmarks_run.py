"""The benchmarks run, and fail when what they time goes wrong. The figures of so small a run mean nothing."""

import json
from pathlib import Path

import pytest

from kms_emulator import AccessKey, Emulator, EmulatorSettings
from tests.benchmarks import __main__ as bench
from tests.benchmarks import server_shell
from tests.benchmarks.floor import ACCESS_KEY_ID, ACCESS_KEY_SECRET, DKMS_INSTANCE_ID, FloorKms, WrongResultError
from tests.benchmarks.imports import CONTENDERS, UpstreamLog

COLD_IMPORT_LINES = (
    "DescribeKey 'key-1' 200 0.5 ms",
    "GetParametersForImport 'key-1' 200 0.6 ms",
    "ImportKeyMaterial 'key-1' 200 0.9 ms",
    "DescribeKey 'key-1' 200 0.4 ms",
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "emulator.log"


def test_import_benchmark_with_a_few_imports_gives_figures_of_each_contender(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"

    assert bench.main(["--imports", "3", "--rounds", "1", "--json", str(file)]) == 0

    summary = json.loads(file.read_text())["summary"]
    assert set(summary) == {"1", "16"}
    for figures in summary.values():
        assert set(figures) == set(CONTENDERS)
        assert all(of["cpu_ms"] > 0 and of["added_p50_ms"] > 0 for of in figures.values())
    assert "vendor's SDK" in capsys.readouterr().out


def test_server_shell_benchmark_with_a_few_workers_gives_figures(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--workers", "4", "--seconds", "0.4", "--echo-rounds", "1", "--candidate", "asyncio shell"]

    assert server_shell.main(few) == 0

    assert "RESOURCE_EXHAUSTED" in capsys.readouterr().out


def test_upstream_log_of_a_cold_import_sums_its_four_requests(log: Path) -> None:
    others = ("CreateKey 'key-1' 200 9.9 ms", "DescribeKey 'key-2' 200 7.7 ms")
    log.write_text("\n".join((*others, *COLD_IMPORT_LINES, "")))

    assert UpstreamLog(log).milliseconds(["key-1"]) == [pytest.approx(2.4)]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((*COLD_IMPORT_LINES, COLD_IMPORT_LINES[0]), id="a read too many"),
        pytest.param((*COLD_IMPORT_LINES[:2], COLD_IMPORT_LINES[1], COLD_IMPORT_LINES[3]), id="no write"),
        pytest.param((COLD_IMPORT_LINES[0].replace("200", "503"), *COLD_IMPORT_LINES[1:]), id="a refused request"),
    ],
)
def test_upstream_log_of_another_course_is_a_wrong_result(log: Path, lines: tuple[str, ...]) -> None:
    log.write_text("\n".join((*lines, "")))

    with pytest.raises(WrongResultError):
        UpstreamLog(log).milliseconds(["key-1"])


def test_floor_importing_a_second_time_is_a_wrong_result() -> None:
    settings = EmulatorSettings(
        access_keys=(AccessKey(ACCESS_KEY_ID, ACCESS_KEY_SECRET),),
        dkms_instance_ids=(DKMS_INSTANCE_ID,),
        rsa_key_pool=1,
    )
    with Emulator(settings) as emulator, FloorKms(emulator.endpoint) as kms:
        key_id = kms.create_key()
        kms.import_key(key_id)
        with pytest.raises(WrongResultError, match="Enabled"):
            kms.import_key(key_id)
