"""What a model costs where it will run: real replica processes, warm, asked in turn over their sockets."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson

from leptonai.errors import ModelError, StartError
from leptonai.improve.evaluate.rows import Array
from leptonai.types import Batching, Launch, Tuning, Variant

START = 600.0  # seconds a replica may take to load; the machine may be busy
ANSWER = 30.0  # seconds an answer may take
BUSY = (429, 503, 504)  # what a replica says that is starved, not broken
WARM = 30  # requests before any counts
BLOCK = 16  # pairs of requests in a block, one to each in turn, so that the machine's moods hit both alike
BLOCK_SECONDS = 1.0  # a block of a slow model ends after so long
ROUNDS = 20  # blocks
DRAWS = 500  # of the bootstrap


class Cost(NamedTuple):
    median: float  # seconds of a request
    p99: float
    compute: float
    speedup: float
    speedup_low: float
    speedup_high: float


class Replica:
    """One running ``python -m leptonai.runtime`` with one model."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], path: str) -> None:
        self.folder, self._process, self._path = folder, process, path
        self._connection = http.client.HTTPConnection("replica", timeout=ANSWER)

    def wait(self) -> None:
        """It is ready. ModelError as it says why not, or StartError, to be tried again, when it is not so in time."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise _failure(self.folder)
            try:
                self._connect()
                self._connection.request("GET", "/-/ready")
                answer = self._connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    return
                told = msgspec.json.decode(body)
                if told.get("state") == "failed" and told.get("reason") != "hung":  # a starved one looks hung
                    raise _failure(self.folder)
            except (OSError, http.client.HTTPException):
                self._connection.close()
            time.sleep(0.02)
        raise StartError(f"the replica was not ready within {START:g} s", retry=True)

    def _connect(self) -> None:
        if self._connection.sock is None:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(ANSWER)
            try:
                sock.connect(self._path)
            except OSError:
                sock.close()
                raise
            self._connection.sock = sock

    def ask(self, bodies: Sequence[bytes], count: int, seconds: float) -> list[float]:
        """Seconds of each request, one after the other, until ``count`` of them or ``seconds`` are over.

        ModelError when one is not answered by 200; what is asked next begins on a new connection then. It is to be
        tried again (``retry``) where time ran out: that is the machine's doing, not the model's.
        """
        times: list[float] = []
        clock = time.perf_counter
        end = clock() + seconds
        while len(times) < count and (not times or clock() < end):
            try:
                self._connect()
                began = clock()
                self._connection.request(
                    "POST", "/predict", bodies[len(times) % len(bodies)], {"content-type": "application/json"}
                )
                answer = self._connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as e:
                self._connection.close()  # half asked, or half answered: the next request would get what is left
                late = isinstance(e, TimeoutError)
                raise ModelError(f"the replica does not answer: {type(e).__name__}: {e}", retry=late) from e
            times.append(clock() - began)
            if answer.status != 200:
                raise ModelError(
                    f"the replica answers {answer.status}: {body[:200].decode('utf-8', 'replace')}",
                    retry=answer.status in BUSY,
                )
        return times

    def tune(self, batching: Batching) -> None:
        """``batching`` is in force; requests are answered within what ``types.Tuning`` says by default."""
        self._connect()
        self._connection.request("PUT", "/-/batching", msgspec.json.encode(Tuning(batching=batching)))
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise ModelError(f"the replica answers {answer.status}: {said[:200].decode('utf-8', 'replace')}")

    def processor(self) -> float:
        """Seconds of processor time that the process has used."""
        return time.clock_gettime((~self._process.pid << 3) | 2)  # its clock: clock_getcpuclockid(3), as Linux counts

    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def another(self) -> Replica:
        """One more connection to the same process."""
        return Replica(self.folder, self._process, self._path)

    def close(self) -> None:
        """This connection is closed; the process runs on."""
        self._connection.close()

    def stop(self) -> float:
        """The process is gone; the median seconds inside the model, as its log says."""
        self._connection.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        lines = [line for f in self.folder.glob("predictions/*.jsonl") for line in f.read_bytes().splitlines()]
        found = [c for line in lines if (c := _computed(line)) > 0]
        return statistics.median(found) if found else nan


def _computed(line: bytes) -> float:
    try:
        return float(orjson.loads(line).get("compute", -1))
    except orjson.JSONDecodeError:  # the last line of one that had to be killed
        return -1.0


@contextlib.contextmanager
def replica(
    model: Path, options: dict[str, Any] | None = None, trust: str = "none", batching: Batching | None = None
) -> Iterator[Replica]:
    """A warm-up away from being measured: it runs, and its model is loaded. ModelError as the replica says it."""
    root = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))
    try:
        artifact = model
        if not model.is_dir():
            artifact = root / "model"
            artifact.mkdir()
            shutil.copy(model, artifact / model.name)
        variant = Variant(
            model=str(model), options=options or {}, batching=batching or Batching(),
            trust="pickle" if trust == "pickle" else "none",
        )  # fmt: skip
        launch = Launch(
            replica="r", service="m", variant=variant, revision=1, artifact=str(artifact.resolve()),
            socket=str(root / "s"), run_dir=str(root), drain=1.0,
        )  # fmt: skip
        (root / "launch.json").write_bytes(msgspec.json.encode(launch))
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "leptonai.runtime", str(root)], stdout=log, stderr=log, env=_environment()
            )
        running = Replica(root, process, str(root / "s"))
        try:
            running.wait()
            yield running
        finally:
            running.close()
            if process.poll() is None:
                running.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _failure(folder: Path) -> ModelError:
    try:
        told = msgspec.json.decode((folder / "failure.json").read_bytes())
        return ModelError(str(told["error"]), hint=str(told.get("hint", "")))
    except (OSError, msgspec.DecodeError, KeyError):
        tail = (folder / "log").read_bytes()[-300:].decode("utf-8", "replace")
        return ModelError(f"the replica ended while loading: {' '.join(tail.split())}")


def bodies(inputs: dict[str, Array], count: int = 16) -> list[bytes]:
    """Requests of one row each, of the first ``count`` rows."""
    rows = min(count, len(next(iter(inputs.values()))))
    return [
        orjson.dumps({k: _plain(v[i : i + 1]) for k, v in inputs.items()}, option=orjson.OPT_SERIALIZE_NUMPY)
        for i in range(rows)
    ]


def _plain(value: Array) -> Any:
    return value.tolist() if value.dtype.kind == "O" or value.dtype == np.float16 else np.ascontiguousarray(value)


def compare(original: Replica, other: Replica, requests: Sequence[bytes], rounds: int = ROUNDS) -> Cost:
    """``other`` beside ``original``: one request to each in turn, the order changing each block."""
    for one in (original, other):
        one.ask(requests, WARM, 10 * BLOCK_SECONDS)
    pairs: list[list[tuple[float, float]]] = []
    for number in range(rounds):
        block: list[tuple[float, float]] = []
        end = time.perf_counter() + BLOCK_SECONDS
        while len(block) < BLOCK and (not block or time.perf_counter() < end):
            body = requests[len(block) % len(requests)]
            turn = (original, other) if number % 2 else (other, original)
            seconds = {one: one.ask([body], 1, 1.0)[0] for one in turn}
            block.append((seconds[original], seconds[other]))
        pairs.append(block)
    return cost(pairs)


def cost(blocks: Sequence[Sequence[tuple[float, float]]], seed: int = 0) -> Cost:
    """From seconds of (original, other), block by block: quantiles of the other, and the ratio of the medians.

    The interval is a bootstrap over blocks: requests of one moment are not independent. Pure.
    """
    every = [np.asarray(b) for b in blocks]
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(DRAWS):
        drawn = np.concatenate([every[i] for i in rng.integers(0, len(every), len(every))])
        middle = np.median(drawn, axis=0)
        ratios.append(middle[0] / middle[1])
    low, high = np.quantile(ratios, [0.025, 0.975])
    whole = np.concatenate(every)
    before, after = np.median(whole, axis=0)
    return Cost(
        float(after), float(np.quantile(whole[:, 1], 0.99)), nan, float(before / after), float(low), float(high)
    )
