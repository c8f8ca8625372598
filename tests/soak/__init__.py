"""Long runs for `make soak`: what `make test` does once, many times and at random."""
