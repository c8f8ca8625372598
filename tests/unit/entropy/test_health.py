"""The two health tests: their cutoffs against published ones and an exact sum, what they find and what they miss."""

import hashlib
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.entropy.failures import HealthTestFailed
from keybroker.adapters.entropy.health import WINDOW, HealthTests, proportion_cutoff, repetition_cutoff
from tests.unit.entropy.doubles import biased, digits, stuck

TESTS = HealthTests()
SEEDS = range(200)


def verdict(*parts: bytes) -> str:
    try:
        TESTS.run(*parts)
    except HealthTestFailed as error:
        return error.test
    return ""


def window(source: Callable[[random.Random], Iterator[int]], seed: int) -> bytes:
    return bytes(islice(source(random.Random(seed)), WINDOW))


def share_found(source: Callable[[random.Random], Iterator[int]]) -> float:
    return sum(bool(verdict(window(source, seed))) for seed in SEEDS) / len(SEEDS)


# Cutoffs


@pytest.mark.parametrize(
    ("window_length", "min_entropy_bits", "cutoff"),
    [  # SP 800-90B §4.4.2, table 2: alpha = 2^-20, binary samples and others
        (1024, 0.2, 941),
        (1024, 0.4, 840),
        (1024, 0.6, 748),
        (1024, 0.8, 664),
        (1024, 1.0, 589),
        (512, 0.5, 410),
        (512, 1.0, 311),
        (512, 2.0, 177),
        (512, 4.0, 62),
        (512, 8.0, 13),
    ],
)
def test_proportion_cutoff_is_the_published_one(window_length: int, min_entropy_bits: float, cutoff: int) -> None:
    assert proportion_cutoff(min_entropy_bits, 20, window=window_length) == cutoff


@pytest.mark.parametrize("false_positive_bits", [20, 30, 40])
@pytest.mark.parametrize("min_entropy_bits", [1, 2, 4, 6, 8])
def test_proportion_cutoff_is_that_of_an_exact_sum(min_entropy_bits: int, false_positive_bits: int) -> None:
    p, alpha = Fraction(1, 2**min_entropy_bits), Fraction(1, 2**false_positive_bits)
    below = Fraction(0)
    for critical in range(WINDOW + 1):
        below += comb(WINDOW, critical) * p**critical * (1 - p) ** (WINDOW - critical)
        if below >= 1 - alpha:
            break
    assert proportion_cutoff(min_entropy_bits, false_positive_bits) == 1 + critical


@pytest.mark.parametrize(
    ("min_entropy_bits", "false_positive_bits", "cutoff"),
    [(1.0, 20, 21), (1.0, 30, 31), (0.5, 30, 61), (8.0, 20, 4), (8.0, 30, 5), (7.3, 30, 6)],
)
def test_repetition_cutoff_follows_the_formula(min_entropy_bits: float, false_positive_bits: int, cutoff: int) -> None:
    assert repetition_cutoff(min_entropy_bits, false_positive_bits) == cutoff


def test_cutoffs_in_use_are_those_of_the_document() -> None:
    assert (TESTS.repetition_cutoff, TESTS.proportion_cutoff) == (5, 16)


def test_false_alarms_of_a_perfect_source_are_rarer_than_one_in_eight_million_windows() -> None:
    """Union bound over both tests and one window: what docs/entropy.md states."""
    p = Fraction(1, 256)
    repetition = (WINDOW - 4) * p**4
    equal_to_first = WINDOW - 1
    proportion = sum(
        comb(equal_to_first, equal) * p**equal * (1 - p) ** (equal_to_first - equal)
        for equal in range(TESTS.proportion_cutoff - 1, equal_to_first + 1)
    )
    assert repetition + proportion < Fraction(1, 8_000_000)


# The tests themselves


@pytest.mark.parametrize("start", [0, 1, 100, WINDOW - 5, WINDOW - 2, WINDOW])
def test_run_of_five_fails_the_repetition_count_wherever_it_is_and_one_of_four_passes(start: int) -> None:
    good = bytes(place % 251 for place in range(2 * WINDOW))
    assert verdict(good) == ""
    assert verdict(good[:start] + bytes([252] * 4) + good[start + 4 :]) == ""
    assert verdict(good[:start] + bytes([252] * 5) + good[start + 5 :]) == "repetition count"


def test_run_that_goes_on_in_the_next_part_is_one_run() -> None:
    with pytest.raises(HealthTestFailed, match="repetition count"):
        TESTS.run(b"\x01\x02\x03\x03\x03", memoryview(bytearray(b"\x03\x03\x04")))


def sixteen_of_the_first(count: int, *, start: int = 0) -> bytes:
    """`count` bytes 255 in one window that begins with one, the rest without it and without runs."""
    samples = [place % 200 for place in range(2 * WINDOW)]
    for number in range(count):
        samples[start + number * 31] = 255
    return bytes(samples)


def test_sixteen_of_a_windows_first_sample_fail_the_proportion_and_fifteen_pass() -> None:
    assert verdict(sixteen_of_the_first(15)) == ""
    assert verdict(sixteen_of_the_first(16)) == "adaptive proportion"


def test_second_window_is_judged_by_its_own_first_sample() -> None:
    assert verdict(sixteen_of_the_first(16, start=WINDOW)) == "adaptive proportion"
    assert verdict(sixteen_of_the_first(16, start=WINDOW - 31)) == ""  # fifteen of the second, one of the first


@given(st.binary(max_size=1200), st.integers(0, 1200))
def test_verdict_does_not_depend_on_how_the_bytes_come(samples: bytes, place: int) -> None:
    assert verdict(samples[:place], samples[place:]) == verdict(samples)


# What they find, and what they don't


def test_stuck_generator_is_found_by_the_repetition_count() -> None:
    assert {verdict(window(stuck, seed)) for seed in SEEDS} == {"repetition count"}


def test_biased_generator_is_found_by_the_proportion_as_often_as_a_window_begins_with_the_frequent_value() -> None:
    verdicts = [verdict(window(biased, seed)) for seed in SEEDS]
    assert set(verdicts) == {"", "adaptive proportion"}
    assert 0.4 < share_found(biased) < 0.6


def test_small_alphabet_is_found_in_nearly_every_window() -> None:
    assert share_found(digits) > 0.95


def test_good_noise_passes() -> None:
    assert not any(verdict(random.Random(seed).randbytes(WINDOW)) for seed in SEEDS)


def test_generator_with_a_known_seed_passes_as_the_document_says() -> None:
    """SHA-256 of a counter: whoever knows that knows every key."""
    known = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(WINDOW // 32))
    assert verdict(known) == ""


@pytest.mark.parametrize(("period", "found"), [(16, "adaptive proportion"), (32, "adaptive proportion"), (64, "")])
def test_generator_that_repeats_itself_is_found_if_its_period_is_short(period: int, found: str) -> None:
    assert verdict(bytes(place % period for place in range(WINDOW))) == found
