"""The admin API: the fault dial and the other switches over HTTP, on a loopback port of its own.

Every request needs `Authorization: Bearer <token>`. Bodies are JSON objects; a value that does not fit gets a 400
whose `error` names it, a port that somebody else has taken a 409. docs/emulator.md shows the requests.
"""

import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kms_emulator.call_record import LoggedCall
from kms_emulator.clock import utc_text
from kms_emulator.faults import Fault
from kms_emulator.http_server import EmulatorHandler, EmulatorServer
from kms_emulator.kms import Kms
from kms_emulator.kms_server import KmsServer
from kms_emulator.wire import json_reply

Body = Mapping[str, Any]
Reply = Mapping[str, object]


class AdminServer(EmulatorServer):
    """Serves the switches of one Kms and its `server` to whoever knows `token`."""

    def __init__(self, address: tuple[str, int], kms: Kms, server: KmsServer, token: str) -> None:
        self.routes = {**_Switches(kms, server).routes(), **_CallSwitches(server).routes()}
        self._expected = f"Bearer {token}".encode()
        super().__init__(address, _AdminHandler, kms.clock)

    def knows(self, authorization: str) -> bool:
        """Whether this header carries the token."""
        return hmac.compare_digest(authorization.encode(), self._expected)


class _Switches:
    def __init__(self, kms: Kms, server: KmsServer) -> None:
        self._kms = kms
        self._record = server.gateway.record

    def routes(self) -> Mapping[tuple[str, str], Callable[[Body], Reply]]:
        return {
            ("GET", "/faults"): self._faults,
            ("POST", "/faults"): self._add_fault,
            ("DELETE", "/faults"): self._clear_faults,
            ("GET", "/clock"): self._clock,
            ("POST", "/clock/advance"): self._advance_clock,
            ("GET", "/readings"): self._readings,
            ("PATCH", "/readings"): self._set_readings,
            ("GET", "/calls"): self._calls,
            ("DELETE", "/calls"): self._reset_calls,
            ("GET", "/quotas"): self._quotas,
            ("PATCH", "/quotas"): self._set_quotas,
        }

    def _faults(self, _: Body) -> Reply:
        return {"faults": [{**fault.to_mapping(), "struck": struck} for fault, struck in self._kms.faults.armed()]}

    def _add_fault(self, body: Body) -> Reply:
        self._kms.faults.add(Fault.from_mapping(body))
        return self._faults(body)

    def _clear_faults(self, body: Body) -> Reply:
        self._kms.faults.clear()
        return self._faults(body)

    def _clock(self, _: Body) -> Reply:
        clock = self._kms.clock
        return {"now": utc_text(clock.now()), "offset_seconds": clock.offset_seconds}

    def _advance_clock(self, body: Body) -> Reply:
        seconds = body.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError("seconds must be a number")
        self._kms.clock.advance(seconds)
        return self._clock(body)

    def _readings(self, _: Body) -> Reply:
        return self._kms.readings.to_mapping()

    def _set_readings(self, body: Body) -> Reply:
        self._kms.readings = self._kms.readings.changed(body)
        return self._readings(body)

    def _calls(self, _: Body) -> Reply:
        return {"calls": self._record.calls()}

    def _reset_calls(self, body: Body) -> Reply:
        self._record.reset()
        return self._calls(body)

    def _quotas(self, _: Body) -> Reply:
        return {"mode": self._kms.quotas.mode, "limits": self._kms.quotas.limits}

    def _set_quotas(self, body: Body) -> Reply:
        unknown = sorted(set(body) - {"mode", "limits"})
        if unknown:
            raise ValueError(f"unknown field: {', '.join(unknown)}")
        self._kms.quotas.configure(mode=body.get("mode"), limits=body.get("limits"))
        return self._quotas(body)


class _CallSwitches:
    """What concerns calls that are being served, and the connections they come by."""

    def __init__(self, server: KmsServer) -> None:
        self._server = server
        self._effects = server.gateway.effects

    def routes(self) -> Mapping[tuple[str, str], Callable[[Body], Reply]]:
        return {
            ("GET", "/held"): self._held,
            ("POST", "/faults/release"): self._release,
            ("GET", "/late"): self._late,
            ("POST", "/faults/land"): self._land,
            ("POST", "/pause"): self._pause,
            ("POST", "/resume"): self._resume,
        }

    def _held(self, _: Body) -> Reply:
        return {"held": self._effects.held.operations()}

    def _release(self, _: Body) -> Reply:
        return {"released": self._effects.held.release()}

    def _late(self, _: Body) -> Reply:
        late = self._effects.late
        return {"under_way": late.operations(), "landed": _shown(late.landed())}

    def _land(self, _: Body) -> Reply:
        return {"landed": _shown(self._effects.late.land())}

    def _pause(self, _: Body) -> Reply:
        self._server.pause()
        return {"paused": True}

    def _resume(self, _: Body) -> Reply:
        self._server.resume()
        return {"paused": False}


def _shown(calls: Iterable[LoggedCall]) -> list[dict[str, object]]:
    return [call._asdict() for call in calls]


class _AdminHandler(EmulatorHandler):
    server: AdminServer

    def _serve(self) -> None:
        raw = self.read_body()
        if raw is None:
            return
        self.send_reply(json_reply(*self._answer(raw)))

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 -- http.server's names

    def _answer(self, raw: bytes) -> tuple[int, Reply]:
        if not self.server.knows(self.headers.get("Authorization", "")):
            return 401, {"error": "Authorization: Bearer <token> is needed"}
        route = self.server.routes.get((self.command, self.path))
        if route is None:
            return 404, {"error": f"no {self.command} {self.path}"}
        try:
            return 200, route(_json_object(raw))
        except (ValueError, TypeError, OverflowError) as error:
            return 400, {"error": str(error)}
        except OSError as error:
            return 409, {"error": str(error)}


def _json_object(raw: bytes) -> Body:
    body = json.loads(raw or b"{}")
    if not isinstance(body, dict):
        raise TypeError("the body must be a JSON object")
    return body
