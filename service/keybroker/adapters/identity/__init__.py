"""Who calls: from a client certificate or from a bearer token."""
