"""The TelemetryStore over a Prometheus: written by remote-write, read by its query API."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError, TelemetryError
from leptonai.platforms.prometheus.encode import encode, label_bytes
from leptonai.platforms.prometheus.recent import Found, Recent
from leptonai.platforms.telemetry import answer, check_stretch
from leptonai.protocols import Floats
from leptonai.settings import Prometheus, Telemetry
from leptonai.types import Series, Signal

log = logging.getLogger(__name__)
BATCH = 10_000  # samples a write
EVERY = 0.5  # seconds between two looks at what waits
RETRY = 1.0  # seconds after a write that failed
AGAIN = 30.0  # seconds without asking for the past after a question that failed: each may take ``prometheus.timeout``
TICK = 0.001  # seconds: Prometheus counts in milliseconds
_TOO_OLD = re.compile(r"out of bounds|out of order|too old")  # answered 500 by some versions (2.42)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
Known = NDArray[np.int32]


class PrometheusStore:
    """Times are kept to the millisecond. Prometheus must run with ``--web.enable-remote-write-receiver``, and with
    ``storage.tsdb.out_of_order_time_window`` in its configuration for samples that come late; those it refuses are
    counted. ``counts``: ``written``, ``refused`` (by Prometheus, for good), ``dropped`` (too many waited), ``failed``.

    With ``keep`` the newest so many seconds are answered from memory, at the price of an embedded store: who watches
    reads the same stretch each second. What came before this process is asked of Prometheus once a name; while it is
    away the newest seconds are answered without that.
    """

    def __init__(
        self,
        settings: Prometheus,
        keep: float = 0.0,
        limits: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """SpecError: ``prometheus.url`` is no URL. That Prometheus answers is not asked: it may come later."""
        if not settings.url.startswith(("http://", "https://")):
            raise SpecError(f"prometheus.url {settings.url!r} is no URL", hint="like http://127.0.0.1:9090")
        self.settings = settings
        self.counts: dict[str, int] = {}
        self.generation = 0  # ids given by ``series`` hold as long as this store
        self._http = httpx.Client(base_url=settings.url, timeout=settings.timeout, trust_env=False)
        self._ids: dict[tuple[str, frozenset[tuple[str, str]]], int] = {}
        self._labels: list[bytes] = []
        self._recent = Recent(keep, limits or Telemetry(), clock()) if keep else None
        self._asked_in_vain = float("-inf")
        self._waiting: deque[tuple[int, float, float]] = deque()
        self._busy = self._failing = self._closed = False
        self._changed = threading.Condition()
        self._sender = threading.Thread(target=self._send_on, name="prometheus", daemon=True)
        self._sender.start()

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, batch: Sequence[Signal]) -> None:
        """Handed to a thread that writes; a read that follows waits until it has, as long as Prometheus answers."""
        ids = np.fromiter((self.series(s.name, s.labels) for s in batch), np.int32, len(batch))
        at = np.fromiter((s.at for s in batch), np.float64, len(batch))
        self.append(ids, at, np.fromiter((s.value for s in batch), np.float64, len(batch)))

    def series(self, name: str, labels: dict[str, str]) -> int:
        """The id under which ``append`` takes samples of a series."""
        key = (name, frozenset(labels.items()))
        with self._changed:
            id = self._ids.get(key)
            if id is None:
                id = self._ids[key] = len(self._labels)
                self._labels.append(label_bytes(name, {**labels, **self.settings.labels}))
                if self._recent:
                    self._recent.named(name, labels)
            return id

    def append(self, ids: Known, at: Floats, value: Floats) -> None:
        """``write`` for columns. Never waits for Prometheus."""
        with self._changed:
            self._waiting.extend(zip(ids.tolist(), at.tolist(), value.tolist(), strict=True))
            if self._recent:
                self._recent.put(ids, at, value)
            over = len(self._waiting) - self.settings.pending
            if over > 0:
                self._count("dropped", over)
                for _ in range(over):
                    self._waiting.popleft()
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait until all is written; not while Prometheus is away."""
        deadline = time.monotonic() + self.settings.timeout
        with self._changed:
            while (self._waiting or self._busy) and not self._failing and time.monotonic() < deadline:
                self._changed.wait(0.05)

    def close(self) -> None:
        self.settle()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._sender.join(2 * self.settings.timeout)
        self._http.close()

    def _send_on(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait(EVERY)
                if self._closed:
                    return
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                self._busy = True
            kept = self._send(batch)
            with self._changed:
                self._busy, self._failing = False, not kept
                if not kept:
                    self._waiting.extendleft(reversed(batch))
                self._changed.notify_all()
                if not kept and not self._closed:
                    self._changed.wait(RETRY)

    def _send(self, batch: list[tuple[int, float, float]]) -> bool:
        """False: it should be tried again. What Prometheus refuses is found by halves, so that the rest is kept."""
        by_id: dict[int, dict[int, tuple[float, float]]] = {}
        for id, at, value in batch:
            by_id.setdefault(id, {})[round(at * 1000)] = (at, value)  # of one moment the later one
        body = encode((self._labels[id], [own[k] for k in sorted(own)]) for id, own in by_id.items())
        headers = {
            "content-encoding": "snappy",
            "content-type": "application/x-protobuf",
            "x-prometheus-remote-write-version": "0.1.0",
        }
        try:
            answer = self._http.post("/api/v1/write", content=body, headers=headers)
        except httpx.HTTPError as e:
            return self._failed(str(e) or type(e).__name__)
        refused = answer.status_code == 400 or (answer.status_code >= 500 and _TOO_OLD.search(answer.text))
        if not refused and answer.status_code >= 300:
            hint = "; it needs --web.enable-remote-write-receiver" if answer.status_code == 404 else ""
            return self._failed(f"answered {answer.status_code}{hint}")
        if refused and len(batch) > 1:
            middle = len(batch) // 2
            return self._send(batch[:middle]) and self._send(batch[middle:])
        if refused:
            if self._count("refused") == 1:
                log.error("%s refuses samples: %s; told once, counted", self.settings.url, answer.text[:300].strip())
        else:
            self._count("written", len(batch))
        if self._failing:
            log.info("%s takes telemetry again", self.settings.url)
        return True

    def _failed(self, why: str) -> bool:
        self._count("failed")
        if not self._failing:
            log.error("telemetry cannot be written to %s: %s; it waits", self.settings.url, why)
        return False

    def _count(self, what: str, by: int = 1) -> int:
        self.counts[what] = self.counts.get(what, 0) + by
        return self.counts[what]

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(
        self, name: str, start: float, end: float, labels: dict[str, str] | None = None, step: float = 0.0
    ) -> list[Series]:
        """As the protocol says, ordered by labels. TelemetryError: Prometheus does not answer, or says no."""
        check_stretch(name, start, end, step)
        if not _NAME.fullmatch(name):
            return []
        if self._recent and (found := self._lately(name, start, end, labels or {})) is not None:
            return answer(name, found, start, end, step)
        self.settle()
        which = _selector(name, {**(labels or {}), **self.settings.labels})
        told = self._means(which, start, end, step) if step else self._raw(which, start, end)
        return sorted((self._series(name, m) for m in told), key=lambda s: sorted(s.labels.items()))

    def _lately(self, name: str, start: float, end: float, labels: dict[str, str]) -> list[Found] | None:
        """The answer from memory; None: it does not reach back so far."""
        recent = self._recent
        assert recent is not None
        with self._changed:
            if start < recent.reach:
                return None
            missing = start < recent.since and name not in recent.before
        if missing and time.monotonic() - self._asked_in_vain >= AGAIN:
            try:
                told = self._raw(_selector(name, self.settings.labels), recent.since - recent.keep, recent.since)
                before = [self._series(name, m) for m in told]
                with self._changed:
                    recent.before[name] = [(s.labels, np.array(s.at), np.array(s.value)) for s in before]
                self._asked_in_vain = float("-inf")
            except TelemetryError as e:
                if self._asked_in_vain == float("-inf"):
                    log.warning("what came before this start is missing for now: %s", e.message)
                self._asked_in_vain = time.monotonic()
        with self._changed:
            return recent.between(name, start, end, labels)

    def names(self) -> list[str]:
        """The names of all signals that are kept, ascending."""
        self.settle()
        if self._recent and self._failing:
            with self._changed:
                return sorted(self._recent.memory.names())
        match = {"match[]": _selector("", self.settings.labels)} if self.settings.labels else {}
        return sorted(self._ask("/api/v1/label/__name__/values", match))

    def _raw(self, which: str, start: float, end: float) -> Any:
        """A range selector gives the samples as they are; at ``t`` over ``d`` it covers [t - d, t], both closed."""
        last = math.ceil(end * 1000) - 1
        first = math.ceil(start * 1000)
        if last < first:
            return []
        span = max(1, last - first)
        return self._ask("/api/v1/query", {"query": f"{which}[{span}ms]", "time": f"{last / 1000:.3f}"})["result"]

    def _means(self, which: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """``query_range`` at the last millisecond of each step, so that each mean is over ``[begin, begin + step)``."""
        steps = math.ceil((end - start) / step)
        width = max(1, round(step * 1000) - 1)
        params = {
            "query": f"avg_over_time({which}[{width}ms])",
            "start": f"{start + step - TICK:.3f}",
            "end": f"{start + steps * step - TICK:.3f}",
            "step": f"{step:.3f}",
        }
        out = []
        for found in self._ask("/api/v1/query_range", params)["result"]:
            value = [math.nan] * steps
            for at, text in found["values"]:
                slot = round((float(at) + TICK - start) / step) - 1
                if 0 <= slot < steps:
                    value[slot] = float(text)
            pairs = [[start + i * step, v] for i, v in enumerate(value)]
            out.append({"metric": found["metric"], "values": pairs})
        return out

    def _series(self, name: str, found: dict[str, Any]) -> Series:
        own = {k: v for k, v in found["metric"].items() if k != "__name__" and k not in self.settings.labels}
        values = found["values"]
        return Series(name=name, labels=own, at=[float(a) for a, _ in values], value=[float(v) for _, v in values])

    def _ask(self, path: str, params: dict[str, str]) -> Any:
        try:
            answer = self._http.post(path, data=params) if "query" in path else self._http.get(path, params=params)
            told = msgspec.json.decode(answer.content, type=dict[str, Any])
        except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as e:
            raise TelemetryError(
                f"{self.settings.url} does not answer as a Prometheus: {str(e) or type(e).__name__}",
                hint="see prometheus.url in settings.yaml",
            ) from e
        if told.get("status") != "success":
            raise TelemetryError(
                f"{self.settings.url}: {told.get('errorType', answer.status_code)}: {told.get('error', '')}",
                hint="see its log; prometheus.url in settings.yaml names it",
                retry=answer.status_code >= 500,
            )
        return told["data"]


def _selector(name: str, labels: dict[str, str]) -> str:
    matches = ",".join(f"{k}={msgspec.json.encode(v).decode()}" for k, v in sorted(labels.items()))
    return f"{name}{{{matches}}}"
