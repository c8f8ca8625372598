"""Who asks for what: the identity of a request, as the ledger keeps it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import uuid4

from keybroker.domain.attempt import Attempt, Kind, State
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.ports import Kms


@dataclass(frozen=True, slots=True)
class Asked:
    """The authenticated caller ("" where callers are not known) and its request id, a UUID in lower case."""

    caller: str
    request_id: str


def target_parts(target: KeyReference | NewKey) -> list[str]:
    """What tells one target from another; an ARN and its key id are the same."""
    if isinstance(target, KeyReference):
        return ["key", target.key_id]
    tags = [part for pair in sorted(target.tags.items()) for part in pair]
    return ["new", target.spec.kms_name, target.description, target.alias, *tags]


def digest_of(kind: Kind, kms: Kms, parts: Iterable[str]) -> bytes:
    """SHA-256 over the content of a request, each part with its length in front."""
    digest = hashlib.sha256()
    for part in (kind.value, kms.region, kms.dkms_instance_id, *parts):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


def new_attempt(asked: Asked, kind: Kind, kms: Kms, digest: bytes) -> Attempt:
    """A row that was not written yet: RELEASED, for nothing was done."""
    return Attempt(
        record_id=str(uuid4()),
        caller=asked.caller,
        request_id=asked.request_id,
        kind=kind,
        request_digest=digest,
        region=kms.region,
        dkms_instance_id=kms.dkms_instance_id,
        state=State.RELEASED,
    )
