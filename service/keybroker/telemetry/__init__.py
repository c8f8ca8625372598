"""Metrics, logs, and the HTTP port with metrics and probes."""
