"""Which CMK can take key material: state by origin by spec by instance.

Source: contract 6 (states; first import binds for ever); the seed's notes on external CMKs; design, "What bad input
gets".
"""

from itertools import product

import pytest

from keybroker.domain.errors import BrokerError, Code, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState, check_external, check_importable
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec

INSTANCE = "kst-example"
KEY_ID = "key-hzz62f1cb66fa42qo0000"


def key(
    *,
    state: KeyState = KeyState.PENDING_IMPORT,
    origin: str = "EXTERNAL",
    spec: KeySpec | None = AES_256,
    dkms_instance_id: str = INSTANCE,
) -> ExternalKey:
    return ExternalKey(
        name=CmkName("1540355698840000", "cn-hangzhou", KEY_ID),
        arn=f"acs:kms:cn-hangzhou:1540355698840000:key/{KEY_ID}",
        dkms_instance_id=dkms_instance_id,
        spec=spec,
        state=state,
        origin=origin,
    )


STATE_REASONS = {
    KeyState.PENDING_IMPORT: None,
    KeyState.ENABLED: Reason.KEY_MATERIAL_ALREADY_BOUND,
    KeyState.DISABLED: Reason.KEY_DISABLED,
    KeyState.PENDING_DELETION: Reason.KEY_PENDING_DELETION,
    KeyState.UNKNOWN: Reason.KEY_STATE_CONFLICT,
}
ORIGINS = {"EXTERNAL": None, "Aliyun_KMS": Reason.KEY_ORIGIN_NOT_EXTERNAL, "": Reason.KEY_ORIGIN_NOT_EXTERNAL}
SPECS = {AES_128: None, AES_192: None, AES_256: None, None: Reason.KEY_SPEC_UNSUPPORTED}
INSTANCES = {INSTANCE: None, "kst-other": Reason.KEY_NOT_ON_INSTANCE, "": Reason.KEY_NOT_ON_INSTANCE}


def cases() -> list[object]:
    """The first thing that is wrong counts: instance, origin, spec, state."""
    return [
        pytest.param(
            key(state=state, origin=origin, spec=spec, dkms_instance_id=instance),
            INSTANCES[instance] or ORIGINS[origin] or SPECS[spec] or STATE_REASONS[state],
            id=f"{state}, origin {origin!r}, {spec.kms_name if spec else 'another spec'}, instance {instance!r}",
        )
        for state, origin, spec, instance in product(KeyState, ORIGINS, SPECS, INSTANCES)
    ]


def refusal_of(candidate: ExternalKey) -> BrokerError | None:
    try:
        assert check_importable(candidate, dkms_instance_id=INSTANCE) is candidate.spec
    except BrokerError as error:
        return error
    return None


@pytest.mark.parametrize(("candidate", "reason"), cases())
def test_importable(candidate: ExternalKey, reason: Reason | None) -> None:
    refusal = refusal_of(candidate)
    assert (refusal and refusal.reason) == reason


def test_importable_is_every_spec_in_pending_import_only() -> None:
    good = [case.values[0] for case in cases() if case.values[1] is None]
    assert {(candidate.state, candidate.spec) for candidate in good} == {
        (KeyState.PENDING_IMPORT, spec) for spec in (AES_128, AES_192, AES_256)
    }


@pytest.mark.parametrize("candidate", [case.values[0] for case in cases() if case.values[1]][::7])
def test_refusal_is_a_failed_precondition_that_names_the_key(candidate: ExternalKey) -> None:
    refusal = refusal_of(candidate)
    assert refusal is not None
    assert refusal.rule.code is Code.FAILED_PRECONDITION
    assert refusal.metadata == {"key_id": KEY_ID}


def test_refusal_of_an_enabled_key_says_the_seed_s_rule() -> None:
    refusal = refusal_of(key(state=KeyState.ENABLED))
    assert refusal is not None
    assert "already" in refusal.message
    assert "only one piece of key material" in refusal.rule.advice
    assert "for ever" in refusal.rule.advice
    assert "new CMK" in refusal.rule.advice


@pytest.mark.parametrize("state", KeyState)
@pytest.mark.parametrize("spec", SPECS)
def test_external_does_not_depend_on_state_or_spec(state: KeyState, spec: KeySpec | None) -> None:
    check_external(key(state=state, spec=spec), dkms_instance_id=INSTANCE)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (key(dkms_instance_id="kst-other"), Reason.KEY_NOT_ON_INSTANCE),
        (key(dkms_instance_id="KST-EXAMPLE"), Reason.KEY_NOT_ON_INSTANCE),
        (key(origin="Aliyun_KMS"), Reason.KEY_ORIGIN_NOT_EXTERNAL),
        (key(origin="external"), Reason.KEY_ORIGIN_NOT_EXTERNAL),
        (key(origin="Aliyun_KMS", dkms_instance_id="kst-other"), Reason.KEY_NOT_ON_INSTANCE),
    ],
)
def test_external_refuses(candidate: ExternalKey, reason: Reason) -> None:
    with pytest.raises(BrokerError) as caught:
        check_external(candidate, dkms_instance_id=INSTANCE)
    assert caught.value.reason is reason


def test_cmk_is_named_by_account_region_and_key_id() -> None:
    names = {CmkName("1", "cn-hangzhou", "key-1"), CmkName("2", "cn-hangzhou", "key-1")}
    names |= {CmkName("1", "cn-beijing", "key-1"), CmkName("1", "cn-hangzhou", "key-2")}
    assert len(names | {CmkName("1", "cn-hangzhou", "key-1")}) == 4
