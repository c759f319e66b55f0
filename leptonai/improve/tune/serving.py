"""Knobs of serving, by replaying recorded traffic against real replicas: what each setting measured, and the choice.

The same stretch of the record is replayed to the setting and, in the same second, to a reference: one replica of the
model as it is. What is compared is the ratio of the two, for a machine has moods, and they hit both. A stretch begins
with an empty queue, though; so the whole record is replayed to the setting too, and its seconds are what is promised.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from leptonai.errors import LeptonError, ModelError, SpecError, needs
from leptonai.improve.compress.front import beats
from leptonai.improve.compress.precision import PRECISIONS
from leptonai.improve.compress.replica import Replica, bodies, replica
from leptonai.improve.evaluate.answers import opened
from leptonai.improve.evaluate.rows import read
from leptonai.improve.tune.study import Told, Value
from leptonai.types import Batching, Noun

KNOBS = ("batch", "policy", "wait", "threads", "replicas", "precision")
WARM = 20  # requests to each replica before any counts
RUSH = 1.0  # seconds in which as much is asked as the connections allow, for the throughput
STRETCH = 0.5  # seconds of the record that are replayed at once, to one and then to the other


class Serve(Noun, frozen=True, kw_only=True):
    """``traffic``: JSON lines ``{"at": seconds, "body": {...}}`` in order, or an .npz of rows at ``rate`` a second.

    ``log``: prediction logs (a pattern) that say when requests came, in place of ``rate``; they hold no bodies.
    ``aim``: what a trial's value is: the 99th or 50th percentile of the seconds from when a request was due, over that
    of the reference.
    ``siblings``: models for the knob ``precision`` beside ``fp32``, which is ``model``; others are made of it.
    """

    model: str
    traffic: str
    log: str | None = None
    rate: float = 100.0  # requests a second, of an .npz
    seconds: float = 5.0  # of the record that are replayed; of a log, the busiest
    connections: int = 16
    aim: str = "p99"
    latency: float | None = None  # seconds that the 99th percentile may take; None: nothing is chosen by it
    siblings: dict[str, str] = {}


class Measured(Noun, frozen=True, kw_only=True):
    """One setting on this machine. Seconds count from when a request was due; ``rate``: answers a second at most."""

    params: dict[str, Any]
    p50: float  # of the whole record, replayed without a break: what queues up stays
    p99: float
    rate: float
    processors: int  # replicas x threads
    asked: float = nan  # requests a second of the record; nan: not known
    beside50: float = nan  # times that of the reference, in the same seconds; nan: not measured so
    beside99: float = nan
    cpu: float = nan  # seconds of processor time a request, of all replicas

    @property
    def slow(self) -> float:
        """What settings are compared by: the 99th percentile, beside the reference where there was one."""
        return self.p99 if isnan(self.beside99) else self.beside99

    @property
    def keeps(self) -> bool:
        """Whether it can answer as much as came. What cannot queues up more with every second."""
        return not self.rate < self.asked


def front(trials: Sequence[Measured]) -> list[Measured]:
    """Those that no other one beats in the 99th percentile, the throughput and the processors together."""

    def of(t: Measured) -> tuple[float, float, int]:
        return t.slow, -t.rate, t.processors

    return [b for b in trials if not any(beats(of(a), of(b)) for a in trials)]


def choice(trials: Sequence[Measured], latency: float | None) -> Measured | None:
    """On the front of those that keep up and are within ``latency`` seconds: the fewest processors, then the highest
    throughput; None: none is within.

    Without ``latency`` the lowest 99th percentile, of those that keep up if any does.
    """
    keep = [t for t in trials if t.keeps]
    if latency is None:
        return min(front(keep or trials), key=lambda t: (t.slow, t.processors), default=None)
    return min(
        front([t for t in keep if t.p99 <= latency]), key=lambda t: (t.processors, -t.rate, t.slow), default=None
    )


class Due(Noun, frozen=True):
    at: float
    body: msgspec.Raw


class _Predicted(msgspec.Struct):
    """Of a line of a prediction log, what is wanted here."""

    at: float
    seconds: float


def came(pattern: Path, seconds: float) -> list[float]:
    """When the requests of the prediction logs came, in the busiest stretch of ``seconds``, from its first one."""
    root = Path(pattern.anchor or ".")
    files = sorted(root.glob(str(pattern.relative_to(root))))
    times: list[float] = []
    for file in files:
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            try:
                found = msgspec.json.decode(line, type=_Predicted)
            except (msgspec.DecodeError, UnicodeDecodeError) as e:
                raise SpecError(f"{file}:{number}: {e}", hint="log names files of a replica's predictions/") from e
            times.append(found.at - found.seconds)
    if not times:
        raise SpecError(f"{pattern}: no request is in it", hint="log: ~/.leptonai/run/NAME-*/predictions/*.jsonl")
    every = np.sort(np.array(times))
    counts = np.searchsorted(every, every + seconds, side="right") - np.arange(len(every))
    start = int(np.argmax(counts))
    return [float(t - every[start]) for t in every[start : start + int(counts[start])]]


def record(path: Path, task: Serve, inputs: list[dict[str, Any]], seed: int = 0) -> list[tuple[float, bytes]]:
    """Requests and when they are due, in seconds from the first. SpecError names the line that is none."""
    if task.log is not None and path.suffix != ".npz":
        raise SpecError(f"traffic is {path.name}; with log it must be an .npz", hint="a log holds no bodies")
    if path.suffix == ".npz":
        some = bodies(read(path, inputs).inputs, 256)
        if task.log is not None:
            return [
                (t, some[i % len(some)])
                for i, t in enumerate(came(path.parent / Path(task.log).expanduser(), task.seconds))
            ]
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

    Each replica here is one connection. ModelError when one answers an error, or not at all.
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
            times[index] = time.perf_counter() - began - at

    threads = [threading.Thread(target=run, args=(one,)) for one in replicas]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if wrong:
        raise wrong[0]
    return times


class Pair(NamedTuple):
    """Seconds of the same requests, of the reference and of the setting."""

    reference: list[float]
    other: list[float]


def stretches(due: Sequence[tuple[float, bytes]], seconds: float = STRETCH) -> list[list[tuple[float, bytes]]]:
    """The record cut in parts of ``seconds``, each from its own beginning; those without a request are left out."""
    parts: dict[int, list[tuple[float, bytes]]] = {}
    for at, body in due:
        number = int(at // seconds)
        parts.setdefault(number, []).append((at - number * seconds, body))
    return [parts[n] for n in sorted(parts)]


def pair(reference: list[Replica], other: list[Replica], due: list[tuple[float, bytes]], reference_first: bool) -> Pair:
    """One stretch replayed to both, one after the other."""
    if reference_first:
        return Pair(replay(reference, due), replay(other, due))
    later = replay(other, due)
    return Pair(replay(reference, due), later)


def beside(pairs: Sequence[Pair], share: float) -> float:
    """How many times the reference's quantile: the median over the pairs, so that a bad second decides nothing."""
    return float(np.median([np.quantile(p.other, share) / np.quantile(p.reference, share) for p in pairs]))


