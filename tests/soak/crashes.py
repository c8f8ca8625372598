"""Every crash point again and again, with other readings, targets and moments: tests/integration/crash_points.py."""

import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.integration.audit_checks import check_nothing_is_missing
from tests.integration.crash_answers import Told
from tests.integration.crash_points import (
    CREATE_POINTS,
    IMPORT_POINTS,
    IMPORTED,
    PAUSE_POINTS,
    Point,
    Request,
    crash,
    new_request,
    pause,
)
from tests.integration.crashing import Nursery, Site
from tests.soak.plan import Plan

_PARALLEL = 4
_LONGEST_DELAY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _Try:
    """One crash or pause, with what chance chose for it."""

    point: Point
    paused: bool
    new_key: bool
    reimport: bool
    lag_describes: int
    seconds: float
    release_late: bool

    def run(self, nursery: Nursery, folder: Path) -> None:
        """Raises AssertionError."""
        again, lag = self.reimport, self.lag_describes
        with Site(nursery, folder, same_material_reimport=again, enabled_lag_describes=lag) as site:
            request = new_request(site, new_key=self.new_key)
            told = self._told(request)
            assert told.outcome in self._possible(), told.outcome
            check_nothing_is_missing(site.audit_files, site.emulator, told.outcome, request_id=request.request_id)

    def _told(self, request: Request) -> Told:
        if self.paused:
            return pause(request, self.point)
        return crash(request, self.point, seconds=self.seconds, release_late=self.release_late)

    def _possible(self) -> set[str]:
        if self.point in CREATE_POINTS:
            return {IMPORTED}
        return {self.point.expected(reimport=reimport) for reimport in {True, self.reimport}}


def soak(plan: Plan) -> str:
    """Each point `rounds` times, killed and, where a step can be named, paused."""
    chance = random.Random(plan.seed)
    tries = [made for _ in range(plan.rounds) for made in _tries(chance)]
    with tempfile.TemporaryDirectory() as folder, Nursery() as nursery, ThreadPoolExecutor(_PARALLEL) as pool:
        failures = list(
            pool.map(lambda numbered: _failure(nursery, Path(folder) / str(numbered[0]), numbered[1]), enumerate(tries))
        )
    failed = [failure for failure in failures if failure]
    assert not failed, "\n".join([f"{len(failed)} of {len(tries)} tries failed", *failed])
    kinds = Counter("pauses" if made.paused else "kills" for made in tries)
    return f"{kinds['kills']} kills and {kinds['pauses']} pauses, each then one material, one CMK, one answer"


def _tries(chance: random.Random) -> Iterator[_Try]:
    for point in IMPORT_POINTS:
        yield _chosen(chance, point, paused=False, new_key=chance.choice((True, False)))
    for point in PAUSE_POINTS:
        yield _chosen(chance, point, paused=True, new_key=chance.choice((True, False)))
    for point in CREATE_POINTS:
        yield _chosen(chance, point, paused=False, new_key=True)
        if point.stop is not None:
            yield _chosen(chance, point, paused=True, new_key=True)


def _chosen(chance: random.Random, point: Point, *, paused: bool, new_key: bool) -> _Try:
    return _Try(
        point,
        paused,
        new_key,
        reimport=chance.choice((True, False)),
        lag_describes=chance.choice((0, 0, 2)),
        seconds=chance.uniform(0.0, _LONGEST_DELAY_SECONDS),
        release_late=chance.choice((True, False)),
    )


def _failure(nursery: Nursery, folder: Path, made: _Try) -> str:
    run: Callable[[Nursery, Path], None] = made.run
    try:
        run(nursery, folder)
    except Exception:  # noqa: BLE001  # told together with the others
        return f"{made}\n{traceback.format_exc()}"
    return ""
