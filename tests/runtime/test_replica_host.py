"""A quick model computes in the loop's own turn; nothing promised elsewhere is lost when it turns out to be slow."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from tests.runtime.conftest import Running
from tests.runtime.test_replica_http import post

MOVING = """
import asyncio, threading, time
class Moving:
    def predict(self, sleep: float = 0.0):
        time.sleep(sleep) if sleep else None
        here = any(t.name == "compute" and t.ident == threading.get_ident() for t in threading.enumerate())
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return here
        return False
"""


def moved(replica: Running) -> Running:
    """The replica once its loop has moved."""
    c = replica.connection()
    for _ in range(1100):
        c.request("POST", "/predict", b"{}")
        assert c.getresponse().read() == b"true"  # always in the one compute thread, with no loop in sight
    c.close()
    replica.until(lambda: "the loop moves to the compute thread" in replica.log())
    assert replica.predict({}).json() is True
    return replica


def test_a_quick_model_that_hangs_is_still_seen_and_comes_back(start: Callable[..., Running]) -> None:
    replica = moved(start({"model.py": MOVING}).wait_ready())
    answers: list[Any] = []
    hanging = threading.Thread(target=lambda: answers.append(replica.predict({"sleep": 4.0})))
    hanging.start()

    def look() -> Any:
        try:  # a connection that the loop accepted before it was held is silent until the run ends
            got = replica.talk(b"GET /-/ready HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n", 0.5)
        except TimeoutError:
            return None
        return got if b'"hung"' in got else None

    seen = replica.until(look)
    assert seen.startswith(b"HTTP/1.1 503") and b'"running_for":' in seen
    refused = replica.talk(post(b"{}", "Connection: close"))
    assert refused.startswith(b"HTTP/1.1 503") and b'"hung"' in refused
    hanging.join(20)
    assert answers[0].json() is True
    replica.until(lambda: replica.ready()["state"] == "ready")
    assert replica.predict({}).json() is True
    assert "the loop moves back" in replica.log()


def test_a_hung_quick_model_does_not_outlive_its_drain(start: Callable[..., Running]) -> None:
    replica = moved(start({"model.py": MOVING}, drain=0.5).wait_ready())
    with replica.raw() as s:
        s.sendall(post(b'{"sleep": 60}'))
        replica.until(lambda: "answers in its place" in replica.log())
        replica.process.send_signal(signal.SIGTERM)
        assert replica.process.wait(20) == 0
    assert "1 requests cut" in replica.log()


def test_sigterm_while_the_loop_is_away_drains(start: Callable[..., Running]) -> None:
    replica = moved(start({"model.py": MOVING}).wait_ready())
    replica.process.send_signal(signal.SIGTERM)
    assert replica.predict({}).json() is True
    assert replica.process.wait(20) == 0
    assert len(replica.predictions()) == 1102


def test_many_pipelined_requests_answered_at_once_do_not_recurse(start: Callable[..., Running]) -> None:
    count = 400
    slow = "import time\nclass A:\n    def predict(self):\n        time.sleep(0.3)\n        return 1\n"
    replica = start({"model.py": slow}).wait_ready()
    get = b"GET /v2 HTTP/1.1\r\nHost: r\r\n\r\n"
    got = replica.talk(post(b"{}") + get * count + get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert got.count(b"HTTP/1.1 200 ") == count + 2
