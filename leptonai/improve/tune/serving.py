"""Knobs of serving, by replaying recorded traffic against real replicas."""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leptonai.errors import LeptonError, ModelError, SpecError
from leptonai.improve.compress.precision import PRECISIONS
from leptonai.improve.compress.replica import Replica, bodies, replica
from leptonai.improve.evaluate.answers import opened
from leptonai.improve.evaluate.rows import read
from leptonai.improve.tune.study import Objective, Told, Value
from leptonai.types import Batching, Noun

KNOBS = ("batch", "policy", "threads", "replicas", "precision")
WARM = 20  # requests to each replica before any counts


class Serve(Noun, frozen=True, kw_only=True):
    """``traffic``: JSON lines ``{"at": seconds, "body": {...}}`` in order, or an .npz of rows at ``rate`` a second.

    ``aim``: what a trial's value is: the 99th or 50th percentile of the seconds from when a request was due.
    """

    model: str
    traffic: str
    rate: float = 100.0  # requests a second, of an .npz
    seconds: float = 5.0  # of the record that are replayed
    connections: int = 16
    aim: str = "p99"


class Due(Noun, frozen=True):
    at: float
    body: msgspec.Raw


def record(path: Path, task: Serve, inputs: list[dict[str, Any]], seed: int = 0) -> list[tuple[float, bytes]]:
    """Requests and when they are due, in seconds from the first. SpecError names the line that is none."""
    if path.suffix == ".npz":
        some = bodies(read(path, inputs).inputs, 256)
        gaps = np.random.default_rng(seed).exponential(1 / task.rate, max(1, int(task.rate * task.seconds)))
        return [(float(t), some[i % len(some)]) for i, t in enumerate(np.cumsum(gaps) - gaps[0])]
    found: list[tuple[float, bytes]] = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as e:
        raise SpecError(f"{path}: {e.strerror or e}", hint="traffic names JSON lines or an .npz of rows") from e
    for number, line in enumerate(lines, 1):
        try:
            due = msgspec.json.decode(line, type=Due)
        except (msgspec.DecodeError, msgspec.ValidationError) as e:
            raise SpecError(f"{path}:{number}: {e}", hint='a line is {"at": seconds, "body": {...}}') from e
        found.append((due.at, bytes(due.body)))
    if not found:
        raise SpecError(f"{path}: holds no request")
    first = found[0][0]
    return [(at - first, body) for at, body in found if at - first <= task.seconds]


def replay(replicas: list[Replica], due: list[tuple[float, bytes]]) -> list[float]:
    """Seconds of each request from when it was due: one that waits for a free connection has waited.

    Each replica here is one connection. ModelError when one answers an error.
    """
    taken, lock = iter(enumerate(due)), threading.Lock()
    times, wrong = [0.0] * len(due), list[LeptonError]()
    began = time.perf_counter() + 0.05

    def run(one: Replica) -> None:
        while not wrong:
            with lock:
                index, (at, body) = next(taken, (-1, (0.0, b"")))
            if index < 0:
                return
            time.sleep(max(0.0, began + at - time.perf_counter()))
            try:
                one.ask([body], 1, 10.0)
            except LeptonError as e:
                wrong.append(e)
            except OSError as e:
                wrong.append(ModelError(f"the replica does not answer: {e}"))
            times[index] = time.perf_counter() - began - at

    threads = [threading.Thread(target=run, args=(one,)) for one in replicas]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if wrong:
        raise wrong[0]
    return times


def objective(task: Serve, base: Path, seed: int) -> Objective:
    """Smaller is better: seconds. Precisions are made once."""
    model = base / task.model
    if task.aim not in ("p50", "p99"):
        raise SpecError(f"aim is {task.aim!r}; it must be p50 or p99")
    predictor = opened(model)
    due = record(base / task.traffic, task, predictor.inputs, seed)
    work = tempfile.TemporaryDirectory(prefix="leptonai-")
    made: dict[str, Path] = {"fp32": model}

    def value(params: dict[str, Value], told: Told) -> float:
        if unknown := sorted(set(params) - set(KNOBS)):
            raise SpecError(f"knob {unknown[0]!r} is not known", hint=f"known: {', '.join(KNOBS)}")
        precision = str(params.get("precision", "fp32"))
        if precision not in made:
            if precision not in PRECISIONS or model.suffix != ".onnx":
                raise SpecError(f"precision {precision!r} needs an .onnx model; known: {', '.join(PRECISIONS)}")
            target = Path(work.name) / f"{len(made)}.onnx"
            rows = read(base / task.traffic, predictor.inputs).inputs if task.traffic.endswith(".npz") else {}
            PRECISIONS[precision](model, target, rows)
            made[precision] = target
        options = {"threads": int(params["threads"])} if "threads" in params else {}
        batching = Batching(max_size=int(params.get("batch", 32)), policy=params.get("policy", "adaptive"))  # type: ignore[arg-type]
        with ExitStack() as stack:
            count = int(params.get("replicas", 1))
            running = [stack.enter_context(replica(made[precision], options, batching=batching)) for _ in range(count)]
            for one in running:
                one.ask([b for _, b in due[:16]], WARM, 5.0)
            lines = [running[i % count].another() for i in range(max(task.connections, count))]
            times = replay(lines, due)
            for line in lines:
                line.close()
        return float(np.quantile(times, 0.99 if task.aim == "p99" else 0.5))

    return value
