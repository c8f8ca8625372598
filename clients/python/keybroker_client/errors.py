"""The errors that the clients raise. What a call can fail with: keymaterial/v1/error_reason.proto.

    KeyBrokerError                 also itself: a fault in the broker, or a refusal by something in front of it
    ├── InvalidArgumentError       a field is wrong; `field` names it
    ├── NotFoundError              no such CMK
    │   └── RequestNotFoundError   no such request of this caller
    ├── PreconditionFailedError    the CMK, the account or the operator's settings do not allow it
    │   ├── AlreadyBoundError      the CMK has its key material, for ever
    │   ├── UnattributedError      the CMK has key material, and nobody can say whose: final
    │   ├── ImportInProgressError  another import into the CMK is under way or unresolved, or this one is
    │   ├── QuarantinedError       the broker's own records can't vouch for the CMK
    │   ├── QuotaExceededError     a KMS quota is used up; waiting does not help
    │   └── RequestIdReusedError   the request_id belongs to a request with another content
    ├── NotImportedError           nothing of this request is bound or ever will be: final
    ├── NotAllowedError            the broker does not know the caller, or its policy does not let it
    ├── UnresolvedError            the change may have happened, or may still: repeat with the same request_id
    ├── ThrottledError             too many calls; come back after `retry_after_seconds`
    └── UnavailableError           no answer to a read, or no way to the KMS; come back later

Only an UnresolvedError has `outcome_unknown`. The text of an error is the broker's, or the client's
own: never an import token, wrapped key material or text of the KMS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Mapping


class KeyBrokerError(Exception):
    """A call that failed.

    message: what happened, one sentence or two, for people.
    reason: name of an ErrorReason without its prefix; empty if the answer is not the broker's own.
    code: the gRPC status code.
    advice: what to do, if the broker said so.
    field: the request field at fault, by its name in the .proto.
    metadata: ErrorInfo.metadata: instance, key_id, kms_request_id and others, see error_reason.proto.
    retry_after_seconds: when to come back, if the broker said so.
    request_id: the id of the request, given or generated, to repeat it with; of a read, what it asked for.
    """

    outcome_unknown = False

    def __init__(  # noqa: PLR0913 - keyword-only, one for each thing that a status carries
        self,
        message: str,
        *,
        reason: str = "",
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        advice: str = "",
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.advice = advice
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id

    @property
    def created_key_id(self) -> str:
        """Key id of a CMK that the failed call created and that still needs an import or a deletion."""
        return self.metadata.get("created_key_id", "")

    def __str__(self) -> str:
        request = f" (request_id {self.request_id})" if self.request_id else ""
        return f"{self.message} [{self.reason or self.code.name}]{request}"


class InvalidArgumentError(KeyBrokerError):
    """A request field is missing, malformed or out of range, or the KMS refused the wrapped key material."""


class NotAllowedError(KeyBrokerError):
    """The call carried no valid credential, or no rule of the operator's policy allows it. Nothing was done."""


class NotFoundError(KeyBrokerError):
    """No CMK has this key id in the instance's account and region."""


class RequestNotFoundError(NotFoundError):
    """This caller made no request with this request_id, or so long ago that it was forgotten."""


class PreconditionFailedError(KeyBrokerError):
    """The state of the CMK, the KMS account or the operator's settings do not allow the call."""


class AlreadyBoundError(PreconditionFailedError):
    """The CMK has key material and is bound to it for ever. Import into a new CMK instead."""


class UnattributedError(PreconditionFailedError):
    """Final: the CMK is Enabled, and it can't be found out with whose key material. Import into a new CMK."""


class ImportInProgressError(PreconditionFailedError):
    """Another import into this CMK, or an earlier call of this request, is under way. This call did nothing."""


class QuarantinedError(PreconditionFailedError):
    """The broker's ledger is unreadable for this CMK, or an older copy: it sends nothing for the CMK.

    What earlier calls for the CMK did is not known. retry_after_seconds says when it ends, if the broker knows.
    """


class QuotaExceededError(PreconditionFailedError):
    """A resource quota of the KMS is used up; more quota or deletions are needed."""


class RequestIdReusedError(PreconditionFailedError):
    """This caller has used the request_id for a request with another content. This call did nothing."""


class NotImportedError(KeyBrokerError):
    """Final: nothing of this request is bound to the CMK or ever will be. Ask anew, with a new request_id."""


class UnresolvedError(KeyBrokerError):
    """Nobody can say yet whether the change happened.

    An import, or the creation of a CMK: repeat the call with the same request_id and content, or look with get_import.
    A deletion: look with describe_key before anything else.
    """

    outcome_unknown = True


class ThrottledError(KeyBrokerError):
    """The broker or the KMS serves no more calls now. Come back later, with the same request_id."""


class UnavailableError(KeyBrokerError):
    """The KMS or the broker gave no usable answer, and nothing was imported. Come back later, with the same request_id.

    An import with new_key may have created its CMK: then created_key_id names it.
    """
