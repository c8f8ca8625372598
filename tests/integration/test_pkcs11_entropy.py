"""SoftHSM2 as the source of randomness: imports end to end, a token that goes and comes back, a PIN that is wrong."""

import ctypes
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pkcs11
import pytest

from keybroker.adapters.entropy.checked import CheckedEntropy
from keybroker.adapters.entropy.failures import SourceFailed
from keybroker.adapters.entropy.pkcs11_token import Pkcs11Token, generate_random_of
from keybroker_client import KeyBrokerError, UnavailableError
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator
from tests.integration.conftest import RunningBroker

MODULES = [  # where Debian, Fedora and others put it
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),
    Path("/usr/lib/pkcs11/libsofthsm2.so"),
    Path("/usr/local/lib/softhsm/libsofthsm2.so"),
]
LABEL, PIN = "keybroker", "271828"
SPECS = {types_pb2.KEY_SPEC_AES_128: 16, types_pb2.KEY_SPEC_AES_192: 24, types_pb2.KEY_SPEC_AES_256: 32}

pytestmark = pytest.mark.xdist_group("softhsm")


class SoftHsm:
    """A token of its own in a folder; taken away, the folder has another name."""

    def __init__(self, folder: Path) -> None:
        self.tokens = folder / "tokens"
        self.tokens.mkdir()
        self.configuration = folder / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\n")
        self.module_file = next(path for path in MODULES if path.exists())
        self.pin_file = folder / "pin"
        self.pin_file.write_text(PIN)

    def make_token(self) -> None:
        command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "31415926"]
        subprocess.run([*command, "--module", self.module_file], check=True, capture_output=True)

    def take_away(self) -> None:
        for token in list(self.tokens.iterdir()):
            token.rename(self.tokens.parent / token.name)

    def bring_back(self) -> None:
        for folder in list(self.tokens.parent.iterdir()):
            if folder.is_dir() and (folder / "token.object").exists():
                folder.rename(self.tokens / folder.name)

    def hang(self) -> None:
        """C_Initialize waits for its configuration."""
        self.configuration.rename(self.configuration.with_suffix(".aside"))
        os.mkfifo(self.configuration)

    def go_on(self) -> None:
        aside = self.configuration.with_suffix(".aside")
        fifo = self.configuration.rename(self.configuration.with_suffix(".fifo"))
        aside.rename(self.configuration)
        fifo.write_bytes(self.configuration.read_bytes())  # for whoever reads it now

    def section(self) -> dict[str, Any]:
        pkcs11_section = {
            "module_file": str(self.module_file),
            "token_label": LABEL,
            "pin_file": str(self.pin_file),
        }
        return {"source": "pkcs11", "pkcs11": pkcs11_section}

    def token(self) -> Pkcs11Token:
        return Pkcs11Token(module_file=self.module_file, token_label=LABEL, pin=self.pin_file.read_text)


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftHsm]:
    folder = tmp_path / "hsm"
    folder.mkdir()
    hsm = SoftHsm(folder)
    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.configuration))
    hsm.make_token()
    yield hsm
    pkcs11.lib(str(hsm.module_file)).finalize()


def import_new(broker: RunningBroker, spec: int = types_pb2.KEY_SPEC_AES_256, request_id: str = "") -> Any:
    return broker.client.import_external_key(
        new_key=types_pb2.NewKey(key_spec=spec), request_id=request_id or str(uuid4())
    )


def refused(broker: RunningBroker, request_id: str = "") -> KeyBrokerError:
    with pytest.raises(UnavailableError) as caught:
        import_new(broker, request_id=request_id)
    assert caught.value.reason == "ENTROPY_UNAVAILABLE"
    return caught.value


def imports(broker: RunningBroker) -> bool:
    """Whether the source had its turn within the little time that a test gives it."""
    try:
        import_new(broker)
    except UnavailableError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.01)


def events(logged: list[dict[str, Any]]) -> list[str]:
    return [entry["event"] for entry in logged if entry["event"].startswith("entropy_source")]


