import pytest

from tests.model import configurations
from tests.model.__main__ import main
from tests.model.judge import judge
from tests.model.options import Options


def _named(options: list[Options]) -> list[object]:
    return [pytest.param(one, id=one.name.replace(" / ", ", ")) for one in options]


SOUND = [one for one in configurations.quick() if not one.fails]
BROKEN = [one for one in configurations.quick() if one.fails]


@pytest.mark.parametrize("options", _named(SOUND))
def test_protocol_of_the_code_holds(options: Options) -> None:
    judged = judge(options)
    assert judged.as_expected, f"{judged}\n{judged.trace()}"
    assert judged.verdict.answers


@pytest.mark.parametrize("options", _named(BROKEN))
def test_protocol_with_a_rule_taken_away_fails(options: Options) -> None:
    judged = judge(options)
    assert judged.as_expected, f"{judged}\n{judged.trace()}"
    assert judged.verdict.trace


def test_configurations_have_names_of_their_own() -> None:
    names = [one.name for one in configurations.full()]
    assert len(set(names)) == len(names)


def test_command_exits_with_the_verdict(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--processes", "1", "adopts Enabled"]) == 0
    assert "fails S5" in capsys.readouterr().out
    unexpected = Options(name="adopts, though said to be sound", adopts=True)
    monkeypatch.setattr(configurations, "full", lambda: [unexpected])
    assert main(["--processes", "1"]) == 1
    assert "NOT AS EXPECTED" in capsys.readouterr().out
