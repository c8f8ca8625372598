"""ports.Kms over HTTPS: one module an aspect.

client (operations) → transport (one request, one reply) → signing, failures · replies (JSON to domain) · error_table.
"""