# Through the broker


def test_imports_bind_what_the_hsm_generated_and_record_it(
    emulator: Emulator,
    make_broker: Callable[..., RunningBroker],
    hsm: SoftHsm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[bytes] = []
    read_into = Pkcs11Token.read_into

    def spied(token: Pkcs11Token, buffer: memoryview) -> None:
        read_into(token, buffer)
        given.append(bytes(buffer))

    monkeypatch.setattr(Pkcs11Token, "read_into", spied)
    broker = make_broker(entropy=hsm.section())
    for spec, length in SPECS.items():
        request_id = str(uuid4())
        answer = import_new(broker, spec, request_id)
        material = emulator.bound_material(answer.key.key_id)
        assert material == given[-1]
        assert len(material) == length
        recorded = broker.client.get_import(request_id=request_id)
        assert recorded.entropy_source == types_pb2.ENTROPY_SOURCE_PKCS11


def test_imports_at_once_share_the_session(
    emulator: Emulator, make_broker: Callable[..., RunningBroker], hsm: SoftHsm
) -> None:
    broker = make_broker(entropy=hsm.section())
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: import_new(broker), range(24)))
    assert len({emulator.bound_material(answer.key.key_id) for answer in answers}) == 24


def test_token_taken_away_stops_imports_with_a_clear_reason_and_they_go_on_when_it_is_back(
    emulator: Emulator, make_broker: Callable[..., RunningBroker], hsm: SoftHsm, logged: list[dict[str, Any]]
) -> None:
    broker = make_broker(entropy=hsm.section())
    before = str(uuid4())
    import_new(broker, request_id=before)
    emulator.reset_calls()

    hsm.take_away()
    request_id = str(uuid4())
    for _ in range(3):
        error = refused(broker, request_id)
    assert "source of randomness does not answer" in str(error)
    assert not emulator.calls
    assert import_new(broker, request_id=before).replayed  # what is done needs no source
    assert broker.failures() == {"ENTROPY_UNAVAILABLE": 3.0}

    hsm.bring_back()
    answer = import_new(broker, request_id=request_id)
    assert emulator.bound_material(answer.key.key_id) is not None
    assert events(logged) == ["entropy_source_ready", "entropy_source_failed", "entropy_source_ready"]


def test_broker_starts_without_the_token_and_imports_once_it_is_there(
    make_broker: Callable[..., RunningBroker], hsm: SoftHsm, logged: list[dict[str, Any]]
) -> None:
    hsm.take_away()
    broker = make_broker(entropy=hsm.section())
    assert events(logged) == ["entropy_source_failed"]
    refused(broker)
    hsm.bring_back()
    import_new(broker)


