"""A whole import over any replies: IMPORTED only on the KMS's own word, never "not imported" of what is bound.

The broker's KMS client with its guard and the use cases; a real emulator, so that what is bound is known.
"""

import itertools
import json
import logging
from collections.abc import Iterator
from uuid import uuid4

import pytest
from hypothesis import given

from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials
from keybroker.adapters.ledger.sealing import random_keyring
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.assembly import Assembly, Choices, Ports
from keybroker.domain.attempt import Attempt
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference
from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.receipt import payload
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256
from keybroker.kms_guards import KmsGuards
from keybroker.settings import PacingSettings
from keybroker.telemetry.metrics import Metrics
from keybroker.usecases.asked import Asked
from keybroker.usecases.progress import Progress
from kms_emulator import AccessKey, Emulator, EmulatorSettings
from kms_emulator.readings import Readings
from tests.builders import CountingEntropy
from tests.certificates import Authority
from tests.fuzz.clocks import SleeplessClock
from tests.fuzz.examples import fuzzed
from tests.fuzz.judging import judge_text
from tests.fuzz.replies import Made
from tests.fuzz.tampering import Step, Tamperer, plans, tells_success
from tests.unit.adapters_kms.support import ScriptedServer, sends, serving

ACCESS_KEY = AccessKey("LTAIexample", "secret")
METRICS = Metrics()
IMPORTED = "IMPORTED"
OPEN = {Reason.IMPORT_UNRESOLVED, Reason.ENABLED_UNATTRIBUTED}
"""What may be told of an import whose material is bound and of which no success was heard."""


class Site:
    """A broker of one example, and what is true of its CMK."""

    def __init__(self, emulator: Emulator, server: ScriptedServer, bundle: object, plan: dict[str, list[Step]]) -> None:
        clock = SleeplessClock()
        self.emulator, self.clock = emulator, clock
        self.key_id = emulator.create_key()
        self.request_id = str(uuid4())
        self.tamperer = server.script = Tamperer(emulator, server, plan)
        client = KmsClient(
            name="main",
            region="cn-hangzhou",
            endpoint=f"http://{server.address}",
            dkms_instance_id="kst-example",
            credentials=lambda: Credentials(ACCESS_KEY.access_key_id, ACCESS_KEY.access_key_secret),
            clock=clock,
            ca_bundle=bundle,  # type: ignore[arg-type]
            allow_emulator=True,
        )
        self.kms = KmsGuards(PacingSettings(enabled=False), clock=clock, metrics=METRICS).guarded(
            client, quota_group=""
        )
        ledger = SqliteLedger(keyring=random_keyring(), clock=clock)
        ledger.connect()
        ports = Ports(
            instances=[self.kms], ledger=ledger, clock=clock, entropy=CountingEntropy(), receipt=self._receipt
        )
        self.assembly = Assembly(ports, Choices())
        self._ledger = ledger
        self._signed = itertools.count()

    def _receipt(self, row: Attempt) -> str:
        """What would be signed, and another one each time."""
        return f"{next(self._signed)} {payload(row, version='1', issued_at=self.clock.now()).decode()}"

    @property
    def receipt(self) -> str:
        """As recorded."""
        row = self._ledger.find("a caller", self.request_id)
        return row.receipt if row is not None else ""

    def close(self) -> None:
        self.kms.close()
        self._ledger.close()

    def told(self) -> str:
        """IMPORTED with the right check value, or the reason, in our words."""
        try:
            answer = self.assembly.import_external_key.run(
                self.kms,
                Asked("a caller", self.request_id),
                KeyReference(self.key_id),
                RSAES_OAEP_SHA_256,
                allow_second_key=False,
                progress=Progress(),
                deadline=Deadline.after(15, monotonic=self.clock.monotonic),
            )
        except BrokerError as error:
            judge_text(error.message)
            assert self.receipt == ""
            return error.reason
        material = self.emulator.bound_material(self.key_id)
        assert material is not None
        assert answer.attempt.check_value == key_check_value(material).value
        successes = [
            made for action, made in self.tamperer.delivered if action == "ImportKeyMaterial" and tells_success(made)
        ]
        assert successes
        assert answer.attempt.receipt == self.receipt
        self._judge_receipt(successes)
        return IMPORTED

    def _judge_receipt(self, successes: list[Made]) -> None:
        """It claims what was heard: the RequestId of a success, a CMK that was shown with material."""
        claims = json.loads(self.receipt.partition(" ")[2])
        request_id = claims["kms"]["accepted"].get("request_id", "")
        assert any(request_id.encode() in made.sent for made in successes)
        assert claims["kms"]["described"]["state"] in {"Enabled", "Disabled"}
        assert claims["evidence"]["kind"] == "ACCEPTED"
        assert 0 <= claims["sends"]["without_effect"] < claims["sends"]["recorded"]

    @property
    def is_bound(self) -> bool:
        return self.emulator.bound_material(self.key_id) is not None


@pytest.fixture(scope="module", params=[True, False], ids=["re-import allowed", "re-import refused"])
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    readings = Readings(same_material_reimport=request.param)
    with Emulator(EmulatorSettings(access_keys=(ACCESS_KEY,), rsa_key_pool=2, readings=readings)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)
    with serving(sends(b"")) as server:
        yield server


def test_import_over_any_replies_tells_no_more_than_is_known(
    emulator: Emulator, server: ScriptedServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = tmp_path_factory.mktemp("trust") / "ca.crt"
    bundle.write_bytes(Authority().pem)
    met = set()

    @fuzzed(0.8)
    @given(plan=plans())
    def prop(plan: dict[str, list[Step]]) -> None:
        site = Site(emulator, server, bundle, plan)
        try:
            first, receipt = site.told(), site.receipt
            met.add(first)
            assert first == IMPORTED or not site.is_bound or first in OPEN, first
            assert first not in {Reason.NOT_IMPORTED, Reason.INTERNAL}
            site.tamperer.give_up()
            again = site.told()
            assert again == first or first not in {IMPORTED, Reason.ENABLED_UNATTRIBUTED}
            assert site.receipt == receipt or first != IMPORTED
        finally:
            site.close()

    prop()
    assert IMPORTED in met
    assert met & OPEN
