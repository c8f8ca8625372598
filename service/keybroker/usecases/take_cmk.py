"""Takes a CMK for one attempt: looks at it, and claims it in the ledger before anything is fetched for it (rule R5)."""

from dataclasses import replace

from keybroker.domain.attempt import Attempt
from keybroker.domain.audit import before_import
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError
from keybroker.domain.external_key import ExternalKey, KeyReference, check_external
from keybroker.domain.import_protocol import claimed, released
from keybroker.domain.key_spec import KeySpec
from keybroker.ports import Kms
from keybroker.usecases.answers import failure_of
from keybroker.usecases.claims import in_progress
from keybroker.usecases.embargo import Embargo
from keybroker.usecases.keys import Keys
from keybroker.usecases.obtain_import_parameters import ObtainImportParameters
from keybroker.usecases.rows import Rows, taken


class TakeCmk:
    """The checks and the claim that every import begins with."""

    def __init__(self, *, rows: Rows, keys: Keys, obtain: ObtainImportParameters, embargo: Embargo) -> None:
        self._rows = rows
        self._keys = keys
        self._obtain = obtain
        self._embargo = embargo

    def look(self, kms: Kms, reference: KeyReference, *, deadline: Deadline, own: Attempt | None = None) -> ExternalKey:
        """Reads the CMK and checks it, for the row `own`.

        Reasons: KEY_NOT_FOUND, the KMS_… reasons, those of `check_for` and `check`.
        """
        key = self._keys.describe(kms, reference, deadline=deadline)
        if own is not None:
            self.check_for(own, key)
        self.check(kms, key)
        return key

    def check_for(self, own: Attempt, key: ExternalKey) -> None:
        """Raises if the request of `own`, which holds no CMK yet, holds this one in the ledger.

        Another process has gone on with it meanwhile, and it is not for this call to say how it ended.

        Reasons: IMPORT_IN_PROGRESS.
        """
        holder = self._rows.ledger.holder(key.name)
        if holder is not None and (holder.caller, holder.request_id) == (own.caller, own.request_id):
            raise in_progress(key.name)

    def check(self, kms: Kms, key: ExternalKey) -> KeySpec:
        """The spec of a CMK that can be taken now, as far as the ledger and this sight of it tell.

        Reasons: IMPORT_IN_PROGRESS, LEDGER_RESTORED, ENABLED_UNATTRIBUTED, those of check_importable.
        """
        check_external(key, dkms_instance_id=kms.dkms_instance_id)
        holder = self._rows.ledger.holder(key.name)
        if holder is not None and not (holder.is_terminal and self._embargo.concerns(key)):
            raise taken(key.name, holder)
        return self.check_own(kms, key)

    def check_own(self, kms: Kms, key: ExternalKey) -> KeySpec:
        """As `check`, for a CMK that the caller's own row may hold."""
        check_external(key, dkms_instance_id=kms.dkms_instance_id)
        self._embargo.check(key)
        return self._obtain.check(kms, key)

    def claim(self, attempt: Attempt, key: ExternalKey, *, algorithm: str, entropy_source: str = "") -> Attempt:
        """The row, CLAIMED, and announced.

        Reasons: IMPORT_IN_PROGRESS, KEY_MATERIAL_ALREADY_BOUND, those of `announce`.
        """
        ledger = self._rows.ledger
        first = not (ledger.attempted(key.name) or ledger.handed_out(key.name) or ledger.restored())
        row = self._rows.write("claim", claimed(attempt, key.name, first=first))
        try:
            return self.announce(row, key, algorithm=algorithm, entropy_source=entropy_source)
        except BaseException as error:
            self.let_go(row, error)
            raise

    def announce(self, row: Attempt, key: ExternalKey, *, algorithm: str, entropy_source: str = "") -> Attempt:
        """Tells the audit log of a claim with which nothing was done yet.

        Reasons: AUDIT_UNAVAILABLE, LEDGER_UNAVAILABLE.
        """
        event = before_import(row, key, algorithm=algorithm, entropy_source=entropy_source)
        return replace(row, audit_line=self._rows.trail.before(event))

    def let_go(self, attempt: Attempt, error: BaseException) -> None:
        """Nothing was generated for a claim: a repeat starts over. Never raises."""
        failure = failure_of(error) if isinstance(error, BrokerError) else None
        try:
            self._rows.write("release", released(attempt, failure))
        except BrokerError:
            return  # the recovery lets go of it later
