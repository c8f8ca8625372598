"""How much is tried: one number for all properties, from one variable.

Without KEYBROKER_FUZZ_EXAMPLES (make test) it is small, and the examples are the same in each run. With it (make soak)
each run makes up others. A failure prints what repeats it.
"""

import os

from hypothesis import HealthCheck, settings

VARIABLE = "KEYBROKER_FUZZ_EXAMPLES"
FEW = 80
MARK = "qzmark71fd"
"""Stands in whatever is made up, so that it is found where it must not be. Good for a key id, an alias, a RequestId."""

_asked_for = int(os.environ.get(VARIABLE, "0"))
EXAMPLES = _asked_for or FEW


def fuzzed(share: float = 1.0) -> settings:
    """Decorates a property: `share` is how many of EXAMPLES it gets, by what one of its examples costs."""
    return settings(
        max_examples=max(10, round(EXAMPLES * share)),
        derandomize=not _asked_for,
        deadline=None,  # a slow moment of the machine is no failure of the code
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
