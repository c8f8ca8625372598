"""An explicit-state model of the import protocol, on the names of domain/attempt.py. See docs/exactly-once.md."""
