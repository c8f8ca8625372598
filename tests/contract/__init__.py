"""The contract of the port to the KMS, and a fake that keeps it."""
