"""Measurements. `make bench` runs `python -m tests.benchmarks`; docs/performance.md says how to read them."""