def test_broker_serves_while_the_module_hangs_from_the_start_and_imports_once_it_goes_on(
    make_broker: Callable[..., RunningBroker],
    hsm: SoftHsm,
    logged: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keybroker.entropy_choice.FIRST_LOOK_SECONDS", 0.1)
    monkeypatch.setitem(CheckedEntropy.__init__.__kwdefaults__, "turn_seconds", 0.1)
    hsm.hang()
    try:
        broker = make_broker(entropy=hsm.section())
        with urllib.request.urlopen(f"{broker.http_url}/readyz", timeout=5) as reply:
            assert reply.status == 200
        assert "in time" in str(refused(broker))
        assert set(events(logged)) == {"entropy_source_failed"}
    finally:
        hsm.go_on()
    wait_until(lambda: "entropy_source_ready" in events(logged))
    wait_until(lambda: imports(broker))


def test_refused_pin_is_not_tried_again_and_a_new_one_is(
    make_broker: Callable[..., RunningBroker], hsm: SoftHsm, logged: list[dict[str, Any]]
) -> None:
    hsm.pin_file.write_text("999999")
    broker = make_broker(entropy=hsm.section())
    refused(broker)
    kinds = [entry["kind"] for entry in logged if entry["event"] == "entropy_source_failed"]
    assert kinds == ["PinIncorrect", "PinRefusedBefore"]
    hsm.pin_file.write_text(f"{PIN}\n")
    import_new(broker)
    assert not any("999999" in str(entry) or PIN in str(entry) for entry in logged)


# The token alone


@pytest.fixture
def connected(hsm: SoftHsm) -> Pkcs11Token:
    token = hsm.token()
    token.connect()
    return token


def test_function_that_is_called_is_the_modules_own(hsm: SoftHsm, connected: Pkcs11Token) -> None:
    """SoftHSM exports it under its name too, which the standard does not ask for."""
    exported = ctypes.cast(ctypes.CDLL(str(hsm.module_file)).C_GenerateRandom, ctypes.c_void_p).value
    assert ctypes.cast(generate_random_of(str(hsm.module_file)), ctypes.c_void_p).value == exported  # type: ignore[arg-type]


def test_read_fills_the_buffer_and_nothing_beside_it(connected: Pkcs11Token) -> None:
    around = bytearray(96)
    connected.read_into(memoryview(around)[32:64])
    assert around[:32] == around[64:] == bytes(32)
    assert bytes(8) not in (around[32:40], around[56:64])


def test_token_with_another_label_is_not_taken(hsm: SoftHsm) -> None:
    token = Pkcs11Token(module_file=hsm.module_file, token_label="another", pin=lambda: PIN)
    with pytest.raises(SourceFailed, match="NoSuchToken"):
        token.connect()


def test_token_without_a_pin_is_not_logged_in_to(hsm: SoftHsm) -> None:
    token = Pkcs11Token(module_file=hsm.module_file, token_label=LABEL, pin=lambda: None)
    token.connect()
    token.read_into(memoryview(bytearray(32)))


def test_module_that_was_finalised_behind_our_back_is_noticed_and_connected_to_anew(
    hsm: SoftHsm, connected: Pkcs11Token
) -> None:
    connected.check()
    pkcs11.lib(str(hsm.module_file)).finalize()
    with pytest.raises(SourceFailed):
        connected.check()
    with pytest.raises(SourceFailed, match="C_GenerateRandom 0x00000190"):  # CKR_CRYPTOKI_NOT_INITIALIZED
        connected.read_into(memoryview(bytearray(32)))
    connected.connect()
    connected.read_into(memoryview(bytearray(32)))


@pytest.mark.parametrize("act", [Pkcs11Token.connect, Pkcs11Token.disconnect])
def test_module_is_finalised_already_when_python_pkcs11_does_it(
    act: Callable[[Pkcs11Token], None], hsm: SoftHsm, connected: Pkcs11Token
) -> None:
    """Its own call lets no other thread run, health included, for as long as a module's C_Finalize takes."""
    library, codes = pkcs11.lib(str(hsm.module_file)), []

    class Watched:
        def finalize(self) -> None:
            codes.append(generate_random_of(str(hsm.module_file))(0, 0, 0))
            library.finalize()

        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

    connected._library = Watched()
    act(connected)
    assert codes == [0x190]  # CKR_CRYPTOKI_NOT_INITIALIZED


def test_disconnecting_does_not_initialise_a_module_that_did_not_come_up(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As python-pkcs11 does when it is asked for it again; it would wait for its device twice in one call."""
    hsm.take_away()
    token = hsm.token()
    with pytest.raises(SourceFailed, match="NoSuchToken"):
        token.connect()
    with monkeypatch.context() as patch:
        patch.setattr(pkcs11, "lib", lambda _: pytest.fail("initialised again"))
        token.disconnect()
        token.disconnect()
    assert generate_random_of(str(hsm.module_file))(0, 0, 0) == 0x190  # CKR_CRYPTOKI_NOT_INITIALIZED


def test_disconnected_token_gives_nothing(connected: Pkcs11Token) -> None:
    connected.disconnect()
    for act in (connected.check, lambda: connected.read_into(memoryview(bytearray(32)))):
        with pytest.raises(SourceFailed, match="SessionClosed"):
            act()
