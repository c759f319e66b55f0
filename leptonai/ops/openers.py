"""What opens an incident besides promises, golden signals and convictions: conditions declared over signals.

Rule files say them under ``opens:``. A condition is looked at each round over the newest LOOK seconds, against the
minute before; it must hold ``hold`` seconds without a break. What it means is not told here: diagnosis names the cause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite

from leptonai.ops.diagnosis.conditions import holds, names_in
from leptonai.ops.diagnosis.readings import OF_BEFORE, OF_SIBLINGS, siblings_of, take
from leptonai.ops.diagnosis.rules import Opener, RuleBook, SignalFeature
from leptonai.ops.judge import Trigger
from leptonai.types import Key, Replica, Signal

LOOK = 4.0  # seconds that are looked at
GAP = 8.0  # seconds before now that are not "before": the trouble may have begun in them
BEFORE = 60.0  # seconds before that
SETTLED = 5.0  # seconds a replica is ready before its own signals count: loading and warming up are no trouble
STALE = 5.0  # seconds after which a silent series says nothing any more
REBASE = 5.0  # seconds for which what was before is not told anew
_KEEP = GAP + BEFORE


Who = tuple[tuple[str, str], ...]  # all labels of a series


class _Series:
    """The points of little more than a minute; ``base`` is what they were before, told anew every few seconds."""

    __slots__ = ("base", "base_at", "points", "replica")

    def __init__(self, replica: str) -> None:
        self.replica = replica  # "": of the service itself, or of the machine
        self.points: deque[tuple[float, float]] = deque()
        self.base: tuple[float, ...] = ()
        self.base_at = float("-inf")

    def add(self, at: float, value: float) -> None:
        self.points.append((at, value))
        while self.points[0][0] < at - _KEEP:
            self.points.popleft()

    def late(self, now: float) -> list[float]:
        found: list[float] = []
        for at, value in reversed(self.points):
            if at <= now - LOOK:
                break
            if at <= now:
                found.append(value)
        return found

    def before(self, now: float) -> tuple[float, ...]:
        """Their mean, alone; () when nothing was seen then."""
        if now - self.base_at >= REBASE:
            self.base_at = now
            seen = [v for at, v in self.points if now - _KEEP < at <= now - GAP]
            self.base = (sum(seen) / len(seen),) if seen else ()
        return self.base


class Openers:
    """Remembers the signals that the conditions in force are made of, for little more than a minute."""

    def __init__(self) -> None:
        self._series: dict[str, dict[Key, dict[Who, _Series]]] = {}  # signal -> service ("": the machine) -> labels
        self._book: RuleBook | None = None
        self._used: dict[str, SignalFeature] = {}
        self._forgot = float("-inf")
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
            own = mine.setdefault(signal.labels.get("service", ""), {})
            series = own.get(who)
            if series is None:
                series = own[who] = _Series(signal.labels.get("replica", ""))
            series.add(signal.at, signal.value)

    def forget(self, now: float) -> None:
        """Drop series that have ended."""
        for mine in self._series.values():
            for key, own in list(mine.items()):
                for who in [w for w, s in own.items() if s.points[-1][0] < now - _KEEP]:
                    del own[who]
                if not own:
                    del mine[key]

    def step(self, now: float, services: Mapping[Key, Sequence[Replica]]) -> dict[Key, list[Trigger]]:
        """By service (with its replicas), the conditions that have held long enough."""
        if self._book is None:
            return {}
        if now - self._forgot >= REBASE:
            self._forgot = now
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
                        names = names_in(self._book.define, opener.when)
                        terms = {n: round(known[n], 4) for n in sorted(names) if n in known}
                        found.setdefault(key, []).append(_trigger(key, name, opener, subject, began, terms))
        self._since = held
        return found

    def _features(self, now: float, key: Key, settled: Iterable[str]) -> dict[str, dict[str, float]]:
        """Of the service ("" for the machine): its replicas, and "" for itself, with what is known of each."""
        out: dict[str, dict[str, float]] = {}
        for name, made in self._used.items():
            own = {
                (s.replica, who): s
                for who, s in self._series[made.signal].get(key, {}).items()
                if (not s.replica or s.replica in settled) and s.points[-1][0] > now - STALE
            }
            late = {who: s.late(now) for who, s in own.items()}
            for who, since in late.items():
                before = own[who].before(now) if made.take in OF_BEFORE else ()
                siblings = siblings_of(who, late) if made.take in OF_SIBLINGS else ()
                if (value := take(made, since, before, siblings)) is None:
                    continue
                known = out.setdefault(who[0] if made.about == "replica" else "", {})
                better = min if made.take == "min" else max
                known[name] = better(known.get(name, value), value)
        return out


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
