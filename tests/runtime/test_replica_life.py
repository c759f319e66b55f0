"""A replica's life: starting, batching, failing alone, hanging, draining, faults, what it logs and counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leptonai.types import Batching
from tests.runtime.conftest import NOOP, Running, Trained

BATCHED = """
import time
class Batched:
    batch = True
    def predict(self, x: list[float]):
        time.sleep(0.05)
        if 13.0 in x:
            raise ValueError("thirteen")
        print("batch", len(x), flush=True)
        return [v * 2 for v in x]
"""


def test_it_answers_probes_while_loading_and_refuses_inference(start: Callable[..., Running], tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    text = f"""
import os, time

class A:
    def setup(self):
        while not os.path.exists({str(loaded)!r}):
            time.sleep(0.01)

    def predict(self):
        return 1
"""
    replica = start({"model.py": text})
    seen = replica.until(lambda: replica.ready() if replica.ready()["state"] == "starting" else None)
    assert set(seen) == {"state", "reason", "detail", "since", "in_flight", "running_for", "tuning", "cost"}
    assert seen["cost"] is None and seen["tuning"]["batching"]["policy"] == "adaptive"
    assert replica.client.get("/-/ready").status_code == 503
    assert replica.client.get("/v2/health/ready").status_code == 503
    assert replica.client.get("/v2/health/live").status_code == 200
    r = replica.predict({})
    assert (r.status_code, r.json()["code"], r.json()["retry"], r.headers["retry-after"]) == (
        503,
        "starting",
        True,
        "1",
    )
    loaded.touch()
    assert replica.wait_ready().predict({}).json() == 1


def many(replica: Running, values: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(len(values)) as pool:
        return list(pool.map(lambda v: replica.predict({"x": v}), values))


def test_requests_share_batches_and_a_poisoned_one_fails_alone(start: Callable[..., Running]) -> None:
    replica = start({"model.py": BATCHED}, idempotent=True).wait_ready()
    answers = many(replica, [float(n) for n in range(20)])
    for n, r in enumerate(answers):
        if n == 13:
            assert (r.status_code, r.json()["code"]) == (500, "model_failed")
            assert "thirteen" in r.json()["error"] and "Traceback" not in r.text
        else:
            assert (r.status_code, r.json()) == (200, n * 2.0)
    assert "Traceback" in replica.log()  # the whole story is for the operator
    numbers = replica.metrics()
    assert numbers["leptonai_batch_size_count"] < numbers["leptonai_batch_size_sum"] == 20
    assert numbers["leptonai_errors_total{kind=model_failed}"] == 1
    assert numbers["leptonai_requests_total{code=200}"] == 19


def test_code_that_is_not_idempotent_is_never_run_twice(start: Callable[..., Running]) -> None:
    replica = start({"model.py": BATCHED.replace("if 13.0", "print('called', x, flush=True)\n        if 13.0")})
    replica.wait_ready()
    answers = many(replica, [13.0, 13.0, *map(float, range(6))])
    assert {r.status_code for r in answers[:2]} == {500}
    called = [v for line in replica.log().splitlines() if line.startswith("called") for v in json.loads(line[7:])]
    assert sorted(called) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 13.0, 13.0]


def test_requests_of_other_shapes_do_not_share_a_batch(start: Callable[..., Running]) -> None:
    text = """
import numpy as np
import time
class Sum:
    batch = True
    def predict(self, x: np.ndarray):
        time.sleep(0.02)
        return x.sum(axis=1)
"""
    replica = start({"model.py": text}).wait_ready()
    answers = many(replica, [[1.0] * (1 + n % 3) for n in range(30)])
    assert [r.json() for r in answers] == [1.0 + n % 3 for n in range(30)]


def test_past_max_queue_requests_are_shed_with_429(start: Callable[..., Running]) -> None:
    text = "import time\nclass A:\n    def predict(self, x: float):\n        time.sleep(0.3)\n        return x\n"
    replica = start({"model.py": text}, batching=Batching(max_queue=2)).wait_ready()
    answers = many(replica, [1.0] * 12)
    codes = [r.status_code for r in answers]
    assert set(codes) == {200, 429} and codes.count(200) >= 2
    shed = next(r for r in answers if r.status_code == 429)
    assert (shed.json()["code"], shed.json()["retry"], shed.headers["retry-after"]) == ("shed", True, "1")
    assert replica.metrics()["leptonai_errors_total{kind=shed}"] == codes.count(429)


def test_a_hung_model_is_seen_while_probes_are_still_answered(start: Callable[..., Running]) -> None:
    text = "import time\nclass A:\n    def predict(self, x: float):\n        time.sleep(x)\n        return x\n"
    replica = start({"model.py": text}).wait_ready()
    for _ in range(5):
        replica.predict({"x": 0.0})
    threading.Thread(target=replica.predict, args=({"x": 4.0},), daemon=True).start()
    seen = replica.until(lambda: replica.ready() if replica.ready()["reason"] == "hung" else None)
    assert seen["state"] == "failed" and seen["in_flight"] == 1 and seen["running_for"] > 1.0 and seen["detail"]
    replica.until(lambda: replica.ready()["state"] == "ready")  # it came back by itself


def test_the_canned_inference_runs_when_idle_and_its_failure_is_not_ready(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    flag = tmp_path / "broken"
    text = f"""
