"""What the broker knows about keys, wrapping and failure. Imports no transport, store or settings."""
