"""keybroker: imports external symmetric key material into a Dedicated KMS instance, as a gRPC service.

Layers, enforced by import-linter: app → rpc | adapters → telemetry → usecases → ports → domain.
"""

__version__ = "0.1.0"
