"""What opens an incident besides promises, golden signals and convictions: conditions declared over signals.

Rule files say them under ``opens:``. A condition is looked at each round over the newest LOOK seconds, against the
minute before; it must hold ``hold`` seconds without a break. What it means is not told here: diagnosis names the cause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from leptonai.ops.diagnosis.conditions import holds, names_in
from leptonai.ops.diagnosis.readings import siblings_of, take
from leptonai.ops.diagnosis.rules import Opener, RuleBook, SignalFeature
from leptonai.ops.judge import Trigger
from leptonai.types import Key, Replica, Signal

LOOK = 4.0  # seconds that are looked at
GAP = 8.0  # seconds before now that are not "before": the trouble may have begun in them
BEFORE = 60.0  # seconds before that
SETTLED = 5.0  # seconds a replica is ready before its own signals count: loading and warming up are no trouble
STALE = 5.0  # seconds after which a silent series says nothing any more
_KEEP = GAP + BEFORE


class _Series(NamedTuple):
    service: Key  # "": of the machine
    replica: str
    points: deque[tuple[float, float]]


class Openers:
    """Remembers the signals that the conditions in force are made of, for little more than a minute."""

    def __init__(self) -> None:
        self._series: dict[str, dict[tuple[tuple[str, str], ...], _Series]] = {}
        self._book: RuleBook | None = None
        self._used: dict[str, SignalFeature] = {}
        self._since: dict[tuple[Key, str, str], float] = {}

    def use(self, book: RuleBook) -> None:
        """The conditions in force from now on."""
        if book is self._book:
            return
        self._book = book
        names = {name for o in book.opens.values() for name in names_in(book.define, o.when)}
        self._used = {name: made for name, made in book.signals.items() if name in names}
        wanted = {made.signal for made in self._used.values()}
        self._series = {name: self._series.get(name, {}) for name in wanted}

    def saw(self, signals: Iterable[Signal]) -> None:
        """Take note of one round's samples."""
        for signal in signals:
            mine = self._series.get(signal.name)
            if mine is None or not isfinite(signal.value):
                continue
            who = tuple(sorted(signal.labels.items()))
            series = mine.get(who)
            if series is None:
                labels = signal.labels
                series = mine[who] = _Series(labels.get("service", ""), labels.get("replica", ""), deque())
            series.points.append((signal.at, signal.value))

    def forget(self, now: float) -> None:
        """Drop what is too old to be compared with, and series that have ended."""
        for mine in self._series.values():
            for who in [w for w, s in mine.items() if not s.points or s.points[-1][0] < now - _KEEP]:
                del mine[who]
            for series in mine.values():
                while series.points[0][0] < now - _KEEP:
                    series.points.popleft()

    def step(self, now: float, services: Mapping[Key, Sequence[Replica]]) -> dict[Key, list[Trigger]]:
        """By service (with its replicas), the conditions that have held long enough."""
        if self._book is None:
            return {}
        self.forget(now)
        machine = self._features(now, "", ())
        found: dict[Key, list[Trigger]] = {}
        held: dict[tuple[Key, str, str], float] = {}
        for key, replicas in services.items():
            settled = {r.id for r in replicas if r.state == "ready" and now - r.since >= SETTLED}
            features = self._features(now, key, settled)
            own = {**machine.get("", {}), **features.pop("", {})}
            for name, opener in self._book.opens.items():
                for subject in features if opener.about == "replica" else ("",):
                    known = {**own, **features.get(subject, {})}
                    if not holds(self._book.define, opener.when, known).value:
                        continue
                    began = held[key, name, subject] = self._since.get((key, name, subject), now)
                    if now - began >= opener.hold:
                        found.setdefault(key, []).append(
                            _trigger(self._book.define, key, name, opener, subject, began, known)
                        )
        self._since = held
        return found

    def _features(self, now: float, key: Key, settled: Iterable[str]) -> dict[str, dict[str, float]]:
        """Of the service ("" for the machine): its replicas, and "" for itself, with what is known of each."""
        out: dict[str, dict[str, float]] = {}
        for name, made in self._used.items():
            sides = {
                (s.replica, who): (self._values(s, now - GAP - BEFORE, now - GAP), self._values(s, now - LOOK, now))
                for who, s in self._series[made.signal].items()
                if s.service == key and (not s.replica or s.replica in settled) and s.points[-1][0] > now - STALE
            }
            late = {who: sides[who][1] for who in sides}
            for who, (before, since) in sides.items():
                value = take(made, since, before, siblings_of(who, late))
                if value is None:
                    continue
                subject = who[0] if made.about == "replica" else ""
                known = out.setdefault(subject, {})
                better = min if made.take == "min" else max
                known[name] = better(known.get(name, value), value)
        return out

    def _values(self, series: _Series, start: float, end: float) -> list[float]:
        return [v for at, v in series.points if start < at <= end]


def _trigger(key: Key, name: str, opener: Opener, subject: str, began: float, terms: dict[str, float]) -> Trigger:
    return Trigger(
        kind="declared",
        service=key,
        subject=subject,
        name=name,
        severity=opener.severity,
        began=began - LOOK / 2,
        terms={"text": opener.text, **terms},
    )
