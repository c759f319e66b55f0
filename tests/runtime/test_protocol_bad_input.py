"""What clients do wrong, on purpose or not, to a real replica through its socket: refused, and others are served."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.conftest import Running

MODEL = """
import pathlib, time
import numpy as np

class Model:
    def setup(self, options):
        self.notes = pathlib.Path(options["notes"])

    def predict(self, x: np.ndarray, pause: float = 0.0):
        with self.notes.open("a") as f:
            f.write("x")
        time.sleep(pause)
        return {"n": int(x.size)}
"""


@pytest.fixture(scope="module")
def replica(start: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory) -> Running:
    notes = tmp_path_factory.mktemp("notes") / "notes"
    running = start({"model.py": MODEL}, options={"notes": str(notes)}).wait_ready()
    running.notes = notes  # type: ignore[attr-defined]
    return running


def well(replica: Running) -> bool:
    return replica.predict({"x": [1.0, 2.0]}).json() == {"n": 2}


def post(path: str, body: bytes, *lines: str, length: int | None = None) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: r", f"Content-Length: {len(body) if length is None else length}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def statuses(got: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]


def test_a_content_length_that_is_too_small_makes_the_rest_a_broken_request(replica: Running) -> None:
    body = b'{"x": [1.0, 2.0]}'
    assert statuses(replica.talk(post("/predict", body, length=5)))[-1] == 400
    assert well(replica)


def test_a_content_length_that_is_too_large_waits_for_the_rest_and_is_cut_off(
    start: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory
) -> None:
    notes = tmp_path_factory.mktemp("slow") / "notes"
    environment = {"LEPTONAI_READ_TIMEOUT": "0.5"}
    slow = start({"model.py": MODEL}, options={"notes": str(notes)}, environment=environment).wait_ready()
    body = b'{"x": [1.0]}'
    assert statuses(slow.talk(post("/predict", body, length=len(body) + 1))) == [408]
    with slow.raw() as s:  # a client that goes instead of sending the rest is not answered, and nothing runs
        s.sendall(post("/predict", body, length=len(body) + 1))
    with slow.raw() as s:  # one byte now and then does not keep a request alive
        stop = threading.Event()

        def drip() -> None:
            for byte in post("/predict", body * 40):
                if stop.wait(0.05):
                    return
                try:
                    s.send(bytes([byte]))
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert s.recv(1000).startswith(b"HTTP/1.1 408")
        finally:
            stop.set()
            thread.join()
    assert well(slow)
    assert notes.read_text() == "x"


@pytest.mark.parametrize(
    "head",
    [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "transfer-encoding:\x0bchunked",
        "Content-Length: 7",
        "Content-Length: +3",
        "X: y\r\n Content-Length: 3",
        "X\0: y",
    ],
)
def test_requests_that_two_servers_could_read_differently_are_refused(replica: Running, head: str) -> None:
    inner = post("/predict", b'{"x": [9.0]}')
    got = replica.talk(post("/predict", b"0\r\n\r\n" + inner, head, "Connection: close"))
    assert statuses(got) == [400], got
    assert b"connection: close" in got
    assert well(replica)


def test_a_large_body_is_refused_before_it_is_held(replica: Running) -> None:
    size = 100 << 20
    with replica.raw() as s:
        s.sendall(post("/predict", b"", length=size))
        assert s.recv(1000).startswith(b"HTTP/1.1 413")
    got = b""
    with replica.raw() as s:  # the same without saying so
        s.sendall(b"POST /predict HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        try:
            for _ in range(size >> 20):
                s.sendall(piece)
        except OSError:
            pass
        try:
            got = s.recv(1000)
        except ConnectionResetError:  # it was sending when the other side closed
            got = b"HTTP/1.1 413"
    assert got.startswith(b"HTTP/1.1 413")
    assert replica.metrics()["process_resident_memory_bytes"] < 600e6
    assert well(replica)


def test_a_client_that_shuts_its_sending_side_is_answered_and_one_that_closes_is_not_computed(replica: Running) -> None:
    with replica.raw() as busy:
        busy.sendall(post("/predict", b'{"x": [1.0], "pause": 1.0}'))
        replica.until(lambda: replica.metrics()["leptonai_in_flight"] >= 1)
        with replica.raw() as s:
            s.sendall(post("/predict", b'{"x": [1.0, 2.0, 3.0]}'))
            s.shutdown(socket.SHUT_WR)
            done = replica.notes.read_text()  # type: ignore[attr-defined]
            gone = replica.raw()
            gone.sendall(post("/predict", b'{"x": [1.0]}'))
            replica.until(lambda: replica.metrics()["leptonai_in_flight"] >= 3)
            gone.close()
            assert s.recv(1000).endswith(b'{"n":3}')
    replica.until(lambda: replica.metrics()["leptonai_in_flight"] == 0)
    assert replica.notes.read_text() == done + "x"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "tensors",
    [
        [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}] * 2,
        [{"name": "x", "shape": [2], "datatype": "FLOAT", "data": [1.0, 2.0]}],
        [{"name": "x", "shape": [2], "datatype": None, "data": [1.0, 2.0]}],
        [{"name": "x", "shape": [-2, -1], "datatype": "FP64", "data": [1.0, 2.0]}],
        [{"name": "x", "shape": [2**62, 2, 2], "datatype": "FP64", "data": []}],
        [{"name": "x", "shape": [2**64 - 1], "datatype": "FP64", "data": [1.0]}],
        [{"name": "x", "shape": [0, 2**63], "datatype": "FP64", "data": []}],
        [{"name": "x", "shape": [1] * 65, "datatype": "FP64", "data": [1.0]}],
        [{"name": "x", "shape": 2, "datatype": "FP64", "data": [1.0, 2.0]}],
        [{"name": "x", "datatype": "FP64", "data": [1.0, 2.0]}],
        [],
        {},
        None,
    ],
)
def test_tensors_that_are_none(replica: Running, tensors: Any) -> None:
    r = replica.client.post("/v2/models/m/infer", json={"inputs": tensors})
    assert (r.status_code, set(r.json())) == (400, {"error", "code", "hint", "retry"}), r.text


def test_deep_and_wide_nonsense_is_refused_quickly(replica: Running) -> None:
    for body in (
        b"[" * 1_000_000,
        b'{"inputs":' * 100_000,
        b'{"x": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b"\xff" * 999,
    ):
        for path in ("/predict", "/v2/models/m/infer", "/v1/chat/completions", "/v2/repository/index"):
            r = replica.client.post(path, content=body)
            assert r.status_code in (400, 404), r.text
            json.loads(r.content)
    assert well(replica)
