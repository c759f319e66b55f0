"""From a stream of signals to the anomalies open now: scores, onsets, and data that stopped coming."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.groups import MOST
from leptonai.ops.detect.slots import Identity, SlotMap
from leptonai.ops.detect.tiers import Tiers
from leptonai.protocols import Detector, Floats
from leptonai.series.columns import Columns
from leptonai.types import Anomaly, Key, Reason, Signal

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
EXHAUSTION = ":exhaustion"  # of what reaches a limit soon

# The least departure that matters, by unit: (absolute, share of what was expected); both must be reached. Being
# significant is not being important: 0.2 ms more on 2 ms can be a ten-sigma event and nobody's concern.
MATERIAL = {
    "_ratio": (0.02, 0.0),
    "_seconds": (0.010, 0.5),
    "_bytes": (8e6, 0.05),
    "_count": (0.5, 0.0),
    "_per_second": (1.0, 0.3),
}


class Concern(NamedTuple):
    """Whom a series tells of, a service's key or the subject of an incident, and between which limits it is right.

    What concerns somebody sits in the full tier and is judged together with what else does. ``fills``: any level
    between the limits is as right as any other, as of a disk; only the limits and what will reach them are told.
    """

    about: str
    lower: float = float("-inf")
    upper: float = float("inf")
    fills: bool = False


class Learnt(NamedTuple):
    """Everything of some series that is worth keeping: (name, labels, whom it concerns) each, and the tiers' state."""

    series: list[tuple[str, dict[str, str], str]]
    groups: dict[str, int]
    at: float
    state: dict[str, Any]


def golden(signal: Signal) -> Concern | None:
    """Of a service itself, not of one replica."""
    mine = signal.name in GOLDEN and set(signal.labels) == {"service"}
    return Concern(signal.labels["service"]) if mine else None


