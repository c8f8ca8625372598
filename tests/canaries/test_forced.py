"""An exception in any function of a call, or at any named place, tells nobody anything but types and places."""

import re
from collections import Counter

import pytest

from tests.canaries.forced import Forced, Struck
from tests.canaries.places import named_places

pytestmark = [pytest.mark.xdist_group("strikes"), pytest.mark.timeout(600)]

OUTSIDE = {
    "rpc/interceptors/errors.py ErrorsInterceptor.intercept_service",
    "rpc/interceptors/errors.py ErrorsInterceptor.around",
    "rpc/interceptors/errors.py _status_of",
    "rpc/interceptors/unary.py UnaryInterceptor.intercept_service.<locals>.wrapped",
}
"""The net itself: what is raised before it is entered, or as it returns, nothing catches."""

SECRETS_OF_A_TRACEBACK = {
    "text of the exception",
    "import token",
    "wrapped material",
    "bearer token",
    "access-key secret",
    "STS token",
}
"""What is in the locals of the frames that an exception comes through. Nobody prints them: docs/threat-model.md."""


def strikes(forced: Forced) -> list[Struck]:
    return [made for made in forced.made if made.place not in OUTSIDE]


def test_forced_exception_lets_no_secret_out(forced: Forced) -> None:
    leaks = {(made.scenario, made.place): made.findings for made in strikes(forced) if made.findings}
    assert leaks == {}


def test_what_fails_outside_the_net_lets_out_its_own_text_only(forced: Forced) -> None:
    """As grpc does with what escapes; that it is seen here shows that it would be seen elsewhere."""
    outside = [made for made in forced.made if made.place in OUTSIDE]
    assert {made.place for made in outside} == OUTSIDE
    for made in outside:
        assert {finding.secret for finding in made.findings} == {"text of the exception"}


def test_every_named_place_was_struck(forced: Forced) -> None:
    assert len(named_places()) > 25
    assert forced.places == named_places()


@pytest.mark.parametrize(
    "part",
    [
        "adapters/kms/client.py KmsClient.import_key_material",
        "adapters/kms/signing.py Acs3Auth.__call__",
        "adapters/kms/transport.py Transport.post",
        "adapters/ledger/sqlite.py SqliteLedger.insert",
        "adapters/ledger/sqlite.py SqliteLedger.update",
        "domain/key_material.py KeyMaterial.wrap",
        "domain/key_material.py KeyMaterial.opens",
        "domain/key_check_value.py key_check_value",
        "rpc/handlers.py Handlers.import_external_key",
        "rpc/responses.py imported",
        "rpc/servicer.py KeyBrokerServicer.ImportExternalKey",
        "rpc/status.py trailing_metadata",
        "usecases/carry_on.py CarryOn._send",
        "usecases/carry_on.py CarryOn._rewrap",
        "adapters/identity/tokens.py TokenAuthenticator.authenticate",
        "adapters/audit/log.py ChainedAuditLog.write",
        "adapters/receipts.py ReceiptKey.sign",
        "usecases/trail.py Trail.before",
    ],
)
def test_functions_that_hold_secrets_or_write_what_is_kept_were_struck(forced: Forced, part: str) -> None:
    assert part in forced.functions


def test_nearly_every_strike_struck(forced: Forced) -> None:
    """Not those after sending of functions that were entered before it, and had begun."""
    missed = [made.place for made in forced.made if not made.struck]
    assert len(forced.made) > 400
    assert len(missed) < len(forced.made) / 25, missed


def test_exceptions_come_to_the_caller_as_unforeseen(forced: Forced) -> None:
    codes = Counter(made.code for made in strikes(forced) if made.struck)
    assert codes["INTERNAL"] > len(forced.made) / 2
    assert codes["UNKNOWN"] == 0


def test_log_has_type_and_place_of_what_was_unforeseen(forced: Forced) -> None:
    internal = [made for made in strikes(forced) if made.code == "INTERNAL" and '"event": "unforeseen"' in made.written]
    assert len(internal) > 200
    for made in internal:
        assert re.search(r'"exceptions": \["tests\.canaries\.strikes\.UnforeseenError at \w+:\d+', made.written), made


def test_secrets_were_at_hand_when_it_was_raised(forced: Forced) -> None:
    assert {secret for made in forced.made for secret in made.held} >= {
        "key material",
        "import token",
        "wrapped material",
        "bearer token",
        "access-key secret",
    }


def test_traceback_with_locals_would_show_tokens_and_wrapped_material_and_no_key_material(forced: Forced) -> None:
    """The material is wiped on the way out of every function that has it."""
    assert {secret for made in forced.made for secret in made.in_traceback} == SECRETS_OF_A_TRACEBACK
