"""The replica's own metrics in Prometheus text. An answer leaves one row of numbers; sums are made once a second."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
GAUGES = {
    "leptonai_in_flight": "Requests being worked on.",
    "leptonai_queued": "Samples waiting for the compute thread.",
    "leptonai_heartbeat_age_seconds": "Since the compute thread gave a sign of life.",
}
ROW = 8  # numbers an answer leaves: status, and what ``Metrics.saw`` takes besides
SPENT = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")  # of the statistics extension


class Histogram:
    """A cumulative histogram over fixed upper bounds (inclusive, as Prometheus has them)."""

    def __init__(self, name: str, help: str, bounds: Iterable[float]) -> None:
        self.name = name
        self.help = help
        self._bounds = np.array(tuple(bounds), float)
        self._labels = [f"{b:g}" for b in self._bounds] + ["+Inf"]
        self._counts = np.zeros(len(self._bounds) + 1, np.int64)
        self._sum = 0.0

    @property
    def totals(self) -> tuple[int, float]:
        """How many values were added, and their sum."""
        return int(self._counts.sum()), self._sum

    def add(self, values: Floats) -> None:
        self._counts += np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        self._sum += float(values.sum())

    def text(self) -> Iterable[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} histogram"
        total = 0
        for label, count in zip(self._labels, self._counts, strict=True):
            total += int(count)
            yield f'{self.name}_bucket{{le="{label}"}} {total}'
        yield f"{self.name}_sum {self._sum!r}"
        yield f"{self.name}_count {total}"


class Counter:
    """A counter with one label."""

    def __init__(self, name: str, help: str, label: str) -> None:
        self.name = name
        self.help = help
        self._label = label
        self.values: dict[str, int] = {}

    def add(self, label: str, amount: int = 1) -> None:
        self.values[label] = self.values.get(label, 0) + amount

    def text(self) -> Iterable[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} counter"
        for label, value in sorted(self.values.items()):
            yield f'{self.name}{{{self._label}="{label}"}} {value}'


class Run(NamedTuple):
    """One run of the model."""

    samples: int
    seconds: float
    good: bool
    again: bool = False  # of a job whose batch had failed


class Metrics:
    """Every number a replica keeps. Written by the I/O loop only, but for ``ran``.

    ``saw`` takes the row of one or more answers: (HTTP status, seconds from the request read to its answer, seconds in
    the queue, seconds its batch waited to be filled, seconds in the model, its samples, seconds to read the request's
    tensors, seconds to write the answer's). Negative: there was none, as of a job that was not computed.
    """

    def __init__(self) -> None:
        self._rows: list[float] = []
        self.saw = self._rows.extend
        self.ran: deque[Run] = deque()
        self.refused = 0  # inferences that were answered before they were jobs
        self.requests = Counter("leptonai_requests_total", "Inference requests answered, by HTTP status.", "code")
        self.errors = Counter("leptonai_errors_total", "Errors by kind.", "kind")
        self.request = Histogram("leptonai_request_seconds", "From the request read to its answer.", SECONDS)
        self.queue = Histogram("leptonai_queue_seconds", "Waiting for the compute thread.", SECONDS)
        self.wait = Histogram("leptonai_batch_wait_seconds", "Waiting for a batch to fill.", SECONDS)
        self.compute = Histogram("leptonai_compute_seconds", "In the model, per request.", SECONDS)
        self.size = Histogram("leptonai_batch_size", "Samples in a batch.", SIZES)
        self.batches: dict[int, tuple[int, float]] = {}  # samples of a batch -> (how many, seconds in the model)
        self.inferences = 0  # samples answered well
        self._spent = dict.fromkeys(SPENT, (0, 0.0))
        self._waits = RunQueue()
        for code in ("200", "400", "429", "500", "504"):
            self.requests.add(code, 0)
        for kind in ("bad_request", "model_failed", "quarantined", "shed", "timeout", "client_gone", "nan_output"):
            self.errors.add(kind, 0)

    def fold(self) -> None:
        """Sum up the rows seen so far."""
        ran = [self.ran.popleft() for _ in range(len(self.ran))]
        self.size.add(np.array([run.samples for run in ran if not run.again], float))
        for run in ran:
            if run.good:
                count, total = self.batches.get(run.samples, (0, 0.0))
                self.batches[run.samples] = (count + 1, total + run.seconds)
        whole = len(self._rows) // ROW * ROW
        if not whole:
            return
        rows = np.array(self._rows[:whole], float).reshape(-1, ROW)
        status, request, queue, wait, compute, samples, input, output = rows.T
        del self._rows[:whole]
        good = status == 200
        self.requests.add("200", int(np.count_nonzero(good)))  # others are counted as they are refused
        done = good & (compute >= 0.0)
        self.inferences += int(samples[done].sum())
        spent = (request[good], request[~good], queue[done], input[done], compute[done], output[done])
        for kind, values in zip(SPENT, spent, strict=True):
            count, total = self._spent[kind]
            self._spent[kind] = (count + len(values), total + float(values.sum()))
        for histogram, values in (
            (self.request, request),
            (self.queue, queue),
            (self.wait, wait[wait >= 0.0]),
            (self.compute, compute[compute >= 0.0]),
        ):
            histogram.add(values)

    def durations(self) -> dict[str, tuple[int, float]]:
        """(count, seconds) of each of ``SPENT``; all but ``fail`` are of inferences that were answered well."""
        self.fold()
        failed, seconds = self._spent["fail"]
        return {**self._spent, "fail": (failed + self.refused, seconds)}

    def text(self, gauges: dict[str, float], log_dropped: int) -> bytes:
        """The whole exposition, version 0.0.4."""
        self.fold()
        lines: list[str] = []
        for metric in (self.requests, self.errors, self.request, self.queue, self.wait, self.compute, self.size):
            lines += metric.text()
        lines += (
            "# HELP leptonai_prediction_log_dropped_total Prediction log lines that could not be written.",
            "# TYPE leptonai_prediction_log_dropped_total counter",
            f"leptonai_prediction_log_dropped_total {log_dropped}",
        )
        rss, cpu, start = process()
        for name, value in gauges.items():
            lines += (f"# HELP {name} {GAUGES.get(name, name)}", f"# TYPE {name} gauge", f"{name} {value!r}")
        for name, kind, help, number in (
            ("process_resident_memory_bytes", "gauge", "Memory held.", rss),
            ("process_cpu_seconds_total", "counter", "Processor time used.", cpu),
            (
                "process_cpu_wait_seconds_total",
                "counter",
                "Time its threads waited for a processor.",
                self._waits.seconds(),
            ),
            ("process_start_time_seconds", "gauge", "Start in unix time.", start),
        ):
            lines += (f"# HELP {name} {help}", f"# TYPE {name} {kind}", f"{name} {number!r}")
        return ("\n".join(lines) + "\n").encode()


_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def process() -> tuple[int, float, float]:
    """``(resident bytes, CPU seconds used, start in unix seconds)`` of this process, from /proc/self/stat."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()  # proc(5): counted from field 3
    cpu = (int(fields[11]) + int(fields[12])) / _TICK
    return int(fields[21]) * _PAGE, cpu, _boot_time() + int(fields[19]) / _TICK


class RunQueue:
    """How long the threads of this process could have run and had no processor, since it was first asked: run-queue
    delay of /proc/self/task/*/schedstat (Documentation/scheduler/sched-stats.rst), throttling by a control group's
    quota included. 0 where the kernel does not count it."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._total = 0

    def seconds(self) -> float:
        """Never less than before: what a thread that has ended waited stays counted."""
        found: dict[str, int] = {}
        with contextlib.suppress(OSError):
            for task in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    found[task.name] = int((task / "schedstat").read_text().split()[1])
        if self._known:
            # A thread's number in use again begins anew.
            self._total += sum(max(at - self._known.get(task, 0), 0) for task, at in found.items())
        self._known = found
        return self._total / 1e9