class Watcher:
    """Scores every signal it is given and keeps, per series, since when it is anomalous.

    ``detector``: ``Tiers`` unless given. ``score``: -log10 tail probability at which a point counts. ``hold``: an
    anomaly ends when no point counted for this many seconds. ``forget``: a series not seen for this many seconds
    gives its slot back and is learnt anew if it returns. ``concern``: asked once of each new series.

    - A value beyond a stated limit counts, however near to what was expected it is. What reaches its limit within the
      full tier's horizon is an anomaly of its own, name + ``:exhaustion``.
    - A golden signal of a service that came regularly and stopped is itself an anomaly (name + ``:missing``; score =
      steps missed x -log10 of the share of steps it used to miss, at least 0.01), from ``absent`` steps on. Not when
      its service is not expected, nor, for ratios and latencies, when the service is known to have no traffic. Of
      other series with a concern the full tier's ``missing`` says it.
    """

    def __init__(
        self,
        detector: Detector | None = None,
        score: float = 4.0,
        hold: float = 3.0,
        forget: float = 600.0,
        absent: int = 5,
        concern: Callable[[Signal], Concern | None] = golden,
    ) -> None:
        self.detector: Detector = detector or Tiers()
        self.tiers = self.detector if isinstance(self.detector, Tiers) else None
        self.score, self.hold, self.forget, self.absent = score, hold, forget, absent
        self.about: dict[str, list[int]] = {}  # whom series concern -> their slots
        self._concern, self._whose = concern, dict[int, str]()
        self._groups: dict[str, int] = {}
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
            filling=nan,
            fills=0.0,
        )
        self._resumed: set[int] = set()  # taken over from a file, and not heard of since
        self._said: dict[int, tuple[str, tuple[Reason, ...], bool]] = {}  # of the newest point that counted
        self.detector.open(0)

    def __len__(self) -> int:
        """Series watched now."""
        return len(self._slots)

    def golden(self, service: Key) -> int:
        """How many golden signals of the service itself, not of one replica, are watched."""
        return sum(self._slots.find(name, service=service) is not None for name in GOLDEN)

    def find(self, name: str, labels: dict[str, str]) -> int | None:
        """The slot of a series; None: it is not watched."""
        return self._slots.find(name, **labels)

    def identity(self, slot: int) -> tuple[str, dict[str, str]]:
        """Name and labels of the series there."""
        return _named(self._slots.identity[slot])

    def of(self, service: Key, names: Collection[str]) -> list[int]:
        """The slots of these signals of a service and of its replicas."""
        mine = np.flatnonzero(self._slots.of((service,))) if len(self) else ()
        return [int(s) for s in mine if s in self._slots.identity and self._slots.identity[int(s)].name in names]

    def whose(self, anomaly: Anomaly) -> str:
        """Whom the anomaly concerns, "" for nobody."""
        name = anomaly.signal.removesuffix(MISSING).removesuffix(EXHAUSTION)
        slot = self._slots.find(name, **anomaly.labels)
        return "" if slot is None else self._whose.get(slot, "")

    def step(
        self,
        at: float,
        signals: Sequence[Signal],
        expected: Collection[Key] | None = None,
        frozen: Collection[str] = (),
    ) -> list[Anomaly]:
        """Take one collection; return the anomalies open at ``at``, most unlikely first.

        ``expected``: the services that should be sending (None: every one ever seen). ``frozen``: whom nothing is to
        be learnt of now, because an incident of theirs is open. Of several values of one series the last counts.
        """
        x = self._values(at, signals)
        learn = ~self._slots.of(frozen) if frozen else np.ones(self._slots.size, dtype=np.bool_)
        scored = self.detector.step(at, x, learn)
        kept = self._kept
        apart = np.abs(x - scored.expected)
        counts = (scored.score >= self.score) & (apart >= kept["least"])
        counts &= (apart >= kept["share"] * np.abs(scored.expected)) & (kept["fills"] == 0)
        beyond = self._stated("threshold", x)
        counts |= beyond >= self.score
        self._arrived(at, np.isfinite(x))
        kept["began"][counts & np.isnan(kept["began"])] = at
        kept["last"][counts] = at
        kept["score"][counts] = np.fmax(scored.score, beyond)[counts]
        kept["began"][~counts & (at - kept["last"] >= self.hold)] = np.nan
        for slot in map(int, np.flatnonzero(counts)):
            text = f"{x[slot]:.4g}, expected {scored.expected[slot]:.4g} ± {scored.scale[slot]:.2g}"
            self._said[slot] = *self._told(slot, text), bool(x[slot] < scored.expected[slot])
        out = [self._anomaly(int(slot)) for slot in np.flatnonzero(np.isfinite(kept["began"]))]
        out += self._missing(at, expected, x)
        out += self._filling(at, x)
        self._release(at)
        return sorted(out, key=lambda a: (-a.score, a.signal, sorted(a.labels.items())))

    def relearn(self, slots: Sequence[int], at: Sequence[float], x: Floats) -> None:
        """What was learnt of these series is forgotten and learnt anew from ``x[len(at), len(slots)]``.

        For when a signal means something else from now on. Where nobody is told of, as with a detector of one's own,
        the slots are dropped.
        """
        self.take_over(slots, rehearsed(len(slots), at, x, self.tiers))

    def take_over(self, slots: Sequence[int], fresh: Tiers) -> None:
        """``relearn`` from what ``rehearsed`` gave."""
        which = np.array(slots, dtype=np.int64)
        if self.tiers is None:
            self.detector.drop(which)
        elif slots:
            self.tiers.graft(which, fresh)
        self._kept["began"][which] = np.nan

    def end(self, about: str) -> None:
        """Nothing more will come of what concerns it, and that is right: its series are learnt anew if they return."""
        if slots := list(self.about.get(about, ())):
            self._free(slots)

    def learnt(self, at: float, most: int) -> Learnt | None:
        """What was learnt of the series that concern somebody, at most ``most`` bytes of it; None: nothing."""
        if self.tiers is None or not self._whose:
            return None
        slots = sorted(self._whose)
        state = self.tiers.part(np.array(slots[:1], dtype=np.int64))
        slots = slots[: max(1, most // _size(state))]
        series = [(*_named(self._slots.identity[slot]), self._whose[slot]) for slot in slots]
        return Learnt(series, dict(self._groups), at, self.tiers.part(np.array(slots, dtype=np.int64)))

    def resume(self, learnt: Learnt, now: float) -> None:
        """Go on with what was learnt; this watcher knows no series yet. After ``forget`` seconds levels may be others
        and only seasons are taken over. SpecError: it is of other detectors."""
        if self.tiers is None or len(self):
            return
        fresh = self.tiers.anew()
        fresh.load(learnt.state)
        if now - learnt.at > self.forget:
            seasons = learnt.state["full"].get("seasonal")
            groups = (
                learnt.state["full"]["mahalanobis"]["own"]["group"] if "mahalanobis" in learnt.state["full"] else ()
            )
            fresh.base.open(len(learnt.series))
            fresh.full.open(len(learnt.state["seats"]["slot"]))
            if seasons is not None:
                fresh.full.voters["seasonal"].load(seasons)
            for seat, group in enumerate(groups):
                if group >= 0:
                    fresh.full.assign(np.array([seat]), int(group))
        self.tiers = self.detector = fresh
        self._groups = dict(learnt.groups)
        for name, labels, about in learnt.series:
            slot, _ = self._slots.place(Signal(name=name, labels=labels, at=now, value=0.0))
            if self._slots.size > self._kept.slots:
                self._kept.grow(self._slots.size)
                self.detector.grow(self._slots.size)
            self._note(slot, Signal(name=name, labels=labels, at=now, value=0.0), now)
            self._slots.belongs(slot, about)
            self.about.setdefault(about, []).append(slot)
            self._whose[slot] = about
            self._resumed.add(slot)

    def _values(self, at: float, signals: Sequence[Signal]) -> Floats:
        placed = [self._slots.place(signal) for signal in signals]
        if self._slots.size > self._kept.slots:
            self.detector.grow(self._slots.size)
            self._kept.grow(self._slots.size)
        for (slot, new), signal in zip(placed, signals, strict=True):
            if slot in self._resumed:
                new = self._changed(slot, signal)
            if new:
                self._note(slot, signal, at)
                if (concern := self._concern(signal)) is not None:
                    self._seat(slot, concern)
        x = np.full(self._slots.size, np.nan)
        x[[slot for slot, _ in placed]] = [signal.value for signal in signals]
        return x

    def _note(self, slot: int, signal: Signal, at: float) -> None:
        unit = next((unit for unit in MATERIAL if signal.name.endswith(unit)), "")
        self._kept["least"][slot], self._kept["share"][slot] = MATERIAL.get(unit, (0.0, 0.0))
        self._kept["golden"][slot] = float(golden(signal) is not None)
        self._kept["seen"][slot] = at

    def _changed(self, slot: int, signal: Signal) -> bool:
        """A series that was taken over is heard of again: does it concern somebody else by now? Then it begins anew."""
        self._resumed.discard(slot)
        concern, before = self._concern(signal), self._whose[slot]
        if concern is not None and concern.about == before and self.tiers is not None:
            self.tiers.limit(np.array([slot]), concern.lower, concern.upper)
            self._kept["fills"][slot] = float(concern.fills)
            return False
        self.about[before].remove(slot)
        del self._whose[slot]
        self.detector.drop(np.array([slot]))
        return True

    def _seat(self, slot: int, concern: Concern) -> None:
        self._slots.belongs(slot, concern.about)
        mine = self.about.setdefault(concern.about, [])
        mine.append(slot)
        self._whose[slot] = concern.about
        self._kept["fills"][slot] = float(concern.fills)
        if self.tiers is not None and self.tiers.pin(np.array([slot])).all():
            if len(mine) <= MOST:  # more are not judged together: the first that came stand for them
                number = self._groups.setdefault(concern.about, len(self._groups))
                self.tiers.assign(np.array([slot]), number)
            if np.isfinite(concern.lower) or np.isfinite(concern.upper):
                self.tiers.limit(np.array([slot]), concern.lower, concern.upper)

    def _arrived(self, at: float, known: NDArray[np.bool_]) -> None:
        kept = self._kept
        gain = np.maximum(1.0 / (kept["arrivals"] + 1.0), 0.02)
        share = kept["gap"] / (kept["gap"] + 1.0)
        kept["missed"][:] = np.where(known, kept["missed"] + gain * (share - kept["missed"]), kept["missed"])
        kept["arrivals"][known] += 1.0
        kept["seen"][known] = at
        kept["gap"][:] = np.where(known, 0.0, kept["gap"] + 1.0)

    def _stated(self, detector: str, x: Floats) -> Floats:
        return np.full(len(x), np.nan) if self.tiers is None else self.tiers.said(detector, len(x))

    def _told(self, slot: int, text: str) -> tuple[str, tuple[Reason, ...]]:
        """The words of an anomaly and who says so."""
        voices = self.tiers.reasons(slot) if self.tiers is not None else []
        reasons = tuple(Reason(detector=d, score=s, share=None if np.isnan(p) else p) for d, s, p in voices)
        return text + spoken(reasons), reasons

    def _anomaly(self, slot: int) -> Anomaly:
        identity, kept = self._slots.identity[slot], self._kept
        began, last, score = (float(kept[name][slot]) for name in ("began", "last", "score"))
        detail, reasons, fell = self._said.get(slot, ("", (), False))
        return Anomaly(
            signal=identity.name, labels=dict(identity.labels), began=began, last=last, score=score, fell=fell,
            detail=detail, reasons=reasons,
        )  # fmt: skip

    def _filling(self, at: float, x: Floats) -> list[Anomaly]:
        """What reaches its limit within the horizon; one that is beyond it is told by its name alone."""
        kept, out = self._kept, []
        if self.tiers is None:
            return []
        score = self.tiers.said("exhaustion", len(x))
        fills = score >= self.score
        kept["filling"][np.isfinite(x) & ~fills] = np.nan
        kept["filling"][fills & np.isnan(kept["filling"])] = at
        for slot in map(int, np.flatnonzero(fills)):
            name, labels = self._slots.identity[slot]
            likely, soonest, latest = self.tiers.remaining(slot) or (0.0, 0.0, 0.0)
            by = f"reaches its limit in {_span(likely)} ({_span(soonest)} to {_span(latest)})"
            out.append(
                Anomaly(
                    signal=name + EXHAUSTION, labels=dict(labels), began=float(kept["filling"][slot]), last=at,
                    score=float(score[slot]), detail=f"{x[slot]:.4g}, {by}",
                    reasons=(Reason(detector="exhaustion", score=float(score[slot])),),
                )
            )  # fmt: skip
        return out

    def _missing(self, at: float, expected: Collection[Key] | None, x: Floats) -> list[Anomaly]:
        kept, out = self._kept, []
        quiet = (kept["golden"] > 0) & (kept["gap"] >= self.absent) & (kept["arrivals"] >= 30)
        score = kept["gap"] * -np.log10(np.clip(kept["missed"], 0.01, 1.0))
        others = (kept["golden"] == 0) & (kept["gap"] >= self.absent)
        score = np.where(others, np.nan_to_num(self._stated("missing", x)), score)
        for slot in map(int, np.flatnonzero((quiet | others) & (score >= self.score))):
            name, labels = self._slots.identity[slot]
            if slot not in self._whose:
                continue
            if kept["golden"][slot]:
                service = labels[0][1]
                rate = self._slots.find("request_rate_per_second", service=service)
                idle = rate is not None and x[rate] == 0.0
                if not (expected is None or service in expected) or (name in NEEDS_TRAFFIC and idle):
                    continue
            told = float(min(score[slot], 30.0))
            out.append(
                Anomaly(
                    signal=name + MISSING, labels=dict(labels), began=float(kept["seen"][slot]), last=at, score=told,
                    detail=f"no value for {at - kept['seen'][slot]:.3g} s",
                    reasons=(Reason(detector="missing", score=told),),
                )
            )  # fmt: skip
        return out

    def _release(self, at: float) -> None:
        held = list(self._slots.identity)
        if not held or (at - self._kept["seen"][held]).max() <= self.forget:
            return
        self._free([slot for slot in held if at - self._kept["seen"][slot] > self.forget])

    def _free(self, slots: Sequence[int]) -> None:
        gone = np.array(slots, dtype=np.int64)
        for slot in map(int, gone):
            self._slots.release(slot)
            self._said.pop(slot, None)
            if (about := self._whose.pop(slot, None)) is not None:
                self.about[about].remove(slot)
            self._resumed.discard(slot)
        self.detector.drop(gone)
        self._kept.drop(gone)


def rehearsed(series: int, at: Sequence[float], x: Floats, like: Tiers | None = None) -> Tiers:
    """Tiers, with the options of ``like``, that saw ``x[len(at), series]`` and nothing else; some 4 ms of a core per
    time."""
    fresh = like.anew() if like is not None else Tiers()
    fresh.open(series)
    fresh.pin(np.arange(series))
    for moment, row in zip(at, x, strict=True):
        fresh.step(moment, row, np.ones(series, dtype=np.bool_))
    return fresh


def _named(identity: Identity) -> tuple[str, dict[str, str]]:
    return identity.name, dict(identity.labels)


def _size(state: dict[str, Any]) -> int:
    """Bytes of a dump."""
    return sum(_size(v) if isinstance(v, dict) else getattr(v, "nbytes", 0) for v in state.values())


def spoken(reasons: Sequence[Reason], most: int = 3) -> str:
    """`` (ar 9.1, mahalanobis 5.0: 61 % of it)``: who says so, at most ``most``; "" for nobody."""
    said = [
        f"{r.detector} {r.score:.1f}" + (f": {r.share:.0%} of it" if r.share is not None else "")
        for r in reasons[:most]
    ]
    return f" ({', '.join(said)})" if said else ""


def _span(seconds: float) -> str:
    return "never" if np.isinf(seconds) else f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
