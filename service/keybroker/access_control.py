"""Chooses how callers are known and what they may do. Part of the composition root."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from keybroker.adapters.identity.certificates import CertificateAuthenticator
from keybroker.adapters.identity.jwks import FileKeys, KeySet, UrlKeys, parse_jwks
from keybroker.adapters.identity.tokens import Keys, TokenAuthenticator
from keybroker.adapters.rate_limit import MovingWindow
from keybroker.policy_file import parse_policy
from keybroker.ports import Authenticator, Clock
from keybroker.rpc.access import AccessControl
from keybroker.rpc.server import ServerTls
from keybroker.settings import ConfigurationError, IdentitySettings, JwtSettings, ServerSettings, Settings
from keybroker.watched_files import WatchedFiles

OnReload = Callable[[str, bool], None]


def access_control(settings: Settings, *, clock: Clock, on_reload: OnReload) -> AccessControl | None:
    """Identity and policy as configured; None where neither is. Raises ConfigurationError."""
    identity = settings.server.identity
    if identity is None or settings.policy is None:
        return None
    policy = WatchedFiles(
        [settings.policy.file], lambda files: parse_policy(files[0]), what="policy", on_reload=on_reload
    )
    return AccessControl(
        authenticator=_authenticator(identity, clock, on_reload),
        policy=policy.current,
        rate_limit=MovingWindow(),
    )


def server_tls(settings: ServerSettings, *, on_reload: OnReload) -> Callable[[], ServerTls] | None:
    """The certificate in force, with the callers' CAs for mTLS; None without TLS. Raises ConfigurationError."""
    if settings.tls is None:
        return None
    paths = [settings.tls.certificate_file, settings.tls.private_key_file]
    if settings.identity is not None and settings.identity.mtls is not None:
        paths.append(settings.identity.mtls.client_ca_file)
    return WatchedFiles(paths, _parse_tls, what="certificates", on_reload=on_reload).current


def _authenticator(identity: IdentitySettings, clock: Clock, on_reload: OnReload) -> Authenticator:
    if identity.mtls is not None:
        trusted = WatchedFiles(
            [identity.mtls.client_ca_file],
            lambda files: _parse_certificates(files[0], "client_ca_file"),
            what="client CAs",
            on_reload=on_reload,
        )
        return CertificateAuthenticator(trusted=trusted.current, now=clock.now)
    assert identity.jwt is not None  # noqa: S101  # settings/server.py: exactly one
    return TokenAuthenticator(
        keys=_token_keys(identity.jwt, clock, on_reload),
        issuer=identity.jwt.issuer,
        audience=identity.jwt.audience,
        algorithms=identity.jwt.algorithms,
        leeway_seconds=identity.jwt.leeway_seconds,
    )


def _token_keys(settings: JwtSettings, clock: Clock, on_reload: OnReload) -> Keys:
    if settings.jwks_url is None:
        assert settings.jwks_file is not None  # noqa: S101  # settings/server.py: exactly one
        return FileKeys(_watched_jwks(settings.jwks_file, on_reload).current)
    return UrlKeys(
        settings.jwks_url.get_secret_value(),
        ca_file=settings.jwks_ca_file,
        cache_seconds=settings.jwks_cache_seconds,
        monotonic=clock.monotonic,
    )


def _watched_jwks(path: Path, on_reload: OnReload) -> WatchedFiles[KeySet]:
    def parse(files: Sequence[bytes]) -> KeySet:
        try:
            return parse_jwks(files[0])
        except ValueError as error:
            raise ConfigurationError(f"server.identity.jwt.jwks_file: {error}") from None

    return WatchedFiles([path], parse, what="token keys", on_reload=on_reload)


def _parse_tls(files: Sequence[bytes]) -> ServerTls:
    """A private key and a certificate that do not belong together would fail every handshake."""
    chain, private_key, *client_ca = files
    leaf = _parse_certificates(chain, "certificate_file")[0]
    try:
        public = load_pem_private_key(private_key, None).public_key()
    except (ValueError, TypeError):
        raise ConfigurationError("server.tls.private_key_file: not an unencrypted private key in PEM") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise ConfigurationError("server.tls: the private key is not that of the certificate")
    if client_ca:
        _parse_certificates(client_ca[0], "client_ca_file")
    return ServerTls(certificate_chain=chain, private_key=private_key, client_ca=client_ca[0] if client_ca else None)


def _parse_certificates(content: bytes, key: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ConfigurationError(f"{key}: no certificates in PEM") from None
