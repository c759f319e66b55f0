"""Indicators of a service from what its users say, as signals that detectors watch.

``satisfaction_ratio``: share of ratings at or above ``survey.satisfied``; ``complaint_ratio``: share of all feedback
that complains (a rating at or below ``survey.complaint``, or words without a rating); ``label_accuracy_ratio``: share
of the labels that agree with the answer. Each over the newest WINDOW seconds, told from LEAST items on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from leptonai.types import Feedback, Key, Service, Signal, Survey

WINDOW = 600.0  # seconds
LEAST = 5  # items of feedback until anything is said of them
MOST = 5_000  # items of one service that count
WAITING = 20_000  # items whose prediction has not been seen yet; more are dropped, counted
PATIENCE = 30.0  # seconds they wait for it
ANYBODY = "survey:"  # what is said of a service and of no single answer is about ``survey:<key>``


def complains(item: Feedback, survey: Survey) -> bool:
    if item.rating is not None:
        return item.rating <= survey.complaint
    return bool(item.note.strip())


class Opinions:
    """Ratings and words joined to predictions by request id. Every part is bounded."""

    def __init__(self) -> None:
        self._said: dict[Key, deque[tuple[float, float | None, bool]]] = {}
        self._labels: dict[Key, deque[tuple[float, int, int]]] = {}
        self._waiting: dict[str, tuple[Feedback, float]] = {}
        self.unknown = 0  # feedback about requests that nobody here answered

    def heard(
        self, items: Sequence[Feedback], asked: Callable[[str], Key | None], services: Mapping[Key, Service], now: float
    ) -> None:
        """Feedback as it comes. ``asked``: the service that answered a request id; None: not known (yet)."""
        for item in items:
            if item.about.startswith("incident:") or (item.rating is None and not item.note.strip()):
                continue
            if not self._place(item, asked, services):
                if len(self._waiting) < WAITING:
                    self._waiting[f"{item.about} {item.by} {item.at}"] = (item, now + PATIENCE)
                else:
                    self.unknown += 1
        for key, (item, until) in list(self._waiting.items()):
            if self._place(item, asked, services):
                del self._waiting[key]
            elif until <= now:
                del self._waiting[key]
                self.unknown += 1

    def labelled(self, fresh: Mapping[tuple[Key, str], tuple[int, int]], now: float) -> None:
        """Labels joined since the last call: (service, digest) -> (labels, wrong ones)."""
        for (key, _), (many, wrong) in fresh.items():
            self._labels.setdefault(key, deque(maxlen=MOST)).append((now, many, wrong))

    def signals(self, services: Mapping[Key, Service], now: float) -> list[Signal]:
        """What holds at ``now`` of ``services``; the others are forgotten."""
        out: list[Signal] = []
        for gone in [k for k in (*self._said, *self._labels) if k not in services]:
            self._said.pop(gone, None)
            self._labels.pop(gone, None)
        for key in services:
            said, labels = self._said.get(key, deque()), self._labels.get(key, deque())
            for row in (said, labels):
                while row and row[0][0] <= now - WINDOW:
                    row.popleft()
            found: dict[str, float] = {}
            survey = services[key].spec.survey or Survey()
            if len(said) >= LEAST:
                found["complaint_ratio"] = sum(c for _, _, c in said) / len(said)
            ratings = [rating for _, rating, _ in said if rating is not None]
            if len(ratings) >= LEAST:
                found["satisfaction_ratio"] = sum(r >= survey.satisfied for r in ratings) / len(ratings)
            many = sum(n for _, n, _ in labels)
            if many >= LEAST:
                found["label_accuracy_ratio"] = 1.0 - sum(w for _, _, w in labels) / many
            out += [Signal(name=n, labels={"service": key}, at=now, value=v) for n, v in found.items()]
        if self.unknown:
            out.append(Signal(name="feedback_unknown_count", labels={}, at=now, value=float(self.unknown)))
        return out

    def _place(self, item: Feedback, asked: Callable[[str], Key | None], services: Mapping[Key, Service]) -> bool:
        key = item.about.removeprefix(ANYBODY) if item.about.startswith(ANYBODY) else asked(item.about)
        if key is None:
            return False
        if key in services:
            complaint = complains(item, services[key].spec.survey or Survey())
            self._said.setdefault(key, deque(maxlen=MOST)).append((item.at, item.rating, complaint))
        return True
