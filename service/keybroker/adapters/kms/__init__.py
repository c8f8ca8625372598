"""ports.Kms over HTTPS: one module an aspect.

client (operations) → transport (one request, one reply) → signing, connections (deadlines), failures · replies (JSON to
domain) · error_table.
"""
