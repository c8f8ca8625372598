"""The repetition count test and the adaptive proportion test, on bytes.

What they catch: a generator that stands still or falls back on few values. What they can't: anything that looks like
noise. An HSM gives the output of a DRBG, and that passes whatever the DRBG was seeded with (docs/entropy.md).

Source: NIST SP 800-90B §4.4.1, §4.4.2 (the tests and their cutoffs), §4.3 (start-up: at least 1,024 samples).
"""

from collections.abc import Iterable
from itertools import chain
from math import ceil, comb

from keybroker.adapters.entropy.failures import HealthTestFailed

WINDOW = 512  # §4.4.2, for samples of more than one bit
START_UP_SAMPLES = 2 * WINDOW
RECOVERY_SAMPLES = 16 * WINDOW
"""After a test has failed. A generator that each window finds in half the cases would often pass two of them."""
MIN_ENTROPY_BITS = 8.0
"""What an HSM's generator claims for a byte: all of it."""
FALSE_POSITIVE_BITS = 30
"""alpha = 2^-30: within the range of §4.4 (2^-20 to 2^-40)."""


def repetition_cutoff(min_entropy_bits: float, false_positive_bits: int) -> int:
    """How many equal samples in a row fail: 1 + ceil(-log2(alpha) / H). Source: §4.4.1."""
    return 1 + ceil(false_positive_bits / min_entropy_bits)


def proportion_cutoff(min_entropy_bits: float, false_positive_bits: int, *, window: int = WINDOW) -> int:
    """How many samples of a window equal to its first fail: 1 + critbinom(W, 2^-H, 1 - alpha). Source: §4.4.2.

    The tail is summed from its far end, where nothing is lost to rounding.
    """
    p = 2.0**-min_entropy_bits
    tail = 0.0
    for equal in range(window, 0, -1):
        tail += comb(window, equal) * p**equal * (1 - p) ** (window - equal)
        if tail > 2.0**-false_positive_bits:
            return 1 + equal
    return 1


class HealthTests:
    """Both tests, without memory: each call is a window (or several) of its own and begins anew.

    So nothing of key material stays behind here, every piece of it lies in a window that is judged before it is used,
    and calls may run at once.
    """

    def __init__(
        self, *, min_entropy_bits: float = MIN_ENTROPY_BITS, false_positive_bits: int = FALSE_POSITIVE_BITS
    ) -> None:
        self.repetition_cutoff = repetition_cutoff(min_entropy_bits, false_positive_bits)
        self.proportion_cutoff = proportion_cutoff(min_entropy_bits, false_positive_bits)

    def run(self, *parts: Iterable[int]) -> None:
        """Judges the parts, bytes-like, as one sequence, in windows of WINDOW bytes. Raises HealthTestFailed."""
        last, run, first, equal = -1, 0, -1, 0
        for place, sample in enumerate(chain(*parts)):
            run = run + 1 if sample == last else 1
            last = sample
            if run >= self.repetition_cutoff:
                raise HealthTestFailed("repetition count")
            if place % WINDOW == 0:
                first, equal = sample, 0
            equal += sample == first
            if equal >= self.proportion_cutoff:
                raise HealthTestFailed("adaptive proportion")
