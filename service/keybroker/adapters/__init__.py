"""What the broker needs from outside, made real: the KMS, the clocks, random bytes."""
