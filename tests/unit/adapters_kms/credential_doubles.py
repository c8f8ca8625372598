"""Doubles of STS, of the ECS metadata service and of a credentials URI, on loopback."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ROLE_ARN = "acs:ram::1540355698840000:role/keybroker"
PROVIDER_ARN = "acs:ram::1540355698840000:oidc-provider/ack-rrsa"
SESSION_TOKEN = "canary-imds-session"


@dataclass(frozen=True)
class Asked:
    """One request, as a double got it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    form: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Double:
    """Answers each request by `answer`, which a test may replace. `asked` holds what came in."""

    def __init__(self, url: str, answer: Callable[[Asked], Answer]) -> None:
        self.url = url
        self.answer = answer
        self.asked: list[Asked] = []


@contextmanager
def double(answer: Callable[[Asked], Answer]) -> Iterator[Double]:
    """A double of an endpoint, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, parts.path, _flat(parts.query), headers, _flat(body))
            here.asked.append(asked)
            reply = here.answer(asked)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815  # http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Double(f"http://127.0.0.1:{server.server_address[1]}", answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _flat(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}


def reply_json(value: object, *, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status)


def issued(number: int = 1, *, life: timedelta = timedelta(hours=1), **overrides: object) -> dict[str, object]:
    """The credentials numbered so, as every endpoint writes them."""
    return {
        "AccessKeyId": f"STS.number{number}",
        "AccessKeySecret": f"canary-secret-{number}",
        "SecurityToken": f"canary-token-{number}",
        "Expiration": (datetime.now(UTC) + life).strftime("%Y-%m-%dT%H:%M:%SZ"),
    } | overrides


def sts_reply(number: int = 1, *, life: timedelta = timedelta(hours=1)) -> Answer:
    return reply_json({"RequestId": "r", "Credentials": issued(number, life=life)})


def success(**overrides: object) -> dict[str, object]:
    """What the metadata service and a credentials URI answer."""
    return {"Code": "Success"} | issued() | overrides


def metadata_service(*, role: str = "keybroker-role") -> Callable[[Asked], Answer]:
    """The metadata service in hardened mode: nothing without the session token, and that by PUT only."""
    roles = "/latest/meta-data/ram/security-credentials/"

    def answer(asked: Asked) -> Answer:
        if asked.path == "/latest/api/token":
            return Answer(SESSION_TOKEN.encode()) if asked.method == "PUT" else Answer(b"", 405)
        if asked.headers.get("x-aliyun-ecs-metadata-token") != SESSION_TOKEN:
            return Answer(b"<html>", 403)
        answers = {roles: Answer(role.encode()), f"{roles}{role}": reply_json(success())}
        return answers.get(asked.path, Answer(b"<html>", 404))

    return answer
