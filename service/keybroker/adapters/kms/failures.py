"""What went wrong on the way to the KMS, from the exceptions of requests and urllib3 to a KmsError.

"Nothing was sent" is said only where the connection was never made: a URL that the libraries don't take, no address, no
connection, a certificate that was not accepted. All else is ambiguous: a pooled connection that broke, a reset, a
time-out, a proxy that refused the tunnel. urllib3's ProxyError alone proves nothing: it also stands for a connection
that broke after the request left through a proxy.

The text of those exceptions holds the request's URL, and with it the import token and the wrapped key material. So
nothing but the class's name is kept, and the KmsError is to be raised where no exception is being handled.
"""

from http.client import HTTPException
from ssl import SSLCertVerificationError

from requests.exceptions import InvalidURL
from urllib3.exceptions import ConnectTimeoutError, LocationValueError, NewConnectionError, ReadTimeoutError

from keybroker.adapters.kms.error_table import CONNECTION, OTHER, TIMEOUT, UNREADABLE
from keybroker.domain.errors import KmsError, Reason

_NEVER_CONNECTED = (
    NewConnectionError,
    ConnectTimeoutError,
    SSLCertVerificationError,
    InvalidURL,  # with InvalidProxyURL
    LocationValueError,  # with LocationParseError
)


def transport_error(error: Exception) -> KmsError:
    """What an exception of requests or urllib3 is to us."""
    cause = _cause(error)
    kind = type(cause).__name__
    if isinstance(cause, _NEVER_CONNECTED):
        return _unavailable(f"The KMS could not be reached ({kind}).", CONNECTION, committed_nothing=True)
    if isinstance(cause, ReadTimeoutError):
        return timed_out()
    if isinstance(cause, HTTPException) and not isinstance(cause, ConnectionError):
        return unreadable(f"it is not an HTTP reply ({kind})")
    return _unavailable(f"The connection to the KMS broke ({kind}).", CONNECTION, committed_nothing=False)


def timed_out() -> KmsError:
    """No whole answer came in time."""
    return _unavailable("The KMS did not answer in time.", TIMEOUT, committed_nothing=False)


def unreadable(why: str, *, status: int = 200, request_id: str = "") -> KmsError:
    """An answer came that is not one of the KMS's. `why` is in our words."""
    reason = Reason.KMS_UNAVAILABLE if status >= 500 else Reason.KMS_RESPONSE_INVALID  # noqa: PLR2004
    message = f"The KMS's answer could not be understood: {why}."
    return KmsError(reason, message, kms_code=UNREADABLE, committed_nothing=False, kms_request_id=request_id)


def emulator_refused() -> KmsError:
    """An emulator answered where a KMS must. So no KMS has got the request, and none has committed anything."""
    message = "The endpoint is the emulator, and the configuration does not allow it."
    return KmsError(Reason.EMULATOR_NOT_ALLOWED, message, kms_code=OTHER, committed_nothing=True)


def credentials_unreadable(kind: str) -> KmsError:
    """The broker has no credentials to sign with."""
    message = f"The broker's credentials for the KMS can't be read ({kind})."
    return KmsError(Reason.KMS_CREDENTIALS_REJECTED, message, kms_code=OTHER, committed_nothing=True)


def _unavailable(message: str, kms_code: str, *, committed_nothing: bool) -> KmsError:
    return KmsError(Reason.KMS_UNAVAILABLE, message, kms_code=kms_code, committed_nothing=committed_nothing)


def _cause(error: BaseException) -> BaseException:
    """The innermost exception that the libraries wrapped: as `reason` or among the arguments."""
    if isinstance(error, (*_NEVER_CONNECTED, ReadTimeoutError)):
        return error
    wrapped = [each for each in (*error.args, getattr(error, "reason", None)) if isinstance(each, BaseException)]
    return _cause(wrapped[-1]) if wrapped else error
