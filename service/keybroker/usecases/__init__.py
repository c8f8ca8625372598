"""What the broker does, step by step, free of transport. Blocking: the rpc layer runs it in worker threads."""
