"""The KMS's operations through one configured instance: ports.Kms over HTTPS.

One method sends one request, as the vendor's SDK does: a POST with every parameter in the query. Whether an operation
that failed is repeated is not decided here, but for the one repetition of sending.py. Source: contract 1.1 to 1.8,
1.10, 1.11 and 3.
"""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from keybroker.adapters.kms import replies
from keybroker.adapters.kms.clock_skew import ClockSkew
from keybroker.adapters.kms.credentials import Credentials, as_source
from keybroker.adapters.kms.failures import unreadable
from keybroker.adapters.kms.sending import Answer, Sender
from keybroker.adapters.kms.signing import new_nonce
from keybroker.adapters.kms.transport import Transport
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError
from keybroker.domain.external_key import ORIGIN_EXTERNAL, CmkName, ExternalKey, KeyState, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import WRAPPING_KEY_SPEC, WrappingAlgorithm
from keybroker.ports import Clock, KeyPage, KmsReply


def _observe_nothing(operation: str, code: str, seconds: float) -> None:
    """No measurements."""


def _skew_of_no_interest(seconds: float) -> None:
    """No measurements."""


class KmsClient:
    """See ports.Kms. Opens no connection until it is used.

    `credentials` is asked for every request; a CredentialsSource is told of a refusal too. `observe(operation, code,
    seconds)` is told of every request; `code` is "OK", a code of the error table, "timeout", "connection", "unreadable"
    or "other". `on_skew(seconds)` is told of each new estimate of how far the KMS's clock is ahead. `proxy` is a URL;
    `ca_bundle` is a PEM file that takes the place of the system's CAs. ValueError: endpoint, proxy or bundle is bad.
    """

    def __init__(  # noqa: PLR0913  # each is a setting
        self,
        *,
        name: str,
        region: str,
        endpoint: str,
        dkms_instance_id: str,
        credentials: Callable[[], Credentials],
        clock: Clock,
        allow_emulator: bool = False,
        proxy: str | None = None,
        ca_bundle: Path | None = None,
        connect_timeout_seconds: float = 5.0,
        read_timeout_seconds: float = 10.0,
        pool_size: int = 10,
        observe: Callable[[str, str, float], None] = _observe_nothing,
        on_skew: Callable[[float], None] = _skew_of_no_interest,
        nonce: Callable[[], str] = new_nonce,
    ) -> None:
        self._name = name
        self._region = region
        self._dkms_instance_id = dkms_instance_id
        self._clock = clock
        self._skew = ClockSkew(instance=name, on_skew=on_skew)
        self._transport = Transport(
            endpoint=endpoint,
            proxy=proxy,
            ca_bundle=ca_bundle,
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            pool_size=pool_size,
            allow_emulator=allow_emulator,
        )
        self._sender = Sender(
            transport=self._transport,
            credentials=as_source(credentials),
            clock=clock,
            skew=self._skew,
            observe=observe,
            nonce=nonce,
        )

    @property
    def name(self) -> str:
        """The instance's name in the configuration."""
        return self._name

    @property
    def region(self) -> str:
        """The region that the instance is in."""
        return self._region

    @property
    def dkms_instance_id(self) -> str:
        """Id of the Dedicated KMS instance, "kst-…"."""
        return self._dkms_instance_id

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def now(self) -> datetime:
        """The time of day by the KMS's clock, as far as its replies have told."""
        return self._clock.now() + self._skew.correction()

    def create_key(self, new_key: NewKey, *, deadline: Deadline) -> tuple[ExternalKey, KmsReply]:
        """Creates a CMK with Origin EXTERNAL on the instance. Contract 1.1."""
        parameters = {
            "Origin": ORIGIN_EXTERNAL,
            "KeySpec": new_key.spec.kms_name,
            "DKMSInstanceId": self._dkms_instance_id,
            "Description": new_key.description,
            "Tags": _tags_json(new_key),
        }
        sent = {name: value for name, value in parameters.items() if value}
        return self._sender.call("CreateKey", sent, deadline, self._read_created)

    def create_alias(self, key_id: str, alias: str, *, deadline: Deadline) -> KmsReply:
        """Gives a CMK an alias. Contract 1.8."""
        return self._sender.call("CreateAlias", {"KeyId": key_id, "AliasName": alias}, deadline, _read_change)

    def describe_key(self, key_id: str, *, deadline: Deadline) -> ExternalKey:
        """Reads a CMK by key id, alias or ARN. Contract 1.2."""
        return self._sender.call("DescribeKey", {"KeyId": key_id}, deadline, partial(self._read_described, key_id))

    def get_parameters_for_import(
        self, cmk: CmkName, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        """A new wrapping public key, not yet vetted, and its import token. Contract 1.3."""
        parameters = {
            "KeyId": cmk.key_id,
            "WrappingKeySpec": WRAPPING_KEY_SPEC,
            "WrappingAlgorithm": algorithm.kms_name,
        }
        return self._sender.call(
            "GetParametersForImport",
            parameters,
            deadline,
            lambda answer: replies.read_import_parameters(answer.body, cmk=cmk, algorithm=algorithm),
        )

    def import_key_material(
        self, cmk: CmkName, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> KmsReply:
        """Sends wrapped key material that never expires. Contract 1.4."""
        parameters = {
            "KeyId": cmk.key_id,
            "EncryptedKeyMaterial": base64.b64encode(wrapped_key_material).decode(),
            "ImportToken": import_token,
            "KeyMaterialExpireUnix": "0",
        }
        return self._sender.call("ImportKeyMaterial", parameters, deadline, _read_change)

    def schedule_key_deletion(self, key_id: str, *, pending_window_days: int, deadline: Deadline) -> KmsReply:
        """Schedules the deletion of a CMK. Contract 1.6."""
        parameters = {"KeyId": key_id, "PendingWindowInDays": str(pending_window_days)}
        return self._sender.call("ScheduleKeyDeletion", parameters, deadline, _read_change)

    def cancel_key_deletion(self, key_id: str, *, deadline: Deadline) -> KmsReply:
        """Cancels a scheduled deletion. Contract 1.6."""
        return self._sender.call("CancelKeyDeletion", {"KeyId": key_id}, deadline, _read_change)

    def list_keys(
        self, *, tag_key: str, tag_value: str = "", pending_import_only: bool = False, page: int = 1, deadline: Deadline
    ) -> KeyPage:
        """CMKs by tag, 100 a page. Contract 1.7."""
        filters = [("TagKey", tag_key)]
        filters += [("TagValue", tag_value)] if tag_value else []
        filters += [("KeyState", KeyState.PENDING_IMPORT.value)] if pending_import_only else []
        parameters = {
            "Filters": _json([{"Key": key, "Values": [value]} for key, value in filters]),
            "PageNumber": str(page),
            "PageSize": str(replies.PAGE_SIZE),
        }
        return self._sender.call(
            "ListKeys", parameters, deadline, lambda answer: replies.read_key_page(answer.body, page=page)
        )

    def list_resource_tags(self, key_id: str, *, deadline: Deadline) -> Mapping[str, str]:
        """The tags of a CMK. Contract 1.11."""
        return self._sender.call(
            "ListResourceTags",
            {"KeyId": key_id},
            deadline,
            lambda answer: replies.read_tags(answer.body, key_id=key_id),
        )

    def encrypt(self, key_id: str, plaintext: bytes, *, deadline: Deadline) -> bytes:
        """The KMS's ciphertext blob, decoded from base64. Contract 1.10."""
        parameters = {"KeyId": key_id, "Plaintext": base64.b64encode(plaintext).decode()}
        return self._sender.call(
            "Encrypt", parameters, deadline, lambda answer: replies.read_ciphertext(answer.body, key_id=key_id)
        )

    def _read_created(self, answer: Answer) -> tuple[ExternalKey, KmsReply]:
        try:
            return replies.read_key(answer.body, region=self._region, as_of=answer.date), _read_change(answer)
        except KmsError as error:  # there is a CMK all the same
            error.metadata |= replies.created_key_id(answer.body)
            raise

    def _read_described(self, asked: str, answer: Answer) -> ExternalKey:
        key = replies.read_key(answer.body, region=self._region, as_of=answer.date)
        if asked not in {key.name.key_id, key.arn} and not _is_alias(asked):
            raise unreadable("it describes another CMK than the one asked for")
        return key


def _read_change(answer: Answer) -> KmsReply:
    return replies.read_change(answer.body)


def _is_alias(key_id: str) -> bool:
    return key_id.startswith("alias/") or ":alias/" in key_id


def _tags_json(new_key: NewKey) -> str:
    tags = [{"TagKey": key, "TagValue": value} for key, value in new_key.tags.items()]
    return _json(tags) if tags else ""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
