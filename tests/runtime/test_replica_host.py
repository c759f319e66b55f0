"""A quick model computes in the loop's own turn; nothing promised elsewhere is lost when it turns out to be slow."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.runtime.conftest import Running
from tests.runtime.test_replica_http import post

MOVING = """
import asyncio, os, threading, time
class Moving:
    def predict(self, held: str = ""):
        while held and os.path.exists(held):
            time.sleep(0.01)
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

    def lent() -> bool:
        """A busy machine may interrupt a run for so long that the loop moves later, or back at once."""
        for _ in range(200):
            c.request("POST", "/predict", b"{}")
            assert c.getresponse().read() == b"true"  # always in the one compute thread, with no loop in sight
        log = replica.log()
        return log.count("moves to the compute thread") > log.count("moves back")

    replica.until(lent, 60.0)
    c.close()
    return replica


def test_a_quick_model_that_hangs_is_still_seen_and_comes_back(start: Callable[..., Running], tmp_path: Path) -> None:
    replica = moved(start({"model.py": MOVING}).wait_ready())
    answers: list[Any] = []
    flag = tmp_path / "held"
    flag.write_text("")  # however long it takes to be seen: what is allowed grows with the slowest run of late
    hanging = threading.Thread(target=lambda: answers.append(replica.predict({"held": str(flag)})))
    hanging.start()

    def look() -> Any:
        try:  # a connection that the loop accepted before it was held is silent until the run ends
            got = replica.talk(b"GET /-/ready HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n", 0.5)
        except TimeoutError:
            return None
        return got if b'"hung"' in got else None

    seen = replica.until(look, 60.0)
    assert seen.startswith(b"HTTP/1.1 503") and b'"running_for":' in seen
    refused = replica.talk(post(b"{}", "Connection: close"))
    assert refused.startswith(b"HTTP/1.1 503") and b'"hung"' in refused
    flag.unlink()
    hanging.join(20)
    assert answers[0].json() is True
    replica.until(lambda: replica.ready()["state"] == "ready")
    assert replica.predict({}).json() is True
    assert "the loop moves back" in replica.log()


def test_a_hung_quick_model_does_not_outlive_its_drain(start: Callable[..., Running], tmp_path: Path) -> None:
    replica = moved(start({"model.py": MOVING}, drain=0.5).wait_ready())
    with replica.raw() as s:
        s.sendall(post(b'{"held": "%b"}' % str(tmp_path).encode()))  # for ever
        replica.until(lambda: "answers in its place" in replica.log(), 60.0)
        replica.process.send_signal(signal.SIGTERM)
        assert replica.process.wait(20) == 0
    assert "1 requests cut" in replica.log()


def test_sigterm_while_the_loop_is_away_drains(start: Callable[..., Running]) -> None:
    replica = moved(start({"model.py": MOVING}).wait_ready())
    answered = replica.metrics()["leptonai_requests_total{code=200}"]
    replica.process.send_signal(signal.SIGTERM)
    assert replica.predict({}).json() is True
    assert replica.process.wait(20) == 0
    assert len(replica.predictions()) == answered + 1


def test_many_pipelined_requests_answered_at_once_do_not_recurse(start: Callable[..., Running]) -> None:
    count = 400
    slow = "import time\nclass A:\n    def predict(self):\n        time.sleep(0.3)\n        return 1\n"
    replica = start({"model.py": slow}).wait_ready()
    get = b"GET /v2 HTTP/1.1\r\nHost: r\r\n\r\n"
    got = replica.talk(post(b"{}") + get * count + get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert got.count(b"HTTP/1.1 200 ") == count + 2
