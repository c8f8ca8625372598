"""What a CMK with material allows: proof by Encrypt, the same material again, other material, deletion of the material.

Contract 1.10, 9.1, 9.2. In this order: a CMK that took other material, or lost its own, could answer nothing else.
"""

import base64
import binascii
import secrets

from keybroker.probe.bench import Bench
from keybroker.probe.findings import Answer, could_not_tell
from keybroker.probe.kms_calls import Exchange
from keybroker.probe.material import IV_LENGTH_BYTES, VERSION_ID_LENGTH

_NONCE_BYTES = 32
_TAG_BYTES = 16


def ask_encrypt_layout(bench: Bench) -> list[Answer]:
    """Has a nonce encrypted and opens it here with the material."""
    question = "encrypt_layout"
    cmk, material, _ = bench.bound()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    asked = {"KeyId": cmk.name.key_id, "Plaintext": base64.b64encode(nonce).decode()}
    exchange = bench.calls.call("Encrypt", asked, what="encrypt a nonce")
    if not exchange.accepted:
        why = "Encrypt was not served (Internet access of the instance may be off)"
        return [could_not_tell(question, why, exchange.evidence)]
    blob = _decoded(exchange.body.get("CiphertextBlob"))
    if material.opens(blob, plaintext=nonce):
        detail = "the material opens it: version id, IV, AES-GCM"
        return [Answer(question, "proved", detail, (exchange.evidence,), emulator_agrees=True)]
    named = blob[:VERSION_ID_LENGTH] == str(exchange.body.get("KeyVersionId")).encode()
    expected = VERSION_ID_LENGTH + IV_LENGTH_BYTES + _NONCE_BYTES + _TAG_BYTES
    why = (
        f"could not prove: the material does not open the blob; it has {len(blob)} bytes (documented: {expected}) and "
        f"{'starts' if named else 'does not start'} with the key version id"
    )
    return [could_not_tell(question, why, exchange.evidence)]


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""


def ask_same_material(bench: Bench) -> list[Answer]:
    """The identical request again, as the broker repeats it, and the same material under a new pair."""
    question = "same_material_reimport"
    cmk, material, bound_by = bench.bound()
    identical = bench.send(cmk, bound_by, what="the identical import again")
    pair, _ = bench.parameters(cmk, what="a new pair")
    rewrapped = bench.send(cmk, bench.wrap(material, pair), what="the same material under a new pair")
    both = (identical, rewrapped)
    evidence = tuple(exchange.evidence for exchange in both)
    detail = f"identical request: {_said(identical)}; same material under a new pair: {_said(rewrapped)}"
    if not all(exchange.accepted or exchange.refused for exchange in both):
        return [could_not_tell(question, detail, *evidence)]
    if identical.accepted != rewrapped.accepted:
        return [Answer(question, "mixed", detail, evidence, emulator_agrees=False)]
    verdict = "accepted" if identical.accepted else "refused"
    return [Answer(question, verdict, detail, evidence, {question: identical.accepted})]


def ask_different_material(bench: Bench) -> list[Answer]:
    """Other material under a new pair. That it is taken would break what the broker is built on."""
    question = "different_material"
    cmk, _, _ = bench.bound()
    pair, _ = bench.parameters(cmk, what="a new pair")
    exchange = bench.send(cmk, bench.wrap(bench.new_material(), pair), what="other material")
    if exchange.accepted:
        detail = "OTHER MATERIAL WAS TAKEN: a CMK is not bound to its first material"
        return [Answer(question, "accepted", detail, (exchange.evidence,), emulator_agrees=False)]
    return [_refused(question, exchange, "InvalidKeyMaterial")]


def ask_delete_key_material(bench: Bench) -> list[Answer]:
    """DeleteKeyMaterial on the CMK with material."""
    question = "delete_key_material"
    cmk, _, _ = bench.bound()
    exchange = bench.calls.call("DeleteKeyMaterial", {"KeyId": cmk.name.key_id}, what="delete the material")
    if exchange.accepted:
        key, described = bench.describe(cmk, what="the state after DeleteKeyMaterial")
        detail = f"accepted; the CMK is {key.state if key else 'in a state that could not be read'} after it"
        return [Answer(question, "accepted", detail, (exchange.evidence, described.evidence), emulator_agrees=False)]
    return [_refused(question, exchange, "Rejected.UnsupportedOperation")]


def _refused(question: str, exchange: Exchange, emulated_code: str) -> Answer:
    if not exchange.refused:
        return could_not_tell(question, _said(exchange), exchange.evidence)
    agrees = (exchange.evidence.http_status, exchange.evidence.code) == (400, emulated_code)
    detail = f"{exchange.evidence.http_status} {exchange.evidence.code}"
    return Answer(question, "refused", detail, (exchange.evidence,), emulator_agrees=agrees)


def _said(exchange: Exchange) -> str:
    evidence = exchange.evidence
    return (
        "accepted"
        if exchange.accepted
        else f"{evidence.outcome}, {evidence.http_status or 'no status'} {evidence.code}"
    )
