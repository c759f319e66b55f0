"""HTTP as real clients speak it, and as broken ones do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.conftest import NOOP, Running


@pytest.fixture(scope="module")
def noop(start: Callable[..., Running]) -> Running:
    return start({"model.py": NOOP}, environment={"LEPTONAI_MAX_BODY": "100000"}).wait_ready()


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /predict HTTP/1.1", "Host: r", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_keep_alive_and_request_id_is_echoed_or_made(noop: Running) -> None:
    c = noop.connection()
    ids = []
    for n in range(3):
        c.request("POST", "/predict", json.dumps({"x": n}), {"X-Request-Id": "mine"} if n else {})
        r = c.getresponse()
        assert (r.status, json.loads(r.read())) == (200, {"y": float(n)})
        ids.append(r.getheader("x-request-id"))
    c.close()
    assert ids[0] and ids[1:] == ["mine", "mine"]


def test_pipelined_requests_are_answered_in_order(noop: Running) -> None:
    many = [post(b'{"x": %d}' % n) for n in range(60)] + [post(b'{"x": -1}', "Connection: close")]
    got = noop.talk(b"".join(many))
    values = [json.loads(part.split(b"\r\n\r\n")[1])["y"] for part in got.split(b"HTTP/1.1 ")[1:]]
    assert values == [*map(float, range(60)), -1.0]


def test_chunked_bodies_split_anywhere(noop: Running) -> None:
    data = (
        b"POST /predict HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b'3\r\n{"x\r\n5\r\n": 41\r\n1\r\n}\r\n0\r\n\r\n'
    )
    for size in (1, 7, 1000):
        with noop.raw() as s:
            for at in range(0, len(data), size):
                s.sendall(data[at : at + size])
            assert s.makefile("rb").read().endswith(b'{"y":41.0}')


def test_expect_100_continue(noop: Running) -> None:
    with noop.raw() as s:
        s.sendall(b"POST /predict HTTP/1.1\r\nHost: r\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n")
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b'{"x": 1}')
        assert s.recv(1000).endswith(b'{"y":1.0}')


def test_head_has_the_length_and_no_body(noop: Running) -> None:
    c = noop.connection()
    c.request("HEAD", "/v2/health/live")
    r = c.getresponse()
    assert (r.status, r.getheader("content-length"), r.read()) == (200, "13", b"")
    c.request("GET", "/v2/health/live")
    assert json.loads(c.getresponse().read()) == {"live": True}
    c.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("DELETE", "/v2", 405),
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/m/versions/9/infer", 404),
        ("GET", "/v2/models/%6D", 200),
        ("GET", "/v2?x=1", 200),
    ],
)
def test_what_is_not_there(noop: Running, method: str, path: str, status: int) -> None:
    r = noop.client.request(method, path)
    assert r.status_code == status
    if status != 200:
        assert set(r.json()) == {"error", "code", "hint", "retry"}
    if status == 405:
        assert r.headers["allow"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + b"A: " + b"b" * 70_000, 431),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 200000\r\n\r\n", 413),
        (b"POST /predict HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n", 413),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" + b" " * 65535 + b"\r\n" +
         b"ffff\r\n" + b" " * 65535 + b"\r\n" + b"ffff\r\n" + b" " * 65535, 413),
        (post(b" " * 100_001), 413),
    ],
)  # fmt: skip
def test_broken_http_is_refused_and_the_connection_ends(noop: Running, data: bytes, status: int) -> None:
    got = noop.talk(data)
    answers = re.split(rb"HTTP/1\.1 (?=\d{3} )", got)[1:]
    assert answers[-1].startswith(b"%d " % status), got[:300]
    assert b"connection: close" in answers[-1]
    if status != 400 or b"Upgrade" not in data:
        assert json.loads(answers[-1].split(b"\r\n\r\n", 1)[1])["hint"]
    assert noop.predict({"x": 2}).json() == {"y": 2.0}


def test_a_refused_request_waits_for_the_answers_owed_before_it(noop: Running) -> None:
    got = noop.talk(post(b'{"x": 7}') + b"rubbish\r\n\r\n")
    assert got.index(b'{"y":7.0}') < got.index(b"HTTP/1.1 400")


def test_a_slow_sender_is_cut_off(start: Callable[..., Running]) -> None:
    replica = start({"model.py": NOOP}, environment={"LEPTONAI_READ_TIMEOUT": "0.5"}).wait_ready()
    began = time.monotonic()
    assert replica.talk(b"POST /predict HTTP/1.1\r\nHost: r\r\nContent-Le").startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 15
    with replica.raw() as idle:  # an idle connection is not slow
        replica.until(lambda: time.monotonic() - began > 3)
        idle.sendall(post(b"{}"))
        assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_half_closed_clients_get_their_answer(noop: Running) -> None:
    import socket

    with noop.raw() as s:
        s.sendall(post(b'{"x": 5}'))
        s.shutdown(socket.SHUT_WR)
        assert s.makefile("rb").read().endswith(b'{"y":5.0}')


def test_a_request_whose_client_left_is_not_computed(start: Callable[..., Running]) -> None:
    text = """
import time
class Slow:
    def predict(self, name: str):
        if name == "block":
            time.sleep(1.0)
        print("ran", name, flush=True)
"""
    replica = start({"model.py": text}).wait_ready()
    with replica.raw() as blocker:
        blocker.sendall(post(b'{"name": "block"}'))
        replica.until(lambda: replica.metrics()["leptonai_in_flight"] == 1)
        with replica.raw() as gone:
            gone.sendall(post(b'{"name": "gone"}'))
            replica.until(lambda: replica.metrics()["leptonai_in_flight"] == 2)
        assert blocker.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert replica.predict({"name": "last"}).status_code == 200
    assert replica.metrics()["leptonai_errors_total{kind=client_gone}"] == 1
    assert "ran last" in replica.log() and "ran gone" not in replica.log()


def test_large_bodies_and_answers(start: Callable[..., Running]) -> None:
    text = "class Echo:\n    def predict(self, x: list[float]):\n        return x\n"
    replica = start({"model.py": text}).wait_ready()
    x: list[Any] = [n / 7 for n in range(300_000)]
    assert replica.predict({"x": x}).json() == x
