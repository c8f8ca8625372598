"""The gRPC side: an asyncio shell around the blocking use cases (docs/adr/0002)."""
