"""The fault matrix: every operation of an import, struck by every fault, under every reading of the KMS."""
