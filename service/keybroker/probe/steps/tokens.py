"""Import tokens: their length, and whether an older one still works. Contract 9.3, 9.4.

Leaves a CMK with known material for the steps after it.
"""

from keybroker.adapters.kms.signing import canonical_query
from keybroker.probe.bench import NEVER, Bench, Wrapped
from keybroker.probe.findings import Answer, could_not_tell
from keybroker.probe.kms_calls import Exchange
from keybroker.probe.throwaways import CannotTell, Cmk


def ask_tokens(bench: Bench) -> list[Answer]:
    """Two pairs for one CMK; the material is sent under the older one, and if that is refused under the newer."""
    cmk = bench.subject
    if cmk is None:
        raise CannotTell("there is no CMK to import into")
    material = bench.new_material()
    older, got_older = bench.parameters(cmk, what="the older pair")
    newer, got_newer = bench.parameters(cmk, what="the newer pair")
    under_older, under_newer = bench.wrap(material, older), bench.wrap(material, newer)
    answers = [_length(cmk, under_newer, got_older, got_newer)]
    first = bench.send(cmk, under_older, what="import with the older token")
    if first.accepted:
        bench.material, bench.bound_by, bench.first_import = material, under_older, first.evidence
        return [*answers, _older(first, newest_only=False)]
    second = bench.send(cmk, under_newer, what="the same material with the newer token")
    if second.accepted:
        bench.material, bench.bound_by = material, under_newer
    if first.refused and second.accepted:
        bench.first_import = second.evidence
        return [*answers, _older(first, second, newest_only=True)]
    why = "the newer token did not work either" if first.refused else "the older token got no clear answer"
    return [*answers, could_not_tell("older_token", why, first.evidence, second.evidence)]


def _older(*exchanges: Exchange, newest_only: bool) -> Answer:
    said = f" ({exchanges[0].evidence.code})" if newest_only else ""
    return Answer(
        "older_token",
        "refused" if newest_only else "valid",
        f"the older of two unexpired tokens is {'refused' if newest_only else 'taken'}{said}",
        tuple(exchange.evidence for exchange in exchanges),
        {"newest_token_only": newest_only},
    )


def _length(cmk: Cmk, wrapped: Wrapped, *exchanges: Exchange) -> Answer:
    """Lengths in characters; the query is that of an ImportKeyMaterial with every parameter."""
    tokens = [str(exchange.body["ImportToken"]) for exchange in exchanges]
    parameters = {
        "KeyId": cmk.name.key_id,
        "EncryptedKeyMaterial": wrapped.blob_b64,
        "ImportToken": wrapped.import_token,
        "KeyMaterialExpireUnix": NEVER,
    }
    measured = {
        "import_token_characters": max(map(len, tokens)),
        "import_query_characters": len(canonical_query(parameters.items())),
    }
    detail = "{import_token_characters} characters; {import_query_characters} in the query of an import".format(
        **measured
    )
    evidence = tuple(exchange.evidence for exchange in exchanges)
    return Answer("import_token_length", "measured", detail, evidence, measured=measured)
