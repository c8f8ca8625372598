"""A state machine over callers, faults, restarts, foreign importers and clocks, its invariants, and seeded bugs."""
