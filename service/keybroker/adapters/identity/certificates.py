"""The caller of a client certificate: its SPIFFE id, or its one DNS name.

The TLS handshake has verified the chain already. It is looked at again for each call, because connections live long:
a certificate that has expired meanwhile, or whose CA is no longer trusted, is refused. Source: SPIFFE X509-SVID §2
(exactly one URI SAN), RFC 5280 §4.2.1.6.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import CallerCredentials

_LONGEST_CHAIN = 6
_BAD_EXTENSIONS = (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+")
_DNS_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")


class CertificateAuthenticator:
    """ports.Authenticator for mTLS. `trusted` gives the CA certificates in force, `now` the time, UTC-aware."""

    def __init__(self, *, trusted: Callable[[], Sequence[x509.Certificate]], now: Callable[[], datetime]) -> None:
        self._trusted = trusted
        self._now = now

    def authenticate(self, credentials: CallerCredentials) -> str:
        """The principal "x509:spiffe://…" or "x509:dns:NAME". Reasons: CALLER_UNAUTHENTICATED."""
        chain = _parsed(credentials.certificate_chain_pem)
        self._check(chain)
        return _principal(chain[0])

    def _check(self, chain: Sequence[x509.Certificate]) -> None:
        """From the leaf through what was sent along to a CA in force; each on the way valid now, each issuer a CA."""
        now = self._now()
        trusted = [ca for ca in self._trusted() if _is_valid(ca, now)]
        current, rest = chain[0], list(chain[1:])
        for _ in range(_LONGEST_CHAIN):
            if not _is_valid(current, now):
                raise unauthenticated("The client certificate is not valid at this time.")
            if current in trusted or any(_issued(current, ca) for ca in trusted):
                return
            issuer = next((candidate for candidate in rest if _issued(current, candidate)), None)
            if issuer is None:
                break
            rest.remove(issuer)
            current = issuer
        raise unauthenticated("The client certificate is of a CA that is not trusted here.")


def unauthenticated(message: str) -> BrokerError:
    """No caller. `message` is in our words."""
    return BrokerError(Reason.CALLER_UNAUTHENTICATED, message)


def _parsed(chain_pem: bytes) -> Sequence[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(chain_pem) if chain_pem else []
    except ValueError as error:
        raise unauthenticated("The client certificate can't be read.") from error
    if not chain:
        raise unauthenticated("The call came without a client certificate.")
    return chain


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        return _is_authority(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, *_BAD_EXTENSIONS):
        return False


def _is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may issue certificates. Source: RFC 5280 §4.2.1.9 and §4.2.1.3."""
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True
    return constraints.ca and may_sign


def _principal(leaf: x509.Certificate) -> str:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, *_BAD_EXTENSIONS) as error:
        raise unauthenticated("The client certificate has no readable subject alternative name.") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns_names = names.get_values_for_type(x509.DNSName)
    if len(uris) == 1 and _SPIFFE_ID.fullmatch(uris[0]):
        return f"x509:{uris[0]}"
    if not uris and len(dns_names) == 1 and _DNS_NAME.fullmatch(dns_names[0]):
        return f"x509:dns:{dns_names[0].lower()}"
    raise unauthenticated("The client certificate must have one SPIFFE id, or no URI and one DNS name.")
