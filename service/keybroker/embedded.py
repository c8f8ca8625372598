"""The broker beside an embedded KMS: what `keybroker demo` and `keybroker serve --emulator` share.

Only here the server imports the emulator, which the production image does not contain.
"""

from collections.abc import Mapping

from keybroker.adapters.kms.credentials import Credentials
from keybroker.settings import Settings, parse_settings
from kms_emulator import AccessKey, Emulator, EmulatorSettings

_ACCESS_KEY_ID = "embedded"
_ACCESS_KEY_SECRET = "not-a-secret"  # noqa: S105  # opens the embedded emulator only
_DKMS_INSTANCE_ID = "kst-embedded"
_REGION = "cn-hangzhou"


def embedded_emulator(*, port: int) -> Emulator:
    """An emulator on loopback; port 0 takes any."""
    return Emulator(
        EmulatorSettings(
            port=port,
            region=_REGION,
            dkms_instance_ids=(_DKMS_INSTANCE_ID,),
            access_keys=(AccessKey(_ACCESS_KEY_ID, _ACCESS_KEY_SECRET),),
        )
    )


def embedded_credentials() -> Credentials:
    """What the embedded emulator accepts."""
    return Credentials(_ACCESS_KEY_ID, _ACCESS_KEY_SECRET, "")


def embedded_settings(
    emulator: Emulator,
    *,
    grpc_address: str,
    http_address: str,
    log_level: str,
    sections: Mapping[str, object] | None = None,
) -> Settings:
    """A broker with one instance, the started emulator, and reflection on; with these `sections` besides."""
    return parse_settings(
        {
            **(sections or {}),
            "server": {"grpc_address": grpc_address, "http_address": http_address, "reflection": True},
            "kms": {
                "default_instance": "main",
                "instances": {
                    "main": {
                        "region": _REGION,
                        "endpoint": emulator.endpoint,
                        "dkms_instance_id": _DKMS_INSTANCE_ID,
                        "allow_emulator": True,
                    }
                },
            },
            "logs": {"level": log_level},
        }
    )
