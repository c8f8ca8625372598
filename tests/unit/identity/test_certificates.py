"""The caller of a certificate chain, and the second look at it."""

from datetime import UTC, datetime

import pytest

from keybroker.adapters.identity.certificates import CertificateAuthenticator
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import CallerCredentials
from tests.certificates import HOUR, Authority

SPIFFE_ID = "spiffe://example.org/ns/a/sa/b"


def authenticate(chain: bytes, *authorities: Authority, now: datetime | None = None) -> str:
    from cryptography import x509  # noqa: PLC0415

    trusted = [x509.load_pem_x509_certificate(authority.pem) for authority in authorities]
    authenticator = CertificateAuthenticator(trusted=lambda: trusted, now=lambda: now or datetime.now(UTC))
    return authenticator.authenticate(CallerCredentials(certificate_chain_pem=chain))


def refused(chain: bytes, *authorities: Authority, now: datetime | None = None) -> str:
    with pytest.raises(BrokerError) as caught:
        authenticate(chain, *authorities, now=now)
    assert caught.value.reason is Reason.CALLER_UNAUTHENTICATED
    return caught.value.message


@pytest.mark.parametrize(
    ("names", "principal"),
    [
        ({"uris": (SPIFFE_ID,)}, f"x509:{SPIFFE_ID}"),
        ({"uris": (SPIFFE_ID,), "dns_names": ("a.example", "b.example")}, f"x509:{SPIFFE_ID}"),
        ({"dns_names": ("A.Example",)}, "x509:dns:a.example"),
    ],
)
def test_one_clear_name_is_the_principal(names: dict[str, tuple[str, ...]], principal: str) -> None:
    authority = Authority()
    assert authenticate(authority.issue(**names).chain, authority) == principal  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"dns_names": ("a.example", "b.example")},
        {"dns_names": ("*.example",)},
        {"uris": (SPIFFE_ID, "spiffe://example.org/other")},
        {"uris": ("spiffe://example.org",)},
        {"uris": ("spiffe://EXAMPLE.org/a",)},
        {"uris": ("spiffe://example.org/a/../b",)},
        {"uris": ("https://example.org/a",), "dns_names": ("a.example",)},
    ],
)
def test_no_clear_name_is_no_caller(names: dict[str, tuple[str, ...]]) -> None:
    authority = Authority()
    refused(authority.issue(**names).chain, authority)  # type: ignore[arg-type]


def test_chain_is_looked_at_again() -> None:
    authority, other = Authority(), Authority()
    chain = authority.issue(uris=(SPIFFE_ID,)).chain
    assert "not trusted" in refused(chain, other)
    assert "not trusted" in refused(chain)
    assert "not valid at this time" in refused(chain, authority, now=datetime.now(UTC) + 2 * HOUR)
    assert "not valid at this time" in refused(chain, authority, now=datetime.now(UTC) - 2 * HOUR)


def test_impostor_with_the_name_of_the_authority_is_not_trusted() -> None:
    authority, impostor = Authority("same name"), Authority("same name")
    assert "not trusted" in refused(impostor.issue(uris=(SPIFFE_ID,)).chain + impostor.pem, authority)


@pytest.mark.parametrize("chain", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"junk"])
def test_no_readable_certificate_is_no_caller(chain: bytes) -> None:
    refused(chain, Authority())


def test_leaf_is_no_authority_for_another() -> None:
    authority = Authority()
    leaf = authority.issue(uris=(SPIFFE_ID,))
    below = authority.issue_below(leaf, uris=("spiffe://example.org/admin",))
    assert "not trusted" in refused(below.chain + leaf.chain, authority)


def test_chain_through_an_intermediate_is_followed_and_others_are_ignored() -> None:
    authority, stranger = Authority(), Authority("stranger")
    intermediate = authority.issue_authority("intermediate")
    leaf = intermediate.issue(uris=(SPIFFE_ID,))
    assert authenticate(leaf.chain + stranger.pem + intermediate.pem, authority) == f"x509:{SPIFFE_ID}"
    assert "not trusted" in refused(leaf.chain, authority)


def test_expired_authority_is_not_trusted() -> None:
    authority = Authority()
    far = datetime.now(UTC) + 2 * HOUR
    leaf = authority.issue(uris=(SPIFFE_ID,), not_after=far + HOUR)
    assert "not trusted" in refused(leaf.chain, authority, now=far)
