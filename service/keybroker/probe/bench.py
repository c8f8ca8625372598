"""What the steps work with: the operations they share, and the CMK that most of them look at."""

import base64
from dataclasses import dataclass, field

from keybroker.adapters.kms.replies import read_import_parameters, read_key
from keybroker.domain.errors import BrokerError
from keybroker.domain.external_key import ExternalKey, KeyState
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, WRAPPING_KEY_SPEC
from keybroker.ports import Clock
from keybroker.probe.course import Course
from keybroker.probe.findings import Evidence, Interval
from keybroker.probe.kms_calls import Exchange, KmsCalls
from keybroker.probe.material import ThrowawayMaterial
from keybroker.probe.throwaways import SPEC, CannotTell, Cmk, Throwaways

NEVER = "0"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """Material under one wrapping public key, with the token that goes with it: what can be sent, and sent again."""

    blob_b64: str = field(repr=False)
    import_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """How DescribeKey came to show Enabled: PendingImport answers before it, and when, counted from the import."""

    pending_answers: int
    after: Interval
    evidence: tuple[Evidence, ...]


@dataclass(slots=True)
class Bench:
    """The tools of a run and what its steps leave for later ones.

    `subject` is the CMK with `material` bound, `bound_by` what bound it and `first_import` the request that did, where
    that is certain. `spare` is a CMK without material. `shown_first` and `shown_after_a_wait` are how Enabled came.
    """

    calls: KmsCalls
    course: Course
    clock: Clock
    throwaways: Throwaways
    region: str
    subject: Cmk | None = None
    material: ThrowawayMaterial | None = None
    bound_by: Wrapped | None = None
    first_import: Evidence | None = None
    spare: Cmk | None = None
    spare_state: str = ""
    shown_first: Shown | None = None
    shown_after_a_wait: Shown | None = None

    def new_material(self) -> ThrowawayMaterial:
        """Material of the length that the throwaway CMKs take."""
        return ThrowawayMaterial.new(SPEC.length_bytes)

    def bound(self) -> tuple[Cmk, ThrowawayMaterial, Wrapped]:
        """The CMK with known material. Raises CannotTell when no import was accepted."""
        if self.subject is None or self.material is None or self.bound_by is None:
            raise CannotTell("no CMK with key material known to the probe came about")
        return self.subject, self.material, self.bound_by

    def describe(self, cmk: Cmk, *, what: str, form: bool = False) -> tuple[ExternalKey | None, Exchange]:
        """DescribeKey; no key where the answer is not one."""
        exchange = self.calls.call("DescribeKey", {"KeyId": cmk.name.key_id}, what=what, form=form)
        try:
            return (read_key(exchange.body, region=self.region) if exchange.accepted else None), exchange
        except BrokerError:
            return None, exchange

    def parameters(self, cmk: Cmk, *, what: str) -> tuple[ImportParameters, Exchange]:
        """A new pair for RSAES_OAEP_SHA_256. Raises CannotTell."""
        asked = {
            "KeyId": cmk.name.key_id,
            "WrappingKeySpec": WRAPPING_KEY_SPEC,
            "WrappingAlgorithm": RSAES_OAEP_SHA_256.kms_name,
        }
        exchange = self.calls.call("GetParametersForImport", asked, what=what)
        if not exchange.accepted:
            raise CannotTell("GetParametersForImport gave no pair", exchange.evidence)
        try:
            pair = read_import_parameters(exchange.body, cmk=cmk.name, algorithm=RSAES_OAEP_SHA_256)
        except BrokerError as error:
            length = len(str(exchange.body.get("ImportToken", "")))
            why = f"{error.message} Its ImportToken has {length} characters."
            raise CannotTell(why, exchange.evidence) from None
        return pair, exchange

    def wrap(self, material: ThrowawayMaterial, pair: ImportParameters) -> Wrapped:
        """Raises CannotTell when the wrapping public key is not one to wrap with."""
        try:
            blob = material.wrap(pair)
        except BrokerError as error:
            raise CannotTell(error.message) from None
        return Wrapped(base64.b64encode(blob).decode(), pair.import_token)

    def send(self, cmk: Cmk, wrapped: Wrapped, *, what: str, expire_unix: str | None = NEVER) -> Exchange:
        """ImportKeyMaterial; `expire_unix` None leaves the parameter out."""
        parameters = {
            "KeyId": cmk.name.key_id,
            "EncryptedKeyMaterial": wrapped.blob_b64,
            "ImportToken": wrapped.import_token,
        }
        if expire_unix is not None:
            parameters["KeyMaterialExpireUnix"] = expire_unix
        return self.calls.call("ImportKeyMaterial", parameters, what=what)

    def watch(self, cmk: Cmk, imported: Evidence, *, patience_seconds: float, wait_seconds: float = 0.0) -> Shown:
        """DescribeKey until it says Enabled, first after `wait_seconds`, or for `patience_seconds` since the import."""
        self.course.wait(wait_seconds)
        pending: list[Evidence] = []
        last_seen = 0.0
        while self.clock.monotonic() - imported.answered_at < patience_seconds:
            key, exchange = self.describe(cmk, what="the state after the import")
            if key is not None and key.state is KeyState.ENABLED:
                after = Interval(last_seen, exchange.evidence.answered_at - imported.sent_at)
                return Shown(len(pending), after, (imported, *pending[-1:], exchange.evidence))
            if key is not None:
                pending.append(exchange.evidence)
                last_seen = max(0.0, exchange.evidence.sent_at - imported.answered_at)
            self.course.pause_between_looks(len(pending))
        return Shown(len(pending), Interval(last_seen, None), (imported, *pending[-1:]))
