"""The configurations: the code's protocol under every reading, each rule taken away, what is broken on purpose.

`quick` is what `make test` runs, `full` what `python -m tests.model` runs. The bounds are written out in
docs/exactly-once.md.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

from tests.model.options import SAFETY, Options, Reading

READINGS = tuple(
    Reading(same_again=same, newest_only=newest, late=late) for same, newest, late in product((True, False), repeat=3)
)
LENIENT = Reading()
HARSH = Reading(same_again=False, newest_only=True, late=True)
LATE = Reading(late=True)
NEWEST = Reading(newest_only=True)
NEWEST_LATE = Reading(newest_only=True, late=True)
EVIDENCE = (*SAFETY, "L1", "L2")

_WIDE = {"resumes_claims": True, "rewraps_expired": True, "replaces": True}
_CROWD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("two requests", {"requests": 2, "losses": 2, "passing": 1}),
    ("two requests, foreign importer", {"requests": 2, "foreign": True}),
    ("two processes", {"processes": 2, "passing": 1}),
    ("two processes, foreign importer", {"processes": 2, "crashes": 0, "foreign": True}),
    ("two requests on two processes", {"requests": 2, "processes": 2, "crashes": 0}),
    ("sole importer asserted", {"requests": 2, "losses": 2, "passing": 1, "asserts_sole": True, "proves": False}),
    ("hand-out, cache", {"requests": 2, "hand_out": True, "cache": True, "asserts_sole": True, "passing": 1}),
    ("hand-out, two processes", {"processes": 2, "hand_out": True, "cache": True, "asserts_sole": True}),
    ("wrapped by the caller", {"requests": 2, "hand_out": True, "cache": True, "wrapped": True, "blob_stored": False}),
    ("wrapped, two processes", {"processes": 2, "hand_out": True, "wrapped": True, "passing": 1}),
    ("ledger restored", {"restore": True, "asserts_sole": True, "passing": 1}),
    ("ledger restored, hand-out", {"restore": True, "hand_out": True, "wrapped": True, "crashes": 0}),
    ("the whole decision table", {"requests": 2, "foreign": True, **_WIDE}),
    ("the whole table, two processes", {"processes": 2, "crashes": 0, **_WIDE}),
)


def sound() -> Iterator[Options]:
    """The protocol, under every reading."""
    for what, size in _CROWD:
        for reading in READINGS:
            yield Options(name=f"{what} / {reading}", reading=reading, **size)
    for reading in READINGS:
        if reading.late:
            size = {"requests": 2, "losses": 2, "passing": 1, "foreign": True, "blob_stored": False}
            yield Options(name=f"PKCS#1 / {reading}", reading=reading, **size)
            pair = {"processes": 2, "passing": 1, "blob_stored": False}
            yield Options(name=f"PKCS#1, two processes / {reading}", reading=reading, **pair)
            yield Options(name=f"PKCS#1 garbage, S2 to S5 / {reading}", reading=reading, **_GARBAGE)
    for reading in (LENIENT, LATE, HARSH):
        yield Options(
            name=f"ledger restored, two requests / {reading}", reading=reading, requests=2, restore=True, crashes=0
        )
    yield from evidence()


_GARBAGE: dict[str, Any] = {
    "requests": 2,
    "garbage": True,
    "blob_stored": False,
    "passing": 1,
    "checks": ("S2", "S3", "S4", "S5", "L1"),
}


def evidence() -> Iterator[Options]:
    """L2: the broker does not destroy its own evidence, where the same material may be imported again."""
    for reading in (LATE, NEWEST_LATE):
        size: dict[str, Any] = {"reading": reading, "checks": EVIDENCE}
        yield Options(name=f"evidence, two requests / {reading}", requests=2, losses=2, passing=2, **size)
        yield Options(name=f"evidence, two processes / {reading}", requests=2, processes=2, **size)
        handed: dict[str, Any] = {"requests": 2, "hand_out": True, "cache": True, "passing": 1}
        yield Options(name=f"evidence, hand-out / {reading}", **handed, **size)
        yield Options(name=f"evidence, wrapped / {reading}", wrapped=True, **handed, **size)


def rules() -> Iterator[Options]:
    """Each of R1 to R8 taken away, and each rule that the code adds: every one has to be missed."""
    lost = {"checks": EVIDENCE, "reading": NEWEST}
    alone: dict[str, Any] = {"reading": NEWEST, "checks": ("L2",), "fails": ("L2",)}
    lost_late = {"checks": EVIDENCE, "reading": NEWEST_LATE}
    never = Reading(same_again=False)
    yield Options(name="without R1", reading=never, processes=2, crashes=0, counts_sends=False, fails=("S2",))
    yield Options(name="without R2", requests=2, crashes=0, final_codes_only=False, fails=("S2",))
    yield Options(name="without R3", reading=never, proves=False, losses=2, records_first=False, fails=("S4",))
    yield Options(name="without R4", requests=2, passing=1, frees=False, fails=("L1",))
    yield Options(name="without R5", requests=2, processes=2, crashes=0, ageing=False, claims_first=False, **alone)
    yield Options(name="without R6", rewraps_closed_only=False, **lost, fails=("L2",))
    yield Options(name="without R7: one look", reading=LATE, looks_twice=False, fails=("S2",))
    yield Options(name="without R7: no margin", reading=LATE, requests=2, keeps_margin=False, fails=("S2", "S3"))
    for broken in ("S2", "S3", "S4"):
        yield _unnoticed(f"without R8: {broken}", requests=2, checks=(broken,), fails=(broken,))
    yield _unnoticed(
        "without R8: SOLE_IMPORTER", requests=2, losses=2, asserts_sole=True, checks=("S1",), fails=("S1",)
    )
    early: dict[str, Any] = {"restore": True, "passing": 1, "crashes": 0, "restored_waits": False}
    yield Options(name="without R8: a restored row sent again at once", **early, fails=("S2", "S3"))
    handed = {"hand_out": True, "asserts_sole": True}
    yield Options(name="hand-out beside a row", hand_out=True, hand_out_looks=False, **lost_late, fails=("L2",))
    yield Options(name="SOLE_IMPORTER not asked again", processes=2, sole_asks_again=False, **handed, fails=("S1",))
    yield Options(name="released with an open send", requests=2, releases_closed_only=False, fails=("S2", "S3"))
    yield Options(
        name="a passing refusal taken for a proof", passing=1, passing_is_passing=False, **lost, fails=("L2",)
    )
    yield Options(
        name="sights kept when the row changed", reading=LATE, processes=2, looks_anew=False, passing=1, fails=("S2",)
    )


def _unnoticed(name: str, **changes: Any) -> Options:
    """A restored ledger that nobody recognised."""
    sizes: dict[str, Any] = {"restore": True, "knows_restore": False, "crashes": 0, **changes}
    return Options(name=name, **sizes)


def variants() -> Iterator[Options]:
    """Broken on purpose, as an implementation might be."""
    table: dict[str, Any] = {"processes": 2, "losses": 2, "crashes": 0, "passing": 1}
    yield Options(name="regenerates on a time-out", crashes=0, regenerates=True, fails=("S3",))
    yield Options(
        name="no claim", processes=2, requests=2, crashes=0, claims=False, claims_first=False, fails=("S2", "S3")
    )
    yield Options(name="adopts Enabled, foreign importer", foreign=True, adopts=True, checks=("S1",), fails=("S1",))
    yield Options(name="adopts Enabled", adopts=True, fails=("S5",))
    lost = {"reading": NEWEST, "checks": EVIDENCE}
    yield Options(name="fetches a pair while unresolved", fetches_unresolved=True, **lost, fails=("L2",))
    yield Options(name="expiry by the local clock", requests=2, local_clock=True, fails=("S2", "S3"))
    yield Options(name="rewraps without compare-and-set", rewraps_blindly=True, requests=2, **table, fails=("S2", "S3"))
    replaces = {"replaces": True, "replaces_blindly": True, "materials": 3}
    yield Options(name="replaces without compare-and-set", **replaces, **table, fails=("S3",))


def limits() -> Iterator[Options]:
    """What the sound verdicts rest on, and what nothing here can repair."""
    yield Options(name="assumed: Enabled shows some time", reading=LATE, lag_unbounded=True, fails=("S2",))
    yield Options(name="assumed: no garbage is accepted", garbage=True, proves=False, checks=("S1",), fails=("S1",))
    handed: dict[str, Any] = {"processes": 2, "crashes": 0, "ageing": False, "hand_out": True, "checks": ("L2",)}
    yield Options(name="hand-out, two processes: evidence", reading=NEWEST, **handed, fails=("L2",))
    wrapped: dict[str, Any] = {"hand_out": True, "wrapped": True, "blob_stored": False}
    yield Options(
        name="PKCS#1, recovered before the caller repeats", reading=LATE, checks=EVIDENCE, **wrapped, fails=("L2",)
    )


def _unnoticed_by_reading(*, requests: int) -> Iterator[Options]:
    """What holds all the same when nobody recognises a restore."""
    for reading in (LENIENT, HARSH):
        name = f"restore unnoticed, S1 and S5 / {reading}"
        yield _unnoticed(name, requests=requests, reading=reading, checks=("S1", "S5"))


def prospects() -> Iterator[Options]:
    """Which answers are reachable while the token lives and nobody else imports."""
    for reading, proves in product(READINGS, (False, True)):
        name = f"within the token's life{', proof' if proves else ''} / {reading}"
        yield Options(name=name, reading=reading, proves=proves, requests=2, losses=2, ageing=False)


def full() -> list[Options]:
    """Everything."""
    return [*sound(), *rules(), *variants(), *limits(), *_unnoticed_by_reading(requests=2), *prospects()]


_SMALL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("two requests", {"requests": 2}),
    ("passing refusals, foreign importer", {"passing": 1, "foreign": True}),
    ("two processes", {"processes": 2}),
    ("hand-out, cache", {"hand_out": True, "cache": True, "asserts_sole": True, "passing": 1}),
    ("wrapped by the caller", {"hand_out": True, "wrapped": True, "blob_stored": False, "passing": 1}),
    ("ledger restored", {"restore": True, "asserts_sole": True}),
)


def quick() -> list[Options]:
    """The code's protocol with small bounds under all readings, and everything that has to fail."""
    small = [
        Options(name=f"{what} / {reading}", reading=reading, crashes=0, **size)
        for what, size in _SMALL
        for reading in READINGS
    ]
    kept = Options(name="evidence kept", requests=2, crashes=0, reading=NEWEST_LATE, checks=EVIDENCE)
    handed = Options(name="evidence kept, hand-out", crashes=0, hand_out=True, reading=NEWEST_LATE, checks=EVIDENCE)
    apart = Options(
        name="hand-out, two processes",
        reading=NEWEST,
        processes=2,
        losses=0,
        crashes=0,
        hand_out=True,
        asserts_sole=True,
    )
    return [*small, kept, handed, apart, *rules(), *variants(), *limits(), *_unnoticed_by_reading(requests=1)]
