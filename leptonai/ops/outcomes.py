"""Labels joined to predictions: what was answered, by which digest, and whether it was right."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose
from typing import Any, NamedTuple

from leptonai.types import Feedback, Key

TOLERANCE = 1e-6  # relative; a float label went through JSON twice, nothing more


class Prediction(NamedTuple):
    service: Key
    digest: str
    at: float
    seconds: float
    output: Any


class Outcomes:
    """Predictions by request id, labels waiting for theirs, and what came of the two. Every part is bounded.

    ``predictions``: ids remembered, the oldest forgotten first. ``waiting``: labels that may wait for their log line,
    for ``patience`` seconds.
    """

    def __init__(self, predictions: int = 200_000, waiting: int = 20_000, patience: float = 30.0) -> None:
        self._limit, self._room, self._patience = predictions, waiting, patience
        self._by_id: dict[str, Prediction] = {}
        self._waiting: dict[str, tuple[Any, float]] = {}
        self._joined: dict[tuple[Key, str], tuple[int, int]] = {}
        self._fresh: dict[tuple[Key, str], tuple[int, int]] = {}
        self.dropped = 0  # labels whose prediction was never seen, or for which there was no room to wait

    def predicted(self, request: str, prediction: Prediction) -> None:
        """Remember one prediction until its label comes; join it at once when that came first."""
        if request in self._waiting:
            label, _ = self._waiting.pop(request)
            self._join(prediction, label)
            return
        self._by_id[request] = prediction
        if len(self._by_id) > self._limit:
            self._by_id.pop(next(iter(self._by_id)))

    def labelled(self, items: Sequence[Feedback], now: float) -> None:
        """Join what can be joined, let the rest wait; feedback without a label or about an incident is not ours."""
        for item in items:
            if item.label is None or item.about.startswith("incident:"):
                continue
            if (prediction := self._by_id.pop(item.about, None)) is not None:
                self._join(prediction, item.label)
            elif len(self._waiting) < self._room:
                self._waiting[item.about] = (item.label, now + self._patience)
            else:
                self.dropped += 1

    def expire(self, now: float) -> None:
        """Give up on labels that waited longer than ``patience``: they are counted as dropped."""
        for request in [r for r, (_, until) in self._waiting.items() if until <= now]:
            del self._waiting[request]
            self.dropped += 1

    def tally(self, service: Key) -> dict[str, tuple[int, int]]:
        """Digest -> (labels, wrong ones), all that was ever joined."""
        return {digest: (n, wrong) for (key, digest), (n, wrong) in self._joined.items() if key == service}

    def fresh(self) -> dict[tuple[Key, str], tuple[int, int]]:
        """(service, digest) -> (labels, wrong ones) joined since the call before."""
        found, self._fresh = self._fresh, {}
        return found

    def forget(self, services: set[Key]) -> None:
        """Drop what is known of services that are not in ``services``."""
        for key in [k for k in self._joined if k[0] not in services]:
            del self._joined[key]

    def _join(self, prediction: Prediction, label: Any) -> None:
        wrong = not matches(label, prediction.output)
        key = (prediction.service, prediction.digest)
        for counts in (self._joined, self._fresh):
            n, bad = counts.get(key, (0, 0))
            counts[key] = (n + 1, bad + wrong)


def matches(label: Any, output: Any) -> bool:
    """Whether ``label`` says what ``output``, the summary in the prediction log, begins with.

    Numbers agree within a relative 1e-6, everything else exactly; a list label element by element, any other label
    with the first value. True is 1, because models answer classes as numbers.
    """
    values = _flat(output)
    wanted = _flat(label)
    return 0 < len(wanted) <= len(values) and all(map(_same, wanted, values))


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _flat(item)]
    return [value]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-9)
    return type(a) is type(b) and bool(a == b)
