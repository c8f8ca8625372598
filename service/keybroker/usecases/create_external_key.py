"""Creates a CMK that waits for its material: once a request, whatever is lost or repeated."""

from dataclasses import replace

from keybroker.domain.attempt import Kind, State
from keybroker.domain.deadline import Deadline
from keybroker.domain.external_key import NewKey, check_external
from keybroker.ports import Kms
from keybroker.usecases.answers import Answer, answer
from keybroker.usecases.asked import Asked, digest_of, new_attempt, target_parts
from keybroker.usecases.claims import Claims
from keybroker.usecases.create_safely import CreateSafely
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.progress import Progress
from keybroker.usecases.rows import Rows


class CreateExternalKey:
    """CreateExternalKey."""

    def __init__(self, *, rows: Rows, manage: ManageKeys, create: CreateSafely, claims: Claims) -> None:
        self._rows = rows
        self._manage = manage
        self._create = create
        self._claims = claims

    def run(  # noqa: PLR0913  # the request's fields
        self,
        kms: Kms,
        asked: Asked,
        new_key: NewKey,
        *,
        allow_second_key: bool,
        progress: Progress,
        deadline: Deadline,
    ) -> Answer:
        """Creates the CMK with its alias, or tells again which it was. Returns a CREATED row.

        Reasons: see CreateExternalKey in key_broker_service.proto.
        """
        digest = digest_of(Kind.CREATE, kms, target_parts(new_key))
        with self._claims.request(asked.caller, asked.request_id, deadline=deadline):
            row = self._rows.find(asked.caller, asked.request_id, digest=digest)
            if row is not None and row.is_terminal:
                return answer(row, replayed=True)
            if row is None:
                row = self._create.wanted(new_attempt(asked, Kind.CREATE, kms, digest), new_key)
            row, key = self._create.ensure(
                kms,
                row,
                new_key,
                allow_second_key=allow_second_key,
                before_first=lambda: self._manage.check_alias_free(kms, new_key, deadline=deadline),
                deadline=deadline,
            )
            progress.created_key_id = key.name.key_id
            check_external(key, dkms_instance_id=kms.dkms_instance_id)
            self._create.give_alias(kms, row, key, deadline=deadline)
            return answer(self._rows.finish("finish", replace(row, state=State.CREATED, key=key)))
