"""Checks request fields and turns them into domain values. Everything here happens before anything goes upstream.

Each function names the field in its error. Limits: contract 1.1, 1.6, 1.8, 1.11; the comments in the .proto files.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote

from google.protobuf.duration_pb2 import Duration

from keybroker.domain.errors import InvalidField
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec
from keybroker.domain.wrapping import (
    RSAES_OAEP_SHA_256,
    RSAES_PKCS1_V1_5,
    WRAPPED_LENGTH_BYTES,
    WrappingAlgorithm,
)
from keymaterial.v1 import types_pb2

KEY_SPECS: Mapping[int, KeySpec] = {
    types_pb2.KEY_SPEC_AES_128: AES_128,
    types_pb2.KEY_SPEC_AES_192: AES_192,
    types_pb2.KEY_SPEC_AES_256: AES_256,
}
WRAPPING_ALGORITHMS: Mapping[int, WrappingAlgorithm] = {
    types_pb2.WRAPPING_ALGORITHM_UNSPECIFIED: RSAES_OAEP_SHA_256,
    types_pb2.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256: RSAES_OAEP_SHA_256,
    types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5: RSAES_PKCS1_V1_5,
}

MAX_DESCRIPTION_CHARACTERS = 8192
MAX_DESCRIPTION_ENCODED_BYTES = 16384  # so that CreateKey's request line, with 9 tags, stays below 48 KiB
MAX_TAGS = 9
MAX_TAG_CHARACTERS = 128
MAX_IMPORT_TOKEN_CHARACTERS = 16384
OWN_TAG_PREFIX = "keybroker."
PENDING_WINDOW_DAYS = range(7, 31)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_ARN = re.compile(r"acs:kms:(?P<region>[a-z0-9-]{1,64}):(?P<account>[0-9]{1,32}):key/(?P<key_id>.{1,64})")
_ALIAS = re.compile(r"alias/[A-Za-z0-9_/-]{1,255}")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


def request_id(value: str) -> str:
    """A UUID in text form, in lower case: the same UUID is the same request."""
    if not _UUID.fullmatch(value):
        raise InvalidField("request_id", "must be a UUID, as 36 characters 8-4-4-4-12 in hex.")
    return value.lower()


def key_reference(value: str, *, region: str, alias_allowed: bool = False) -> KeyReference:
    """A key id, an ARN of `region`, or an alias where one is allowed."""
    if value.startswith("alias/"):
        if not alias_allowed:
            raise InvalidField(
                "key_id", "must be a key id or an ARN, not an alias; DescribeKey tells an alias's key id."
            )
        if not _ALIAS.fullmatch(value):
            raise InvalidField("key_id", "is not a well-formed alias.")
        return KeyReference(value)
    account = ""
    if arn := _ARN.fullmatch(value):
        if arn["region"] != region:
            raise InvalidField("key_id", "is an ARN of another region than the instance's.")
        value, account = arn["key_id"], arn["account"]
    if not _KEY_ID.fullmatch(value):
        expected = "a key id (1 to 64 letters, digits and hyphens) or an ARN acs:kms:REGION:ACCOUNT:key/KEY_ID"
        raise InvalidField("key_id", f"must be {expected}{', or an alias' if alias_allowed else ''}.")
    return KeyReference(value, account)


def new_key(value: types_pb2.NewKey) -> NewKey:
    """What to create."""
    spec = KEY_SPECS.get(value.key_spec)
    if spec is None:
        raise InvalidField("new_key.key_spec", "must be KEY_SPEC_AES_128, KEY_SPEC_AES_192 or KEY_SPEC_AES_256.")
    return NewKey(spec, _description(value.description), _alias(value.alias), _tags(value.tags))


def _description(value: str) -> str:
    if len(value) > MAX_DESCRIPTION_CHARACTERS:
        raise InvalidField("new_key.description", f"must have at most {MAX_DESCRIPTION_CHARACTERS} characters.")
    if len(quote(value, safe="")) > MAX_DESCRIPTION_ENCODED_BYTES:
        raise InvalidField(
            "new_key.description",
            f"must have at most {MAX_DESCRIPTION_ENCODED_BYTES} bytes when percent-encoded "
            "(a character that is not ASCII counts 6 to 12).",
        )
    return value


def wrapping_algorithm(value: int) -> WrappingAlgorithm:
    """The algorithm asked for; OAEP if none was."""
    algorithm = WRAPPING_ALGORITHMS.get(value)
    if algorithm is None:
        raise InvalidField(
            "wrapping_algorithm",
            "must be WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256 or WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5, or left out.",
        )
    return algorithm


def wrapped_key_material(value: bytes) -> bytes:
    """An RSA-2048 ciphertext."""
    if len(value) != WRAPPED_LENGTH_BYTES:
        raise InvalidField(
            "wrapped_key_material",
            f"must be exactly {WRAPPED_LENGTH_BYTES} bytes, the RSA ciphertext itself and not its base64; "
            f"it has {len(value)}.",
        )
    return value


def import_token(value: str) -> str:
    """The KMS's opaque text."""
    if len(value) > MAX_IMPORT_TOKEN_CHARACTERS or not _VISIBLE_ASCII.fullmatch(value):
        raise InvalidField(
            "import_token",
            f"must be the import_token of GetImportParameters, unchanged: 1 to {MAX_IMPORT_TOKEN_CHARACTERS} visible "
            "ASCII characters, without white space.",
        )
    return value


def pending_window(value: Duration) -> timedelta:
    """A waiting period of whole days."""
    days, rest = divmod(value.seconds, 86400)
    if rest or value.nanos or days not in PENDING_WINDOW_DAYS:
        raise InvalidField(
            "pending_window",
            f"must be whole days, {PENDING_WINDOW_DAYS[0]} to {PENDING_WINDOW_DAYS[-1]} of them (7 days: 604800s).",
        )
    return timedelta(days=days)


def page(page_token: str) -> int:
    """The number of a page of ListOrphanedKeys, from 1."""
    if not page_token:
        return 1
    if not re.fullmatch(r"[1-9][0-9]{0,5}", page_token):
        raise InvalidField("page_token", "must be the next_page_token of the answer before.")
    return int(page_token)


def _alias(value: str) -> str:
    if value and not _ALIAS.fullmatch(value):
        raise InvalidField(
            "new_key.alias", 'must be "alias/" and 1 to 255 letters, digits, "_", "-" or "/"; leave it empty for none.'
        )
    if value.startswith("alias/acs"):
        raise InvalidField("new_key.alias", 'must not start with "alias/acs", which the KMS reserves.')
    return value


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    if len(tags) > MAX_TAGS:
        raise InvalidField("new_key.tags", f"must be at most {MAX_TAGS}.")
    for key, value in tags.items():
        if not 1 <= len(key) <= MAX_TAG_CHARACTERS or len(value) > MAX_TAG_CHARACTERS:
            raise InvalidField(
                "new_key.tags", f"must have keys of 1 to {MAX_TAG_CHARACTERS} and values of at most as many characters."
            )
        if key.startswith(("aliyun", "acs:")):
            raise InvalidField("new_key.tags", 'must not have a key that starts with "aliyun" or "acs:".')
        if key.startswith(OWN_TAG_PREFIX):
            raise InvalidField("new_key.tags", f'must not have a key that starts with "{OWN_TAG_PREFIX}".')
    return dict(tags)
