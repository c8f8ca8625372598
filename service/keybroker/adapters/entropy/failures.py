"""Why a source of random bytes gives none, inside the adapters, and how the caller is told."""

from keybroker.domain.errors import BrokerError, Reason


class SourceFailed(Exception):  # noqa: N818  # reads as what it says
    """The source did not do what it was asked. `kind` is from a closed set: for logs."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class HealthTestFailed(Exception):  # noqa: N818
    """What the source gave is not to be used. `test` is "repetition count" or "adaptive proportion"."""

    def __init__(self, test: str) -> None:
        super().__init__(test)
        self.test = test


def unavailable(source: str, why: str) -> BrokerError:
    """ENTROPY_UNAVAILABLE. `why` completes "The broker's source of randomness …"."""
    return BrokerError(
        Reason.ENTROPY_UNAVAILABLE,
        f"The broker's source of randomness {why}. Nothing was generated for this request, and nothing was sent.",
        metadata={"entropy_source": source},
    )
