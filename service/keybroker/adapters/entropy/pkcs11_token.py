"""A PKCS#11 token as a generator of random bytes (C_GenerateRandom).

python-pkcs11 loads the module, finds the token, opens the session and logs in. The random bytes themselves are asked of
the module directly, because python-pkcs11 returns them in objects that it copies and can't wipe: they are written
where they are to be. Source: PKCS#11 v2.40 (base specification) §5.4 to §5.6, §5.17; its pkcs11f.h for the order of
the functions.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11.exceptions import PinIncorrect, PinInvalid, PinLenRange, PKCS11Error

from keybroker.adapters.entropy.failures import SourceFailed

_FINALIZE = 1  # places in CK_FUNCTION_LIST, after the version
_GENERATE_RANDOM = 64
_CKR_OK = 0
_BLOCK = 16
"""OpenSSL's CTR-DRBG, and SoftHSM2 with it, keeps the block that a draw ends inside of, until the next such."""
_PIN_REFUSED = (PinIncorrect, PinInvalid, PinLenRange)

_Finalize = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
_GenerateRandom = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong)


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST, as far as it is used."""

    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * (_GENERATE_RANDOM + 1)))


class Pkcs11Token:
    """checked.Generator on the token with this label. `pin` reads the user's PIN; None: no login."""

    def __init__(self, *, module_file: Path, token_label: str, pin: Callable[[], str | None]) -> None:
        self._module_file = str(module_file)
        self._token_label = token_label
        self._pin = pin
        self._refused_pin: str | None = None
        self._library: Any = None  # asking python-pkcs11 for it again would initialise the module
        self._session: pkcs11.Session | None = None

    def connect(self) -> None:
        """Initialises the module anew: only that makes it look for tokens again, and it ends every earlier session."""
        self._session = None
        with _failures():
            self._library = self._library or pkcs11.lib(self._module_file)
            self._finalize()
            self._library.initialize()
            token = self._library.get_token(token_label=self._token_label)
        self._session = self._log_in(token)

    def check(self) -> None:
        """Asks the slot for its token: some modules go on with a session although the token has gone."""
        with _failures():
            if self._opened().token.slot.get_token().label != self._token_label:
                raise SourceFailed("TokenNotPresent")

    def read_into(self, buffer: memoryview) -> None:
        """As in the protocol."""
        self._generate(buffer)
        if len(buffer) % _BLOCK:
            self._generate(memoryview(bytearray(_BLOCK + 1)))  # nobody's: see _BLOCK

    def _generate(self, buffer: memoryview) -> None:
        place = ctypes.addressof((ctypes.c_ubyte * len(buffer)).from_buffer(buffer))
        handle = self._opened().handle  # type: ignore[attr-defined]  # the extension has it, its stub does not
        code = generate_random_of(self._module_file)(handle, place, len(buffer))
        if code != _CKR_OK:
            raise SourceFailed(f"C_GenerateRandom 0x{code:08x}")

    def disconnect(self) -> None:
        """Ends the session and the module's hold on the token."""
        self._session = None
        if self._library is not None:
            self._finalize()

    def _finalize(self) -> None:
        """By the module's own function first: python-pkcs11 stops every thread while its call of it lasts.

        A module that waits for its device there would so hold the whole broker. What python-pkcs11 calls then comes
        back at once, since nothing is initialised any more, and it takes note.
        """
        _Finalize(_functions(self._module_file)[_FINALIZE])(None)
        with suppress(PKCS11Error):
            self._library.finalize()

    def _opened(self) -> pkcs11.Session:
        if self._session is None:
            raise SourceFailed("SessionClosed")
        return self._session

    def _log_in(self, token: pkcs11.Token) -> pkcs11.Session:
        """A PIN that was refused is not tried again until it is another: a few refusals lock a token."""
        pin = self._pin()
        if pin is not None and pin == self._refused_pin:
            raise SourceFailed("PinRefusedBefore")
        try:
            with _failures():
                return token.open(user_pin=pin)
        except SourceFailed as error:
            if isinstance(error.__cause__, _PIN_REFUSED):
                self._refused_pin = pin
            raise


@cache
def generate_random_of(module_file: str) -> Callable[[int, int, int], int]:
    """C_GenerateRandom of a module that is loaded already: (session, address, length) → CK_RV."""
    return _GenerateRandom(_functions(module_file)[_GENERATE_RANDOM])


@cache
def _functions(module_file: str) -> Sequence[int]:
    """The addresses of a loaded module's functions. Called by ctypes, they let other threads run."""
    library = ctypes.CDLL(module_file)
    functions = ctypes.POINTER(_FunctionList)()
    if library.C_GetFunctionList(ctypes.byref(functions)) != _CKR_OK:
        raise SourceFailed("C_GetFunctionList")
    return list(functions.contents.functions)


@contextmanager
def _failures() -> Iterator[None]:
    """What python-pkcs11 raises, by the name of its class."""
    try:
        yield
    except PKCS11Error as error:
        raise SourceFailed(type(error).__name__) from error
