"""How far a call has come. It belongs to the call's caller, who reads it however the call ended."""

from dataclasses import dataclass

from keybroker.usecases.obtain_import_parameters import ParametersSource


@dataclass(slots=True)
class Progress:
    """`created_key_id` names a CMK that exists now because of this call, also when a later step failed."""

    created_key_id: str = ""
    parameters: ParametersSource | None = None
    goes_on: bool = False  # with an attempt that an earlier call has begun
