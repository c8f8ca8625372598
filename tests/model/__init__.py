"""An explicit-state model of the import protocol, on the names of keybroker/domain/attempt.py. See docs/exactly-once.md."""
