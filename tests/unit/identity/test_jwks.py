"""The keys of a token issuer, from bytes and from a URL."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from keybroker.adapters.identity.jwks import MIN_SECONDS, UrlKeys, parse_jwks
from tests.builders import FakeClock
from tests.certificates import Issuer


def test_lone_key_needs_no_id_and_of_several_none_is_meant() -> None:
    one, two = Issuer(key_id="1"), Issuer(key_id="2")
    assert set(parse_jwks(one.jwks())) == {"1", None}
    both = json.dumps({"keys": json.loads(one.jwks())["keys"] + json.loads(two.jwks())["keys"]}).encode()
    assert set(parse_jwks(both)) == {"1", "2"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [1]}',
        b'{"keys": [{"kty": "RSA", "kid": "1"}]}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "1", "alg": "HS256"}]}',
        b'{"keys": [{"kty": "RSA", "use": "enc", "kid": "1", "n": "AQAB", "e": "AQAB"}]}',
        b"\xff",
        b'{"keys": [{"kty": "OKP", "crv": "unheard of", "kid": "1", "x": "AQAB"}]}',
    ],
)
def test_what_holds_no_public_signing_key_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="JSON Web Key Set"):
        parse_jwks(content)


class Publisher:
    """An issuer's URL: its answer can be changed, its requests are counted."""

    def __init__(self) -> None:
        self.status, self.content, self.requests = 200, b"", 0
        self.extra_length = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.requests += 1
                publisher.may_answer.wait(10)
                self.send_response(publisher.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(publisher.content) + publisher.extra_length))
                self.end_headers()
                self.wfile.write(publisher.content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"


@pytest.fixture
def publisher(loopback: None) -> Iterator[Publisher]:
    publisher = Publisher()
    thread = threading.Thread(target=publisher.server.serve_forever, args=(0.05,))
    thread.start()
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()
    thread.join()


def keys_of(publisher: Publisher, clock: FakeClock) -> UrlKeys:
    return UrlKeys(publisher.url, ca_file=None, cache_seconds=300, monotonic=clock.monotonic)


def test_keys_are_fetched_once_and_kept(publisher: Publisher) -> None:
    clock, issuer = FakeClock(), Issuer()
    publisher.content = issuer.jwks()
    keys = keys_of(publisher, clock)
    assert all(keys.find(issuer.key_id) for _ in range(5))
    assert publisher.requests == 1
    clock.advance(301)
    assert keys.find(issuer.key_id)
    assert publisher.requests == 2


def test_unknown_key_id_fetches_anew_but_not_all_the_time(publisher: Publisher) -> None:
    clock, old, new = FakeClock(), Issuer(key_id="old"), Issuer(key_id="new")
    publisher.content = old.jwks()
    keys = keys_of(publisher, clock)
    assert keys.find("old")
    publisher.content = new.jwks()
    assert keys.find("new") is None
    assert publisher.requests == 1
    clock.advance(MIN_SECONDS)
    assert keys.find("new")
    assert keys.find("old") is None
    assert [keys.find("made up") for _ in range(10)] == [None] * 10
    assert publisher.requests == 2


@pytest.mark.parametrize(
    ("status", "content"), [(500, b""), (302, b""), (200, b"junk"), (200, b" " * 300_000)], ids=str
)
def test_url_that_fails_leaves_the_old_keys_in_force(publisher: Publisher, status: int, content: bytes) -> None:
    clock, issuer = FakeClock(), Issuer()
    publisher.content = issuer.jwks()
    keys = keys_of(publisher, clock)
    assert keys.find(issuer.key_id)
    publisher.status, publisher.content = status, content
    clock.advance(301)
    assert keys.find(issuer.key_id)
    assert publisher.requests == 2


def test_entry_of_an_unknown_kind_does_not_hide_the_others() -> None:
    issuer = Issuer()
    odd = {"kty": "OKP", "crv": "unheard of", "kid": "odd", "x": "AQAB"}
    content = json.dumps({"keys": [odd, *json.loads(issuer.jwks())["keys"]]}).encode()
    assert set(parse_jwks(content)) == {issuer.key_id}


@pytest.mark.parametrize("key_id", [[], {}, 1, True], ids=str)
def test_entry_whose_key_id_is_no_text_does_not_hide_the_others(key_id: object) -> None:
    issuer, other = Issuer(), Issuer(key_id="other")
    odd, good = ({**json.loads(each.jwks())["keys"][0]} for each in (issuer, other))
    assert set(parse_jwks(json.dumps({"keys": [odd | {"kid": key_id}, good]}).encode())) == {"other", None}


def test_known_key_waits_for_no_fetch(publisher: Publisher) -> None:
    clock, issuer = FakeClock(), Issuer()
    publisher.content = issuer.jwks()
    keys = keys_of(publisher, clock)
    assert keys.find(issuer.key_id)
    clock.advance(MIN_SECONDS)
    publisher.may_answer.clear()
    stalled = threading.Thread(target=keys.find, args=("made up",))
    stalled.start()
    while publisher.requests < 2:
        time.sleep(0.01)
    assert keys.find(issuer.key_id)
    assert stalled.is_alive()
    publisher.may_answer.set()
    stalled.join()


def test_answer_that_breaks_off_leaves_the_old_keys_in_force(publisher: Publisher) -> None:
    clock, issuer = FakeClock(), Issuer()
    publisher.content = issuer.jwks()
    keys = keys_of(publisher, clock)
    assert keys.find(issuer.key_id)
    publisher.extra_length = 10
    clock.advance(301)
    assert keys.find(issuer.key_id)


def test_answer_that_is_too_long_leaves_the_old_keys_in_force(publisher: Publisher) -> None:
    clock, issuer, newer = FakeClock(), Issuer(), Issuer(key_id="newer")
    publisher.content = issuer.jwks()
    keys = keys_of(publisher, clock)
    assert keys.find(issuer.key_id)
    publisher.content = newer.jwks() + b" " * 256 * 1024
    clock.advance(301)
    assert keys.find("newer") is None
    assert keys.find(issuer.key_id)
    publisher.content = newer.jwks() + b" " * 255 * 1024
    clock.advance(301)
    assert keys.find("newer")
