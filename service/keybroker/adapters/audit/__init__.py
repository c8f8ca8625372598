"""The audit log: hash-chained JSON lines in a file, on standard output, or both, and their verification.

Source: ADR 13; docs/audit.md has the format.
"""
