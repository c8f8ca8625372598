"""What happens around every RPC: errors outermost, then deadline, metrics, logging."""