import os
class A:
    def predict(self, x: float):
        if os.path.exists({str(flag)!r}):
            raise RuntimeError("no longer")
        return x
"""
    golden = json.dumps([{"inputs": {"x": 1.0}, "outputs": 1.0}])
    replica = start({"model.py": text, "golden.json": golden}).wait_ready()
    flag.touch()
    seen = replica.until(lambda: replica.ready() if replica.ready()["state"] == "failed" else None)
    assert seen["reason"] == "canned_failed" and "no longer" in seen["detail"]
    flag.unlink()
    replica.until(lambda: replica.ready()["state"] == "ready")
    assert replica.metrics()["leptonai_requests_total{code=200}"] == 0


def test_sigterm_under_load_loses_no_request(start: Callable[..., Running]) -> None:
    """Every request sent while the replica drains is answered 200; it exits 0 once nobody sends any more."""
    replica = start({"model.py": NOOP}).wait_ready()
    stop, told = threading.Event(), threading.Event()
    after = [0] * 2  # few senders and a fast model: there are moments with nothing in flight, and it must not go then

    def send(n: int) -> int:
        sent = 0
        c = replica.connection()
        while not stop.is_set():
            if c.sock is None:  # told to close: a client opens another
                c.close()
                c = replica.connection()
            c.request("POST", "/predict", json.dumps({"x": sent}))
            r = c.getresponse()
            assert (r.status, json.loads(r.read())) == (200, {"y": float(sent)})
            sent += 1
            after[n] += told.is_set()
        c.close()
        return sent

    with ThreadPoolExecutor(2) as pool:
        sums = [pool.submit(send, n) for n in range(2)]
        replica.until(lambda: replica.metrics()["leptonai_requests_total{code=200}"] > 200)
        replica.process.send_signal(signal.SIGTERM)
        told.set()
        replica.until(lambda: all(n > 300 for n in after) or any(s.done() for s in sums))
        assert replica.ready()["state"] == "stopping"
        stop.set()
        total = sum(s.result() for s in sums)
    assert replica.process.wait(20) == 0
    assert not Path(replica.socket).exists()
    assert len(replica.predictions()) == total


def test_drain_has_an_end(start: Callable[..., Running]) -> None:
    text = "import time\nclass A:\n    def predict(self):\n        time.sleep(60)\n"
    replica = start({"model.py": text}, drain=0.3).wait_ready()
    threading.Thread(target=lambda: _ignore(lambda: replica.predict({})), daemon=True).start()
    replica.until(lambda: replica.metrics()["leptonai_in_flight"] == 1)
    replica.process.terminate()
    assert replica.process.wait(20) == 0
    assert "1 requests cut" in replica.log()


def _ignore(call: Callable[[], Any]) -> None:
    import httpx

    try:
        call()
    except httpx.TransportError:
        pass


def test_sigterm_while_loading_ends_it(start: Callable[..., Running]) -> None:
    text = "import time\nclass A:\n    def setup(self): time.sleep(60)\n    def predict(self): pass\n"
    replica = start({"model.py": text})
    replica.until(lambda: replica.ready()["state"] == "starting")
    replica.process.terminate()
    assert replica.process.wait(20) == 0


def test_the_prediction_log_joins_by_request_id_and_stays_bounded(start: Callable[..., Running]) -> None:
    replica = start({"model.py": NOOP}, log_bytes=40_000).wait_ready()
    before = time.time()
    for n in range(3):
        assert replica.predict({"x": n}, **{"x-request-id": f"r{n}"}).status_code == 200
    replica.until(lambda: len(replica.predictions()) == 3)
    line = replica.predictions()[2]
    assert set(line) - {"input"} == {"id", "at", "digest", "seconds", "code", "output", "queue", "wait", "compute"}
    assert (line["id"], line["code"], line["output"]) == ("r2", 200, 2.0)
    assert before - 1 < line["at"] < time.time() + 1 and 0 < line["seconds"] < 10 and len(line["digest"]) == 16
    for n in range(1000):
        replica.predict({"x": n})
    replica.until(lambda: replica.predictions() and replica.predictions()[-1]["output"] == 999.0)
    files = list((replica.folder / "predictions").iterdir())
    assert len(files) == 2 and sum(f.stat().st_size for f in files) <= 40_000


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_drops_log_lines_and_fails_no_request(start: Callable[..., Running]) -> None:
    replica = start({"model.py": NOOP}).wait_ready()
    folder = replica.folder / "predictions"
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("this machine may not mount a tmpfs")
    try:
        for n in range(300):
            assert replica.predict({"x": n}).status_code == 200
        replica.until(lambda: replica.metrics()["leptonai_prediction_log_dropped_total"] > 0)
        assert all(line["code"] == 200 for line in replica.predictions())  # every line that is there is whole
    finally:
        replica.process.kill()
        replica.process.wait()
        subprocess.run(["umount", str(folder)], check=True)


def test_nan_outputs_become_null_and_are_counted(start: Callable[..., Running]) -> None:
    text = "class A:\n    def predict(self): return {'a': [1.0, float('nan')], 'b': float('inf')}\n"
    replica = start({"model.py": text}).wait_ready()
    assert replica.predict({}).json() == {"a": [1.0, None], "b": None}
    assert replica.metrics()["leptonai_errors_total{kind=nan_output}"] == 2


def fault(replica: Running, kind: str, amount: float, heal_after: float) -> None:
    r = replica.client.post("/-/fault", json={"kind": kind, "amount": amount, "heal_after": heal_after})
    assert r.status_code == 200, r.text


def test_a_leak_is_real_resident_memory_and_is_given_back(start: Callable[..., Running]) -> None:
    replica = start({"model.py": NOOP}).wait_ready()

    def rss() -> float:
        return replica.metrics()["process_resident_memory_bytes"]

    base = rss()
    fault(replica, "leak", 100e6, 60)
    replica.until(lambda: rss() > base + 60e6)
    fault(replica, "leak", 0, 0)
    replica.until(lambda: rss() < base + 30e6)


def test_delay_error_and_hog_act_and_heal(start: Callable[..., Running]) -> None:
    replica = start({"model.py": NOOP}).wait_ready()
    fault(replica, "delay", 0.2, 30)
    began = time.monotonic()
    assert replica.predict({"x": 1}).status_code == 200
    assert time.monotonic() - began >= 0.2
    fault(replica, "delay", 0, 0)
    fault(replica, "error", 1.0, 30)
    assert replica.predict({"x": 1}).json()["code"] == "injected"
    fault(replica, "error", 1.0, 0.2)
    replica.until(lambda: replica.predict({"x": 1}).status_code == 200)
    used, waited = "process_cpu_seconds_total", "process_cpu_wait_seconds_total"
    before = replica.metrics()
    fault(replica, "hog", 4.0 * (os.cpu_count() or 1), 30)  # more threads than processors: most of them wait for one
    replica.until(lambda: all(replica.metrics()[name] > before[name] + 0.3 for name in (used, waited)))
    fault(replica, "hog", 0, 0)
    r = replica.client.post("/-/fault", json={"kind": "meteor"})
    assert r.status_code == 400 and r.json()["hint"]


def test_metrics_have_the_names_others_rely_on(
    start: Callable[..., Running], digits: Trained, digits_onnx: bytes
) -> None:
    replica = start({"d.onnx": digits_onnx}).wait_ready()
    x = (digits.x[:3] / 16).tolist()
    assert replica.predict({"X": x}).status_code == 200
    numbers = replica.metrics()
    for name in ("request_seconds", "queue_seconds", "batch_wait_seconds", "compute_seconds", "batch_size"):
        assert numbers[f"leptonai_{name}_count"] == 1
        buckets = [v for k, v in numbers.items() if k.startswith(f"leptonai_{name}_bucket")]
        assert buckets == sorted(buckets) and buckets[-1] == 1
    assert numbers["leptonai_batch_size_sum"] == 3
    for name in ("leptonai_in_flight", "leptonai_queued", "leptonai_heartbeat_age_seconds"):
        assert numbers[name] >= 0
    assert numbers["process_resident_memory_bytes"] > 1e6
    assert 0 < numbers["process_cpu_seconds_total"] < 60
    assert abs(numbers["process_start_time_seconds"] - time.time()) < 120


def test_log_lines_have_a_time_and_a_level(start: Callable[..., Running]) -> None:
    import re

    replica = start({"model.py": NOOP}).wait_ready()
    first = replica.until(lambda: replica.log().splitlines() and replica.log().splitlines()[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d (info|warning|error) .+", first)
