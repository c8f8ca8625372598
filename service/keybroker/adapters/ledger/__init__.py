"""The embedded ledger: SQLite in a file or in memory, values sealed, a mark outside it.

Source: ADR 9; docs/ledger.md says how to run it.
"""
