"""The whole run: a broker with a secret in every place, every RPC, a death in flight, and all that was written down."""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from kms_emulator import Emulator
from tests.canaries import course
from tests.canaries.brokers import BrokerProcess, Estate, running, wait_until
from tests.canaries.caller import Caller, Told
from tests.canaries.planted import Planted, Witness, watched_emulator
from tests.canaries.search import Search
from tests.unit.adapters_kms.credential_doubles import Answer, Asked, double, reply_json


@dataclass
class Run:
    """What was planted, and where it may have got to."""

    folder: Path
    planted: Planted = field(default_factory=Planted)
    told: list[Told] = field(default_factory=list)
    stderr: bytes = b""
    stdout: bytes = b""
    pages: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    search: Search = field(init=False)

    def keep_pages(self, broker: BrokerProcess) -> None:
        """What the HTTP port shows now."""
        secret = self.planted.text("password")
        for path in ("/metrics", "/livez", "/readyz", f"/{self.planted.text('path')}"):
            page = broker.get(path, Authorization=f"Bearer {secret}", Cookie=secret)
            self.pages[path] = self.pages.get(path, b"") + page

    def keep_files(self, moment: str) -> None:
        """What the ledger, its mark and the audit log are now: file by file, with those of SQLite beside it."""
        for name in ("ledger", "mark", "audit"):
            content = b"".join(path.read_bytes() for path in sorted((self.folder / name).iterdir()))
            self.files[f"{name} {moment}"] = content
        copy = self.folder / f"copy {moment}"
        shutil.copytree(self.folder / "ledger", copy)

    def keep_output(self, broker: BrokerProcess) -> None:
        """What the process has written."""
        self.stderr += broker.stderr()
        self.stdout += broker.stdout()


@dataclass(frozen=True)
class Haystack:
    """Something that was written down. `holds` is in it if it is what it should be; b"" where it may be empty."""

    read: Callable[[Run], bytes]
    holds: bytes = b""


HAYSTACKS: Mapping[str, Haystack] = {
    "standard error at DEBUG": Haystack(lambda run: run.stderr, b'"event": "call"'),
    "standard output": Haystack(lambda run: run.stdout, b'"outcome"'),
    "pages of the HTTP port": Haystack(lambda run: b"".join(run.pages.values()), b"keybroker_imports_in_flight"),
    "messages of errors": Haystack(lambda run: "\n".join(told.details for told in run.told).encode(), b"CMK"),
    "metadata and details of errors": Haystack(
        lambda run: b"\n".join(
            name.encode() + b"=" + (value if isinstance(value, bytes) else value.encode())
            for told in run.told
            for name, value in told.metadata
        ),
        b"IMPORT_UNRESOLVED",
    ),
    "answers": Haystack(lambda run: b"\n".join(told.message() for told in run.told), b"key_check_value"),
    "ledger while material is in flight": Haystack(lambda run: run.files["ledger in flight"], b"PREPARED"),
    "ledger after a kill -9": Haystack(lambda run: run.files["ledger after the kill"], b"PREPARED"),
    "ledger at the end": Haystack(lambda run: run.files["ledger at the end"], b"IMPORTED"),
    "mark": Haystack(lambda run: run.files["mark in flight"] + run.files["mark at the end"]),
    "audit log": Haystack(lambda run: run.files["audit in flight"] + run.files["audit at the end"], b'"outcome"'),
    "receipts": Haystack(
        lambda run: "\n".join(getattr(told.response, "receipt", "") for told in run.told).encode(), b"eyJ"
    ),
}
"""Each is looked through for all that is planted. One that belongs here is one more line."""


def whole_run(folder: Path) -> Run:
    """Takes some seconds."""
    run, witness = Run(folder), Witness()
    estate = Estate(folder, run.planted)
    estate.make_token()
    keys = [estate.access_key, estate.uri_key]
    with double(lambda asked: _credentials(estate, asked)) as uri, watched_emulator(witness, keys) as emulator:
        configuration = estate.configuration(emulator.endpoint, uri.url)
        requests = _first_life(run, estate, emulator, configuration)
        _second_life(run, estate, configuration, requests)
    run.keep_files("at the end")
    witness.plant(run.planted)
    run.search = run.planted.search()
    return run


def _first_life(
    run: Run, estate: Estate, emulator: Emulator, configuration: dict[str, object]
) -> list[dict[str, object]]:
    """Ends by SIGKILL while material is in flight."""
    with running(estate, "first", configuration) as broker, ThreadPoolExecutor(2) as pool:
        caller = Caller(estate, broker.address, run.told)
        course.exercise(caller, emulator, run.planted)
        _spoil_files(estate, broker)
        run.keep_pages(broker)
        requests = course.hold_in_flight(caller, emulator, pool)
        run.keep_files("in flight")
        run.keep_pages(broker)
        broker.process.kill()
        broker.process.wait()
        caller.close()
    run.keep_files("after the kill")
    run.keep_output(broker)
    emulator.faults.clear()
    emulator.release_held()
    return requests


def _second_life(run: Run, estate: Estate, configuration: dict[str, object], requests: list[dict[str, object]]) -> None:
    """Goes on with what is unfinished, with an HSM that refuses the PIN; ends by SIGTERM."""
    estate.write("pin", run.planted.text("PIN").encode())
    with running(estate, "second", configuration) as broker:
        caller = Caller(estate, broker.address, run.told)
        for request in requests:
            caller.call("ImportExternalKey", seconds=3.0, **request)
            caller.call("GetImport", request_id=request["request_id"])
        refused = caller.call("ImportExternalKey", request_id=str(uuid4()), new_key=course.NEW_KEY)
        assert refused.code == "UNAVAILABLE", refused
        run.keep_pages(broker)
        caller.close()
        broker.process.terminate()
        assert broker.process.wait(timeout=20) == 0
    run.keep_output(broker)


def _spoil_files(estate: Estate, broker: BrokerProcess) -> None:
    """Files that are read again, with something in them that is not to be quoted; then as they were."""
    before = {name: (estate.folder / name).read_bytes() for name in ("policy.yaml", "tls.key", "jwks.json")}
    for name in before:
        path = estate.write(name, f'{{"rules": [{estate.planted.text("spoilt file")}, :'.encode())
        os.utime(path, (1.0, 1.0))  # nobody is still writing it
    wait_until(lambda: _looks_again(estate, broker) == len(before))
    for name, content in before.items():
        estate.write(name, content)


def _looks_again(estate: Estate, broker: BrokerProcess) -> int:
    """Makes the broker look at its files; the number of those that it refuses."""
    caller = Caller(estate, broker.address, [])
    caller.call("GetImport", request_id=str(uuid4()))
    caller.close()
    return len(broker.logged("reload refused"))


def _credentials(estate: Estate, asked: Asked) -> Answer:
    assert estate.uri_path in asked.path
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    return reply_json(
        {
            "Code": "Success",
            "AccessKeyId": estate.uri_key.access_key_id,
            "AccessKeySecret": estate.uri_key.access_key_secret,
            "SecurityToken": estate.uri_key.security_token,
            "Expiration": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
