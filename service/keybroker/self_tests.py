"""Start-up self-tests: what the broker does with keys and requests, tried on known values before it serves.

They find a build, a library or a machine that computes wrongly. They say nothing about the source of randomness, which
is tested apart (adapters/entropy/health.py), nor about the KMS. Part of the composition root.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPrivateNumbers,
    RSAPublicNumbers,
    rsa_crt_dmp1,
    rsa_crt_dmq1,
    rsa_crt_iqmp,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from requests import Request

from keybroker.adapters.kms.credentials import Credentials
from keybroker.adapters.kms.signing import Acs3Auth
from keybroker.adapters.receipts import ReceiptKey
from keybroker.domain.external_key import CmkName
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.key_material import generate
from keybroker.domain.wrapping import WRAPPING_ALGORITHMS, WrappingAlgorithm

_Test = Callable[[], bool]

_MATERIAL = bytes(range(32))
_E = 65537
_P = int(
    "fb4057df16d47ee8569968e9385e2849311520ec4486b567eddf4e24783a17a63f5e29deff1900cfdf78ea819f9202b6"
    "123ca1312855ace36ddc19ca12b9cd1d59d85e41a02315e9e501e1860869986dc33f0320d54cbe4eb5938dfc25b13f9c"
    "9e0dd3a034d4d1799ee14272b9d4d0e484e5d6d847f745aba23edc31f109115d",
    16,
)
_Q = int(
    "d38e82b8a0c9cea966b1a63f3f4d30faffe019755e4e734f99cf8214043e7bc44a2dda470e5b962ec40d949eb7edea8a"
    "09d3f14b794ac44eef06bb535ac00338a26f79484fff9004b20c74ac83ce0e716f39ce6addf61e750873e778c1c4cb10"
    "5eab02da0bfbc3abc0a3058f4bf487625408eb8fdb0282c2bc6e16a988c823b1",
    16,
)
"""The primes of a pair that was made for this test and protects nothing. To make one takes up to seconds."""

_CHECK_VALUES = {
    "2b7e151628aed2a6abf7158809cf4f3c": "7ad386",
    "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b": "3a072a",
    "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4": "1a0b2d",
}
"""Keys of NIST SP 800-38B appendix D, with the AES-CMAC of a zero block as OpenSSL's own command computes it."""

_SIGNATURE = "36db289b5928f2733e1817f2892852e508dac62a3aa60b3f416e0f0e9aa080b6"
"""Contract 3.3, vector A."""

_RECEIPT_KEY = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
_RECEIPT_SIGNATURE = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
    "d25bf5f0595bbe24655141438e7a100b"
)
"""RFC 8032 §7.1, test 1: the secret key, and the signature of nothing."""


class SelfTestFailed(Exception):  # noqa: N818  # reads as what it says
    """The text names the test; the broker does not serve."""


def run_self_tests(receipt_key: ReceiptKey | None = None) -> None:
    """Runs all of them: about 30 ms. `receipt_key` is the one that receipts are signed with. Raises SelfTestFailed."""
    tests: dict[str, _Test] = {
        "wrapping": _wraps,
        "check value": _checks,
        "signature": _signs,
        "receipts": lambda: _signs_receipts(receipt_key),
    }
    for name, test in tests.items():
        try:
            passed = test()
        except Exception as error:
            raise SelfTestFailed(f"the self-test of the {name} failed ({type(error).__name__})") from error
        if not passed:
            raise SelfTestFailed(f"the self-test of the {name} failed")


def _wraps() -> bool:
    """What is wrapped with each algorithm opens with the private key, and with it only as what it was."""
    pair = _pair()
    with generate(len(_MATERIAL), fill=_fill) as material:
        return all(
            pair.decrypt(material.wrap(_parameters(pair, algorithm)), algorithm.padding) == _MATERIAL
            for algorithm in WRAPPING_ALGORITHMS.values()
        )


def _checks() -> bool:
    return all(key_check_value(bytes.fromhex(key)).value.hex() == value for key, value in _CHECK_VALUES.items())


def _signs() -> bool:
    auth = Acs3Auth(
        Credentials("LTAIexampleAccessKey0", "exampleSecret1234567890abcdefgh", ""),
        action="GetParametersForImport",
        now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        nonce=lambda: "3156853299f313e23d1673dc12e1703d",
    )
    query = "KeyId=key-hzz62f1cb66fa42qo0000&WrappingAlgorithm=RSAES_OAEP_SHA_256&WrappingKeySpec=RSA_2048"
    request = Request("POST", f"https://kms.cn-hangzhou.aliyuncs.com/?{query}", auth=auth).prepare()
    return request.headers["Authorization"].endswith(f",Signature={_SIGNATURE}")


def _signs_receipts(key: ReceiptKey | None) -> bool:
    """A known signature; then the broker's own key, as far as there is one, takes what it signed."""
    known = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(_RECEIPT_KEY)).sign(b"").hex()
    return known == _RECEIPT_SIGNATURE and (key is None or key.verifies(key.sign(b"a self-test", typ="self-test")))


def _fill(buffer: memoryview) -> None:
    buffer[:] = _MATERIAL


def _pair() -> RSAPrivateKey:
    d = pow(_E, -1, (_P - 1) * (_Q - 1))
    return RSAPrivateNumbers(
        p=_P,
        q=_Q,
        d=d,
        dmp1=rsa_crt_dmp1(d, _P),
        dmq1=rsa_crt_dmq1(d, _Q),
        iqmp=rsa_crt_iqmp(_P, _Q),
        public_numbers=RSAPublicNumbers(_E, _P * _Q),
    ).private_key()


def _parameters(pair: RSAPrivateKey, algorithm: WrappingAlgorithm) -> ImportParameters:
    return ImportParameters(
        cmk=CmkName("", "", ""),
        algorithm=algorithm,
        wrapping_public_key_der=pair.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        import_token="",
        expires_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
