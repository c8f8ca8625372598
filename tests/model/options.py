"""What a configuration of the model says: the reading of the KMS, actors and faults, the protocol's rules."""

from dataclasses import dataclass

SAFETY = ("S1", "S2", "S3", "S4", "S5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the KMS's documentation leaves open. `late`: Enabled shows late, and a checked request may commit late."""

    same_again: bool = True  # the same material may be imported again; otherwise any second import is refused
    newest_only: bool = False  # a new pair revokes the older ones
    late: bool = False

    def __str__(self) -> str:
        return ", ".join(
            (
                "same again" if self.same_again else "never again",
                "newest pair" if self.newest_only else "all pairs",
                "late" if self.late else "at once",
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One configuration. The defaults are the code's protocol; `fails`: what is expected to fail, one of them."""

    name: str
    reading: Reading = Reading()
    # actors
    processes: int = 1
    requests: int = 1
    wrapped: bool = False  # request 1 brings material that its caller wrapped under the pair handed out
    foreign: bool = False  # fetches a pair and imports past the broker
    hand_out: bool = False
    cache: bool = False
    # faults
    losses: int = 1
    crashes: int = 1  # in the middle of a send; between two steps a process may stop at any time
    passing: int = 0  # refusals that say nothing about the material (403, 429)
    restore: bool = False
    ageing: bool = True
    lag_unbounded: bool = False
    garbage: bool = False  # under PKCS#1 v1.5 a wrong key can bind something else, answered with success
    # means
    materials: int = 2  # nothing that was generated is given up once there are so many
    blob_stored: bool = True
    proves: bool = True
    asserts_sole: bool = False
    # rules
    counts_sends: bool = True  # R1
    final_codes_only: bool = True  # R2
    records_first: bool = True  # R3
    frees: bool = True  # R4
    claims_first: bool = True  # R5
    rewraps_closed_only: bool = True  # R6
    looks_twice: bool = True  # R7
    keeps_margin: bool = True  # R7
    knows_restore: bool = True  # R8
    restored_waits: bool = True  # R8: the blob of a restored row is sent again only once the CMK is bound
    hand_out_looks: bool = True  # a hand-out is refused while a row holds the CMK
    sole_asks_again: bool = True  # whether a pair was handed out is asked once more before SOLE_IMPORTER is said
    releases_closed_only: bool = True
    passing_is_passing: bool = True  # a passing refusal of a resend does not count as one for the CMK's sake
    looks_anew: bool = True  # what was seen is forgotten when a compare-and-set is lost
    # moves of the decision table that the code does not make
    resumes_claims: bool = False
    rewraps_expired: bool = False
    replaces: bool = False
    # broken on purpose
    claims: bool = True
    regenerates: bool = False
    adopts: bool = False
    fetches_unresolved: bool = False
    local_clock: bool = False
    rewraps_blindly: bool = False
    replaces_blindly: bool = False
    checks: tuple[str, ...] = (*SAFETY, "L1")
    fails: tuple[str, ...] = ()

    @property
    def stale_is_idle(self) -> bool:
        """Whether a process whose copy of the row is stale can do nothing more than end its errand."""
        return (
            self.counts_sends
            and self.claims
            and self.claims_first
            and self.rewraps_closed_only
            and not self.rewraps_blindly
            and not self.replaces_blindly
            and self.looks_anew
        )
