"""ports.Kms over HTTPS: one module an aspect.

client (operations) → transport (one request, one reply) → signing, connections (deadlines), failures · replies (JSON to
domain) · error_table.
credentials (what a source is) ← refreshing (keeps temporary ones fresh) → sts, ecs_metadata, credentials_uri (each a
provider) → credentials_http.
"""
