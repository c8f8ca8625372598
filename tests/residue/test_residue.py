"""What is left of key material in a broker's memory after imports that succeed, fail, are refused and cancelled.

The protections that would keep a core image from being made are off, since the measurement is of what they protect;
tests/residue/test_protections.py has them.
"""

import sqlite3
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from keybroker_client import KeyBrokerError
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from kms_emulator import Fault
from tests.residue.memory import residues_in_file
from tests.residue.site import PATIENCE_SECONDS, Site

IMPORT = "ImportKeyMaterial"
IN_FLIGHT = 20
EACH_KIND = 6


def hold(site: Site, key_ids: list[str]) -> None:
    """Imports them, the first 20 held until all of these were unwrapped; says where their material is meanwhile."""
    site.emulator.faults.add(Fault(operation=IMPORT, when="after", action="hold", count=IN_FLIGHT))
    imports = site.imports(key_ids)
    site.emulator.wait_until_held(IN_FLIGHT, timeout_seconds=PATIENCE_SECONDS)
    places = site.residues()
    assert [len(numbers) for numbers in places.values()] == [IN_FLIGHT], places
    site.emulator.release_held()
    for answer in imports:
        answer.result()


def fail(site: Site, key_ids: list[str]) -> None:
    """The KMS takes the material and does not answer in time."""
    site.emulator.faults.add(Fault(operation=IMPORT, when="after", action="delay", delay_seconds=30, count=0))
    reasons = {reason_of(answer) for answer in site.imports(key_ids, seconds=5)}
    assert reasons <= {"IMPORT_UNRESOLVED", ""}, reasons  # "" where the broker's answer comes too late
    site.emulator.faults.clear()


def be_refused(site: Site, key_ids: list[str]) -> None:
    """The KMS says that it could not unwrap it."""
    site.refuses = True
    assert {reason_of(answer) for answer in site.imports(key_ids)} == {"GENERATED_MATERIAL_REFUSED"}
    site.refuses = False


def cancel(site: Site, key_ids: list[str]) -> None:
    """The caller goes away while the KMS has it."""
    site.emulator.faults.add(Fault(operation=IMPORT, when="after", action="hold", count=len(key_ids)))
    with grpc.insecure_channel(site.address) as channel:
        stub = KeyBrokerServiceStub(channel)
        calls = [
            stub.ImportExternalKey.future(pb.ImportExternalKeyRequest(request_id=uuid(number), key_id=key_id))
            for number, key_id in enumerate(key_ids)
        ]
        site.emulator.wait_until_held(len(key_ids), timeout_seconds=PATIENCE_SECONDS)
        assert all(call.cancel() for call in calls)
    site.emulator.release_held()


def lose_the_ledger(site: Site, key_ids: list[str]) -> None:
    """What the KMS answered can't be recorded: the one course here that ends by an exception while material is held."""
    site.emulator.faults.add(Fault(operation=IMPORT, when="after", action="hold", count=len(key_ids)))
    imports = site.imports(key_ids)
    site.emulator.wait_until_held(len(key_ids), timeout_seconds=PATIENCE_SECONDS)
    with closing(sqlite3.connect(site.ledger, isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        site.emulator.release_held()
        assert {reason_of(answer) for answer in imports} == {"IMPORT_UNRESOLVED"}
        another.execute("ROLLBACK")


def uuid(number: int) -> str:
    return f"5b0c1d7e-0000-4000-8000-{number:012}"


def reason_of(answer: Future[Any]) -> str:
    try:
        answer.result()
    except KeyBrokerError as error:
        return error.reason
    return ""


COURSES = (fail, be_refused, cancel, lose_the_ledger)


def test_nothing_is_left_of_imported_failed_refused_and_cancelled_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Site(tmp_path, monkeypatch=monkeypatch, dump_protection=False) as site:
        hold(site, site.new_keys(60))
        site.wait_until_idle()
        assert len(site.unwrapped) == 60
        assert site.residues() == {}
        for course in COURSES:
            course(site, site.new_keys(EACH_KIND))
            site.wait_until_idle()
            assert site.residues() == {}, course
        assert len(site.unwrapped) == 60 + len(COURSES) * EACH_KIND
        assert residues_in_file(site.core_image(), site.unwrapped) == set()


def test_without_wiping_every_key_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Site(tmp_path, "unwiped", monkeypatch=monkeypatch, dump_protection=False) as site:
        hold(site, site.new_keys(IN_FLIGHT))
        for course in COURSES:
            course(site, site.new_keys(EACH_KIND))
        site.wait_until_idle()
        everything = set(range(len(site.unwrapped)))
        assert set().union(*site.residues().values()) == everything
        assert residues_in_file(site.core_image(), site.unwrapped) == everything