def throughput(lines: list[Replica], some: list[bytes]) -> float:
    """Answers a second while every connection asks again as soon as it was answered."""
    counts = [0] * len(lines)
    end = time.perf_counter() + RUSH

    def run(index: int) -> None:
        with contextlib.suppress(LeptonError):  # what it cannot bear is no throughput
            while time.perf_counter() < end:
                counts[index] += len(lines[index].ask(some, 1, 10.0))

    began = time.perf_counter()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(lines))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(counts) / (time.perf_counter() - began)


def kept(file: Path) -> list[Measured]:
    """What ``objective`` wrote there. Left is a line that a kill cut short, and one of a version that measured
    otherwise: without a reference, or with a queue that was emptied every half second.
    """
    found: list[Measured] = []
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line, type=Measured))
    return [t for t in found if not isnan(t.beside99) and not isnan(t.asked)]


def asked(due: Sequence[tuple[float, bytes]]) -> float:
    """Requests a second of the record; one of less than a second is taken to be of a second: a few say no rate."""
    return len(due) / max(1.0, due[-1][0])


def batching(params: dict[str, Value]) -> Batching:
    """What the knobs say of it: whoever waits does so by ``eager``."""
    wait = float(params.get("wait", 0.0))
    policy = "eager" if wait > 0 else params.get("policy", "adaptive")
    return Batching(max_size=int(params.get("batch", 32)), policy=policy, max_wait=wait)  # type: ignore[arg-type]


