"""How much of a rule the vendor's documentation says.

Every table of the package marks its rows with one of these; docs/emulator-fidelity.md is generated from them.
"""

from enum import StrEnum


class Standing(StrEnum):
    """Where a rule comes from."""

    DOCUMENTED = "documented"
    """The contract names a source for it."""
    INFERRED = "inferred"
    """Deduced, or recalled without a source: the live service was never asked."""
    NOT_IMPLEMENTED = "not implemented"
    """The service has it, the emulator does not."""
