"""No secret in anything that a broker writes, shows or tells while it does all that it can do."""

import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from keymaterial.v1 import key_broker_service_pb2 as pb
from tests.canaries.caller import MEANT_FOR_THE_CALLER, SERVICE
from tests.canaries.run import HAYSTACKS, Haystack, Run

pytestmark = [pytest.mark.xdist_group("canaries")]


@pytest.mark.parametrize("haystack", HAYSTACKS.values(), ids=HAYSTACKS)
def test_haystack_has_no_secret(run: Run, haystack: Haystack) -> None:
    content = haystack.read(run)
    assert haystack.holds in content
    assert run.search.findings(content) == []


@pytest.mark.parametrize(
    ("kind", "least"), [("key material", 20), ("wrapped material", 25), ("import token", 20), ("bearer token", 10)]
)
def test_secrets_of_each_kind_were_there(run: Run, kind: str, least: int) -> None:
    assert run.planted.count(kind) >= least


def test_every_rpc_was_called_and_all_but_the_harmless_failed_too(run: Run) -> None:
    codes = {
        method.name: Counter(told.code for told in run.told if told.method == method.name) for method in SERVICE.methods
    }
    assert all(counted["OK"] and len(counted) > 1 for counted in codes.values()), codes
    assert set(codes["ImportExternalKey"]) >= {"ABORTED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNKNOWN", "UNAVAILABLE"}


def test_token_is_where_it_is_meant_to_be_and_the_search_finds_it(run: Run) -> None:
    for method, field in MEANT_FOR_THE_CALLER.items():
        assert field in getattr(pb, f"{method}Response").DESCRIPTOR.fields_by_name
        answers = [told for told in run.told if told.method == method and told.response is not None]
        found = {
            finding.secret.rpartition(" ")[0]
            for told in answers
            for finding in run.search.findings(told.message(whole=True))
        }
        assert found == {"import token"}


def test_ledger_in_flight_had_the_secrets_sealed(run: Run) -> None:
    with closing(sqlite3.connect(run.folder / "copy in flight" / "ledger.db")) as ledger:
        sealed = ledger.execute(
            "SELECT count(*) FROM attempts WHERE sealed_token IS NOT NULL AND sealed_blob IS NOT NULL"
        )
        assert sealed.fetchone()[0] >= 1