class Serving:
    """A trial's objective: smaller is better, times the reference's. What each trial measured is a line of ``file``."""

    def __init__(self, task: Serve, base: Path, seed: int, file: Path | None = None) -> None:
        """SpecError names what cannot be replayed or served."""
        if task.aim not in ("p50", "p99"):
            raise SpecError(f"aim is {task.aim!r}; it must be p50 or p99")
        for name, value, least, most in (
            ("rate", task.rate, 0.01, 1e6),
            ("seconds", task.seconds, 0.1, 3600.0),
            ("connections", task.connections, 1, 10_000),
            ("latency", task.latency, 1e-6, 3600.0),
        ):
            if value is not None and not least <= value <= most:
                raise SpecError(f"{name} is {value:g}; it must be {least:g} to {most:g}")
        self.task, self.file = task, file
        self._model, self._traffic = base / task.model, base / task.traffic
        siblings = {name: base / path for name, path in task.siblings.items()}
        for name, path in siblings.items():
            if not path.exists():
                raise SpecError(f"siblings: {name}: {path}: no such file", hint="siblings: {int8: model-int8.onnx}")
        self._inputs = opened(self._model).inputs
        self.due = record(self._traffic, task, self._inputs, seed)
        self._work = Path(tempfile.mkdtemp(prefix="leptonai-"))
        weakref.finalize(self, shutil.rmtree, self._work, ignore_errors=True)
        self._made: dict[str, Path] = {"fp32": self._model, **siblings}
        self._reference: list[Replica] = []
        self._running = ExitStack()
        weakref.finalize(self, self._running.close)

    def model(self, params: Mapping[str, Value]) -> Path:
        """The model of a setting; made once, there until the end of this object."""
        precision = str(params.get("precision", "fp32"))
        if precision not in self._made:
            if precision not in PRECISIONS or self._model.suffix != ".onnx":
                known = ", ".join([*PRECISIONS, *self.task.siblings])
                raise SpecError(f"precision {precision!r} needs an .onnx model; known: {known}")
            needs(f"precision {precision!r}", "onnxruntime", "onnx")
            target = self._work / f"{len(self._made)}.onnx"
            rows = read(self._traffic, self._inputs).inputs if self._traffic.suffix == ".npz" else {}
            try:
                PRECISIONS[precision](self._model, target, rows)
            except LeptonError:
                raise
            except Exception as e:
                raise ModelError(f"precision {precision!r} cannot be made of {self._model.name}: {e}") from e
            self._made[precision] = target
        return self._made[precision]

    def reference(self) -> list[Replica]:
        """Connections to one warm replica of the model as it is; it runs until ``forget``, or the end of this object.

        ModelError when it does not answer; it is gone then.
        """
        if not self._reference:
            with ExitStack() as stack:
                one = stack.enter_context(replica(self._model))
                one.ask([b for _, b in self.due[:16]], WARM, 5.0)
                lines = [one.another() for _ in range(self.task.connections)]
                for line in lines:
                    stack.callback(line.close)
                self._running.enter_context(stack.pop_all())
            self._reference = lines
        return self._reference

    def forget(self) -> None:
        """The reference is gone; the next trial gets a new one."""
        self._reference = []
        self._running.close()

    def _pairs(self, lines: list[Replica]) -> list[Pair]:
        """The record, stretch by stretch. Whoever did not answer: the reference may be dead, and is not asked again."""
        with ExitStack() as failed:
            failed.callback(self.forget)
            reference = self.reference()
            pairs = [pair(reference, lines, part, bool(n % 2)) for n, part in enumerate(stretches(self.due))]
            failed.pop_all()
        return pairs

    def __call__(self, params: dict[str, Value], told: Told) -> float:
        if unknown := sorted(set(params) - set(KNOBS)):
            raise SpecError(f"knob {unknown[0]!r} is not known", hint=f"known: {', '.join(KNOBS)}")
        model = self.model(params)
        threads, count = int(params.get("threads", 1)), int(params.get("replicas", 1))
        options = {"threads": threads} if "threads" in params else {}
        self.reference()
        with ExitStack() as stack:
            rules = batching(params)
            running = [stack.enter_context(replica(model, options, batching=rules)) for _ in range(count)]
            some = [b for _, b in self.due[:16]]
            for one in running:
                one.ask(some, WARM, 5.0)
            lines = [running[i % count].another() for i in range(max(self.task.connections, count))]
            for line in lines:
                stack.callback(line.close)
            used = -sum(one.processor() for one in running)
            pairs = self._pairs(lines)
            used += sum(one.processor() for one in running)
            whole = replay(lines, self.due)
            rate = throughput(lines, some)
        p50, p99 = (float(q) for q in np.quantile(whole, (0.5, 0.99)))
        found = Measured(
            params=params, p50=p50, p99=p99, rate=rate, processors=threads * count, asked=asked(self.due),
            beside50=beside(pairs, 0.5), beside99=beside(pairs, 0.99), cpu=used / len(self.due),
        )  # fmt: skip
        if self.file is not None:
            with self.file.open("ab") as out:
                out.write(msgspec.json.encode(found) + b"\n")
        return found.beside99 if self.task.aim == "p99" else found.beside50
