"""Ways to tamper with an audit log, each at a random place. Lines come and go with their newlines."""

import json
from collections.abc import Callable, Sequence
from random import Random

from tests.unit.audit.support import chain, sealed

Lines = list[bytes]
OTHER_LOG = chain("00000000-0000-4000-8000-000000000000", 20)


def change_byte(lines: Lines, random: Random) -> Lines:
    """Any byte becomes any other one; the log's last newline apart, which is no part of a whole line any more."""
    number = random.randrange(len(lines) - 1)
    both = bytearray(lines[number] + lines[number + 1])
    at = random.randrange(len(lines[number]))
    both[at] = (both[at] + random.randrange(1, 256)) % 256
    parts = [part + b"\n" for part in bytes(both).split(b"\n")[:-1]]
    return [*lines[:number], *parts, *lines[number + 2 :]]


def change_value(lines: Lines, random: Random) -> Lines:
    """It stays JSON, in the form that the broker writes."""
    number = random.randrange(len(lines))
    members = json.loads(lines[number])
    name = random.choice(list(members))
    members[name] = members[name] + 1 if isinstance(members[name], int) else members[name] + "0"
    return _with(lines, number, json.dumps(members, separators=(",", ":")).encode() + b"\n")


def change_value_and_hash(lines: Lines, random: Random) -> Lines:
    """By somebody who knows the format, and leaves the lines after it."""
    number = random.randrange(len(lines) - 1)
    return _with(lines, number, sealed(lines[number], caller="x509:dns:nobody.example"))


def remove_line(lines: Lines, random: Random) -> Lines:
    """Not the first and not the last."""
    number = random.randrange(1, len(lines) - 1)
    return [*lines[:number], *lines[number + 1 :]]


def remove_range(lines: Lines, random: Random) -> Lines:
    """Up to 3,000 lines, not the first and not the last."""
    first = random.randrange(1, len(lines) - 1)
    last = min(len(lines) - 1, first + random.randrange(1, 3000))
    return [*lines[:first], *lines[last:]]


def swap(lines: Lines, random: Random) -> Lines:
    """Two lines, near or far."""
    one, other = random.sample(range(len(lines)), 2)
    return _with(_with(lines, one, lines[other]), other, lines[one])


def swap_neighbours(lines: Lines, random: Random) -> Lines:
    """A line and the one after it."""
    number = random.randrange(len(lines) - 1)
    return [*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]]


def repeat(lines: Lines, random: Random) -> Lines:
    """A line comes once more somewhere after it."""
    number = random.randrange(len(lines))
    at = random.randrange(number + 1, len(lines) + 1)
    return [*lines[:at], lines[number], *lines[at:]]


def insert_copied(lines: Lines, random: Random) -> Lines:
    """A line of another log, sound in itself. Not before all others, where the log would begin with it."""
    at = random.randrange(1, len(lines))
    return [*lines[:at], random.choice(OTHER_LOG), *lines[at:]]


def insert_made_up(lines: Lines, random: Random) -> Lines:
    """A line that continues the one before it, with a hash that fits."""
    at = random.randrange(1, len(lines))
    before = json.loads(lines[at - 1])
    added = sealed(lines[at - 1], seq=before["seq"] + 1, prev=before["hash"], id="made-up")
    return [*lines[:at], added, *lines[at:]]


def insert_junk(lines: Lines, random: Random) -> Lines:
    """Bytes, or nothing but a newline."""
    at = random.randrange(len(lines) + 1)
    return [*lines[:at], random.randbytes(random.randrange(80)).replace(b"\n", b"") + b"\n", *lines[at:]]


def replace_by_another_chains(lines: Lines, random: Random) -> Lines:
    """A line of another chain of the log stands in a line's place."""
    number = random.randrange(1, len(lines) - 1)
    mine = json.loads(lines[number])["chain"]
    while True:
        other = random.choice(lines)
        if json.loads(other)["chain"] != mine:
            return _with(lines, number, other)


def exchange_chains(lines: Lines, random: Random) -> Lines:
    """Two whole chains change their places."""
    starts = [number for number, line in enumerate(lines) if line.startswith(b'{"seq":1,')]
    chains = [lines[first:last] for first, last in zip(starts, [*starts[1:], len(lines)], strict=True)]
    one, other = random.sample(range(len(chains)), 2)
    chains[one], chains[other] = chains[other], chains[one]
    return [line for chain in chains for line in chain]


def cut_end(lines: Lines, random: Random) -> Lines:
    """Whole lines."""
    return lines[: random.randrange(len(lines))]


def cut_end_in_a_line(lines: Lines, random: Random) -> Lines:
    """As a crash does."""
    number = random.randrange(len(lines))
    return [*lines[:number], lines[number][: random.randrange(len(lines[number]))]]


def cut_beginning(lines: Lines, random: Random) -> Lines:
    """Whole lines, and not all."""
    return lines[random.randrange(1, len(lines)) :]


SHOWN_BY_THE_LINES: Sequence[Callable[[Lines, Random], Lines]] = (
    change_byte,
    change_value,
    change_value_and_hash,
    remove_line,
    remove_range,
    swap,
    swap_neighbours,
    repeat,
    insert_copied,
    insert_made_up,
    insert_junk,
    replace_by_another_chains,
    exchange_chains,
)
SHOWN_BY_THE_HEAD: Sequence[Callable[[Lines, Random], Lines]] = (cut_end, cut_end_in_a_line)


def _with(lines: Lines, number: int, line: bytes) -> Lines:
    return [*lines[:number], line, *lines[number + 1 :]]
