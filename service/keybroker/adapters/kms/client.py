"""The KMS's operations through one configured instance: ports.Kms over HTTPS.

One method sends one request, as the vendor's SDK does: a POST with every parameter in the query. Whether an operation
that failed is repeated is the use cases' to decide, with one exception: if the KMS refused the credentials, which
proves that it did nothing, and others are to be had, it is sent once more. Source: contract 1.1 to 1.8, 1.12 and 3.
"""

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from keybroker.adapters.kms import replies
from keybroker.adapters.kms.credentials import Credentials, as_source
from keybroker.adapters.kms.error_table import OTHER
from keybroker.adapters.kms.failures import credentials_unreadable, unreadable
from keybroker.adapters.kms.signing import Acs3Auth, new_nonce
from keybroker.adapters.kms.transport import Transport
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError
from keybroker.domain.external_key import ORIGIN_EXTERNAL, CmkName, ExternalKey, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import WRAPPING_KEY_SPEC, WrappingAlgorithm
from keybroker.ports import Clock, KmsReply

OK = "OK"
SEND_SECONDS = 0.05  # with less left of the deadline a request is not sent

# An expired STS token is told as either: contract 1.12 (traps) and 3.4.
STALE_CREDENTIALS_CODES = frozenset(
    {
        "InvalidAccessKeyId.NotFound",
        "InvalidSecurityToken.Expired",
        "InvalidSecurityToken.Malformed",
        "InvalidSecurityToken.MismatchWithAccessKey",
    }
)

_T = TypeVar("_T")


def _observe_nothing(operation: str, code: str, seconds: float) -> None:
    """No measurements."""


class KmsClient:
    """See ports.Kms. Opens no connection until it is used.

    `credentials` is asked for every request; a CredentialsSource is told of a refusal too. `observe(operation, code,
    seconds)` is told of every request; `code` is "OK", a code of the error table, "timeout", "connection", "unreadable"
    or "other". `proxy` is a URL; `ca_bundle` is a PEM file that takes the place of the system's CAs. ValueError: the
    endpoint, proxy or bundle is bad.
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
        nonce: Callable[[], str] = new_nonce,
    ) -> None:
        self._name = name
        self._region = region
        self._dkms_instance_id = dkms_instance_id
        self._credentials = as_source(credentials)
        self._clock = clock
        self._observe = observe
        self._nonce = nonce
        self._transport = Transport(
            endpoint=endpoint,
            proxy=proxy,
            ca_bundle=ca_bundle,
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            pool_size=pool_size,
            allow_emulator=allow_emulator,
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
        return self._call("CreateKey", sent, deadline, self._read_created)

    def create_alias(self, key_id: str, alias: str, *, deadline: Deadline) -> KmsReply:
        """Gives a CMK an alias. Contract 1.8."""
        return self._call("CreateAlias", {"KeyId": key_id, "AliasName": alias}, deadline, replies.read_change)

    def describe_key(self, key_id: str, *, deadline: Deadline) -> ExternalKey:
        """Reads a CMK by key id, alias or ARN. Contract 1.2."""
        return self._call("DescribeKey", {"KeyId": key_id}, deadline, partial(self._read_described, key_id))

    def get_parameters_for_import(
        self, cmk: CmkName, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        """A new wrapping public key, not yet vetted, and its import token. Contract 1.3."""
        parameters = {
            "KeyId": cmk.key_id,
            "WrappingKeySpec": WRAPPING_KEY_SPEC,
            "WrappingAlgorithm": algorithm.kms_name,
        }
        parse = partial(replies.read_import_parameters, cmk=cmk, algorithm=algorithm)
        return self._call("GetParametersForImport", parameters, deadline, parse)

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
        return self._call("ImportKeyMaterial", parameters, deadline, replies.read_change)

    def schedule_key_deletion(self, key_id: str, *, pending_window_days: int, deadline: Deadline) -> KmsReply:
        """Schedules the deletion of a CMK. Contract 1.6."""
        parameters = {"KeyId": key_id, "PendingWindowInDays": str(pending_window_days)}
        return self._call("ScheduleKeyDeletion", parameters, deadline, replies.read_change)

    def cancel_key_deletion(self, key_id: str, *, deadline: Deadline) -> KmsReply:
        """Cancels a scheduled deletion. Contract 1.6."""
        return self._call("CancelKeyDeletion", {"KeyId": key_id}, deadline, replies.read_change)

    def _call(
        self, action: str, parameters: dict[str, str], deadline: Deadline, parse: Callable[[replies.Body], _T]
    ) -> _T:
        deadline.require(SEND_SECONDS, step=action)
        credentials = self._current_credentials(action, deadline)
        try:
            return self._send(action, parameters, credentials, deadline, parse)
        except KmsError as error:
            if not (error.committed_nothing and error.kms_code in STALE_CREDENTIALS_CODES):
                raise
            refusal = error
        renewed = self._renewed(credentials, deadline)
        if renewed == credentials or deadline.remaining_seconds() < SEND_SECONDS:
            raise refusal
        return self._send(action, parameters, renewed, deadline, parse)

    def _send(
        self,
        action: str,
        parameters: dict[str, str],
        credentials: Credentials,
        deadline: Deadline,
        parse: Callable[[replies.Body], _T],
    ) -> _T:
        auth = Acs3Auth(credentials, action=action, now=self._clock.now, nonce=self._nonce)
        started = self._clock.monotonic()
        code = OTHER
        try:
            result = parse(replies.read_body(self._transport.post(parameters, auth=auth, deadline=deadline)))
            code = OK
        except KmsError as error:
            code = error.kms_code
            raise
        finally:
            self._observe(action, code, self._clock.monotonic() - started)
        return result

    def _current_credentials(self, action: str, deadline: Deadline) -> Credentials:
        failure: KmsError | None = None
        try:
            credentials = self._credentials(deadline=deadline)
        except (OSError, ValueError) as error:
            failure = credentials_unreadable(type(error).__name__)
        deadline.require(SEND_SECONDS, step=action)  # the source may have waited
        if failure is not None:
            raise failure
        return credentials

    def _renewed(self, refused: Credentials, deadline: Deadline) -> Credentials:
        try:
            return self._credentials.renewed(refused, deadline=deadline)
        except (OSError, ValueError):
            return refused

    def _read_created(self, body: replies.Body) -> tuple[ExternalKey, KmsReply]:
        try:
            return replies.read_key(body, region=self._region), replies.read_change(body)
        except KmsError as error:  # there is a CMK all the same
            error.metadata |= replies.created_key_id(body)
            raise

    def _read_described(self, asked: str, body: replies.Body) -> ExternalKey:
        key = replies.read_key(body, region=self._region)
        if asked not in {key.name.key_id, key.arn} and not _is_alias(asked):
            raise unreadable("it describes another CMK than the one asked for")
        return key


def _is_alias(key_id: str) -> bool:
    return key_id.startswith("alias/") or ":alias/" in key_id


def _tags_json(new_key: NewKey) -> str:
    tags = [{"TagKey": key, "TagValue": value} for key, value in new_key.tags.items()]
    return json.dumps(tags, ensure_ascii=False, separators=(",", ":")) if tags else ""
