"""What every long run is told."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """`rounds`: how often each step is tried. `seed`: of every random choice, as far as timing lets it repeat."""

    rounds: int
    seed: int
