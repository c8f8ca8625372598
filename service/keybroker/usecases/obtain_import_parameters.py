"""Import parameters: cached while unexpired, fetched once for all who want them at the same time.

Wrapping public key, import token, algorithm and expiry stay one value (design, invariant 4). A pair leaves the cache
before it expires, by a safety margin; when the KMS refuses its token; and when its CMK can no longer take material.
"""

import threading
from collections.abc import Callable
from enum import StrEnum

from cachetools import TLRUCache

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError
from keybroker.domain.external_key import CmkName, ExternalKey, check_importable
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_spec import KeySpec
from keybroker.domain.public_key_policy import load_wrapping_public_key
from keybroker.domain.wrapping import WRAPPING_ALGORITHMS, WrappingAlgorithm
from keybroker.ports import Clock, Kms
from keybroker.usecases.single_flight import SingleFlight


class ParametersSource(StrEnum):
    """Where import parameters came from."""

    CACHED = "cached"
    FETCHED = "fetched"


class ParametersRequestResult(StrEnum):
    """How a request for import parameters ended: SHARED got them from a fetch that another caller made."""

    CACHED = "cached"
    FETCHED = "fetched"
    SHARED = "shared"
    FAILED = "failed"


class ImportParametersCache:
    """A bounded number of pairs, the least recently used leaving first; thread-safe."""

    def __init__(self, *, size: int, expiry_margin_seconds: float, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._pairs: TLRUCache[tuple[CmkName, str], ImportParameters] = TLRUCache(
            maxsize=size,
            ttu=lambda _key, pair, _now: pair.expires_at.timestamp() - expiry_margin_seconds,
            timer=lambda: clock.now().timestamp(),
        )

    def get(self, cmk: CmkName, algorithm: WrappingAlgorithm) -> ImportParameters | None:
        """The pair for this CMK and algorithm, if one is held that is not near its expiry."""
        with self._lock:
            return self._pairs.get((cmk, algorithm.kms_name))

    def put(self, pair: ImportParameters) -> None:
        """Holds the pair. One that is near its expiry already is not held."""
        with self._lock:
            self._pairs[pair.cmk, pair.algorithm.kms_name] = pair

    def drop(self, refused: ImportParameters) -> None:
        """Lets go of this pair, not of a newer one."""
        with self._lock:
            key = (refused.cmk, refused.algorithm.kms_name)
            if self._pairs.get(key) == refused:
                del self._pairs[key]

    def drop_all(self, cmk: CmkName) -> None:
        """Lets go of the pairs of a CMK: its state makes them useless."""
        with self._lock:
            for algorithm in WRAPPING_ALGORITHMS:
                self._pairs.pop((cmk, algorithm), None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._pairs)


class ObtainImportParameters:
    """Gets import parameters for a CMK whose state was checked. `on_request` is told how each request ended."""

    def __init__(self, *, cache: ImportParametersCache, on_request: Callable[[ParametersRequestResult], None]) -> None:
        self._cache = cache
        self._on_request = on_request
        self._flights: SingleFlight[ImportParameters] = SingleFlight()

    def check(self, kms: Kms, key: ExternalKey) -> KeySpec:
        """The spec of a CMK that can take key material now. Of one that can't the cached pairs are let go.

        Reasons: those of check_importable.
        """
        try:
            return check_importable(key, dkms_instance_id=kms.dkms_instance_id)
        except BrokerError:
            self._cache.drop_all(key.name)
            raise

    def obtain(
        self, kms: Kms, cmk: CmkName, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> tuple[ImportParameters, ParametersSource]:
        """A vetted pair, from the cache or from the KMS.

        Reasons: WRAPPING_PUBLIC_KEY_REJECTED, KEY_NOT_FOUND, the KMS_… reasons.
        """
        cached = self._cache.get(cmk, algorithm)
        if cached is not None:
            self._on_request(ParametersRequestResult.CACHED)
            return cached, ParametersSource.CACHED
        led: list[ParametersRequestResult] = []
        try:
            pair = self._flights.run(
                (cmk, algorithm.kms_name),
                lambda: self._fetch(kms, cmk, algorithm, deadline, led),
                deadline=deadline,
            )
        except BaseException:
            self._on_request(ParametersRequestResult.FAILED)
            raise
        self._on_request(led[0] if led else ParametersRequestResult.SHARED)
        return pair, ParametersSource.FETCHED

    def replace(self, kms: Kms, refused: ImportParameters, *, deadline: Deadline) -> ImportParameters:
        """Another pair for the same CMK and algorithm, the KMS having refused the token of `refused`."""
        self._cache.drop(refused)
        pair, _ = self.obtain(kms, refused.cmk, refused.algorithm, deadline=deadline)
        return pair

    def drop(self, refused: ImportParameters) -> None:
        """Lets go of a pair that the KMS refused."""
        self._cache.drop(refused)

    def forget(self, cmk: CmkName) -> None:
        """Lets go of the pairs of a CMK that can take no material any more."""
        self._cache.drop_all(cmk)

    def _fetch(
        self,
        kms: Kms,
        cmk: CmkName,
        algorithm: WrappingAlgorithm,
        deadline: Deadline,
        led: list[ParametersRequestResult],
    ) -> ImportParameters:
        held = self._cache.get(cmk, algorithm)  # the flight before this one may just have landed
        if held is not None:
            led.append(ParametersRequestResult.SHARED)
            return held
        pair = kms.get_parameters_for_import(cmk, algorithm, deadline=deadline)
        load_wrapping_public_key(pair.wrapping_public_key_der)
        self._cache.put(pair)
        led.append(ParametersRequestResult.FETCHED)
        return pair
