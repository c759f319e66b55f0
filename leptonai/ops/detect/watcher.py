"""From a stream of signals to the anomalies open now: scores, onsets, and data that stopped coming."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.base import base_tier
from leptonai.ops.detect.slots import SlotMap
from leptonai.protocols import Detector, Floats
from leptonai.series.columns import Columns
from leptonai.types import Anomaly, Key, Signal

GOLDEN = (
    "request_rate_per_second",
    "error_ratio",
    "latency_p50_seconds",
    "latency_p99_seconds",
    "slow_ratio",
    "ready_count",
)
NEEDS_TRAFFIC = frozenset(GOLDEN) - {"request_rate_per_second", "ready_count"}  # say nothing while nobody asks
MISSING = ":missing"  # suffix of the signal's name in the anomaly of data that stopped

# The least departure that matters, by unit: (absolute, share of what was expected); both must be reached. Being
# significant is not being important: 0.2 ms more on 2 ms can be a ten-sigma event and nobody's concern.
MATERIAL = {
    "_ratio": (0.02, 0.0),
    "_seconds": (0.010, 0.5),
    "_bytes": (8e6, 0.05),
    "_count": (0.5, 0.0),
    "_per_second": (1.0, 0.3),
}


class Watcher:
    """Scores every signal it is given and keeps, per series, since when it is anomalous.

    ``detector``: the base tier unless given. ``score``: -log10 tail probability at which a point counts. ``hold``: an
    anomaly ends when no point counted for this many seconds. ``forget``: a series not seen for this many seconds
    gives its slot back and is learnt anew if it returns.

    A golden signal of a service that came regularly and stopped is itself an anomaly (name + ``:missing``; score =
    steps missed x -log10 of the share of steps it used to miss, at least 0.01), from ``absent`` steps on. Not when its
    service is not expected, nor, for ratios and latencies, when the service is known to have no traffic.
    """

    def __init__(
        self,
        detector: Detector | None = None,
        score: float = 4.0,
        hold: float = 3.0,
        forget: float = 600.0,
        absent: int = 5,
    ) -> None:
        self.detector: Detector = detector or base_tier()
        self.score, self.hold, self.forget, self.absent = score, hold, forget, absent
        nan = float("nan")
        self._slots = SlotMap()
        self._kept = Columns(
            began=nan,
            last=nan,
            score=0.0,
            seen=nan,
            gap=0.0,
            arrivals=0.0,
            missed=0.0,
            golden=0.0,
            least=0.0,
            share=0.0,
        )
        self.detector.open(0)

    def __len__(self) -> int:
        """Series watched now."""
        return len(self._slots)

    def golden(self, service: Key) -> int:
        """How many golden signals of the service itself, not of one replica, are watched."""
        return sum(self._slots.find(name, service=service) is not None for name in GOLDEN)

    def step(
        self,
        at: float,
        signals: Sequence[Signal],
        expected: Collection[Key] | None = None,
        frozen: Collection[Key] = (),
    ) -> list[Anomaly]:
        """Take one collection; return the anomalies open at ``at``, most unlikely first.

        ``expected``: the services that should be sending (None: every one ever seen). ``frozen``: services not to be
        learnt from now, because an incident of theirs is open. Of several values of one series the last counts.
        """
        x = self._values(at, signals)
        learn = ~self._slots.of(frozen) if frozen else np.ones(self._slots.size, dtype=np.bool_)
        scored = self.detector.step(at, x, learn)
        kept = self._kept
        apart = np.abs(x - scored.expected)
        counts = (scored.score >= self.score) & (apart >= kept["least"])
        counts &= apart >= kept["share"] * np.abs(scored.expected)
        self._arrived(at, np.isfinite(x))
        kept["began"][counts & np.isnan(kept["began"])] = at
        kept["last"][counts] = at
        kept["score"][counts] = scored.score[counts]
        kept["began"][~counts & (at - kept["last"] >= self.hold)] = np.nan
        out = [
            self._anomaly(int(slot), f"{x[slot]:.4g}, expected {scored.expected[slot]:.4g} ± {scored.scale[slot]:.2g}")
            for slot in np.flatnonzero(np.isfinite(kept["began"]))
        ]
        out += self._missing(at, expected, x)
        self._release(at)
        return sorted(out, key=lambda a: (-a.score, a.signal, sorted(a.labels.items())))

    def _values(self, at: float, signals: Sequence[Signal]) -> Floats:
        placed = [self._slots.place(signal) for signal in signals]
        if self._slots.size > self._kept.slots:
            self.detector.grow(self._slots.size)
            self._kept.grow(self._slots.size)
        for (slot, new), signal in zip(placed, signals, strict=True):
            if new:
                unit = next((unit for unit in MATERIAL if signal.name.endswith(unit)), "")
                self._kept["least"][slot], self._kept["share"][slot] = MATERIAL.get(unit, (0.0, 0.0))
                self._kept["golden"][slot] = float(signal.name in GOLDEN and set(signal.labels) == {"service"})
                self._kept["seen"][slot] = at
        x = np.full(self._slots.size, np.nan)
        x[[slot for slot, _ in placed]] = [signal.value for signal in signals]
        return x

    def _arrived(self, at: float, known: NDArray[np.bool_]) -> None:
        kept = self._kept
        gain = np.maximum(1.0 / (kept["arrivals"] + 1.0), 0.02)
        share = kept["gap"] / (kept["gap"] + 1.0)
        kept["missed"][:] = np.where(known, kept["missed"] + gain * (share - kept["missed"]), kept["missed"])
        kept["arrivals"][known] += 1.0
        kept["seen"][known] = at
        kept["gap"][:] = np.where(known, 0.0, kept["gap"] + 1.0)

    def _anomaly(self, slot: int, detail: str) -> Anomaly:
        identity, kept = self._slots.identity[slot], self._kept
        began, last, score = (float(kept[name][slot]) for name in ("began", "last", "score"))
        return Anomaly(
            signal=identity.name, labels=dict(identity.labels), began=began, last=last, score=score, detail=detail
        )

    def _missing(self, at: float, expected: Collection[Key] | None, x: Floats) -> list[Anomaly]:
        kept, out = self._kept, []
        quiet = (kept["golden"] > 0) & (kept["gap"] >= self.absent) & (kept["arrivals"] >= 30)
        score = kept["gap"] * -np.log10(np.clip(kept["missed"], 0.01, 1.0))
        for slot in map(int, np.flatnonzero(quiet & (score >= self.score))):
            name, labels = self._slots.identity[slot]
            service = labels[0][1]
            rate = self._slots.find("request_rate_per_second", service=service)
            idle = rate is not None and x[rate] == 0.0
            if (expected is None or service in expected) and not (name in NEEDS_TRAFFIC and idle):
                out.append(
                    Anomaly(
                        signal=name + MISSING,
                        labels=dict(labels),
                        began=float(kept["seen"][slot]),
                        last=at,
                        score=float(min(score[slot], 30.0)),
                        detail=f"no value for {at - kept['seen'][slot]:.3g} s",
                    )
                )
        return out

    def _release(self, at: float) -> None:
        taken = list(self._slots.identity)
        if not taken or (at - self._kept["seen"][taken]).max() <= self.forget:
            return
        gone = np.array([slot for slot in taken if at - self._kept["seen"][slot] > self.forget], dtype=np.int64)
        for slot in map(int, gone):
            self._slots.release(slot)
        self.detector.drop(gone)
        self._kept.drop(gone)
