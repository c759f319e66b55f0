"""Labels joined to predictions: what was answered, by which digest, and whether it was right."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose, isfinite
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

    A mirrored request has a prediction of each version; its label is joined to both, in whatever order they come.

    ``predictions``: ids remembered, the oldest forgotten first. ``waiting``: labels that may wait for their log line,
    for ``patience`` seconds.
    """

    def __init__(self, predictions: int = 200_000, waiting: int = 20_000, patience: float = 30.0) -> None:
        self._limit, self._room, self._patience = predictions, waiting, patience
        self._by_id: dict[str, Prediction] = {}
        self._copies: dict[str, Prediction] = {}  # the second prediction of a mirrored request
        self._waiting: dict[str, tuple[Any, float]] = {}
        self._joined_to: dict[str, str] = {}  # waiting label -> the digest that has had it: waits for a copy only
        self._joined: dict[tuple[Key, str], tuple[int, int]] = {}
        self._fresh: dict[tuple[Key, str], tuple[int, int]] = {}
        self.mirrored = False  # some requests are copied to a second version: a label may be wanted twice
        self.dropped = 0  # labels whose prediction was never seen, or for which there was no room to wait

    def predicted(self, request: str, prediction: Prediction) -> None:
        """Remember one prediction until its label comes; join it at once when that came first."""
        if request in self._waiting:
            if self._joined_to.get(request) != prediction.digest:
                label, _ = self._waiting[request]
                self._join(prediction, label)
                if request in self._joined_to:
                    del self._waiting[request], self._joined_to[request]
                else:
                    self._joined_to[request] = prediction.digest
            return
        known = self._by_id.get(request)
        kept = self._by_id if known is None or known.digest == prediction.digest else self._copies
        kept[request] = prediction
        if len(kept) > self._limit:
            kept.pop(next(iter(kept)))

    def labelled(self, items: Sequence[Feedback], now: float) -> None:
        """Join what can be joined, let the rest wait; feedback without a label or about an incident is not ours."""
        for item in items:
            if item.label is None or item.about.startswith("incident:"):
                continue
            prediction, copy = self._by_id.pop(item.about, None), self._copies.pop(item.about, None)
            for found in (prediction, copy):
                if found is not None:
                    self._join(found, item.label)
            if prediction is not None and (copy is not None or not self.mirrored):
                continue
            if len(self._waiting) < self._room:
                self._waiting[item.about] = (item.label, now + self._patience)
                if prediction is not None:
                    self._joined_to[item.about] = prediction.digest
            elif prediction is None:
                self.dropped += 1

    def expire(self, now: float) -> None:
        """Give up on labels that waited longer than ``patience``: they are counted as dropped."""
        for request in [r for r, (_, until) in self._waiting.items() if until <= now]:
            del self._waiting[request]
            self.dropped += self._joined_to.pop(request, None) is None

    def asked(self, request: str) -> Key | None:
        """The service that answered a request whose label has not come yet; None: not known (any more)."""
        found = self._by_id.get(request)
        return found.service if found is not None else None

    def tally(self, service: Key) -> dict[str, tuple[int, int]]:
        """Digest -> (labels, wrong ones), all that was ever joined."""
        return {digest: (n, wrong) for (key, digest), (n, wrong) in self._joined.items() if key == service}

    def count(self, service: Key, digest: str, labels: int, wrong: int) -> None:
        """Take in labels that were joined to their predictions elsewhere."""
        for counts in (self._joined, self._fresh):
            n, bad = counts.get((service, digest), (0, 0))
            counts[service, digest] = (n + labels, bad + wrong)

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


def agree(a: Any, b: Any) -> bool:
    """Whether two versions' outputs say the same: equal in shape, whole numbers and text; other numbers within 5 % of
    the largest of them. A score near zero may be anything near zero: it is no other answer."""
    left, right = _flat(a), _flat(b)
    largest = max((abs(v) for v in (*left, *right) if isinstance(v, float) and isfinite(v)), default=0.0)
    return len(left) == len(right) and all(_near(x, y, largest) for x, y in zip(left, right, strict=True))


def _near(a: Any, b: Any, largest: float) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    if numbers and (isinstance(a, float) or isinstance(b, float)):
        return isclose(a, b, rel_tol=0.05, abs_tol=max(0.05 * largest, 1e-6))
    return bool(a == b)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _flat(item)]
    return [value]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-9)
    return type(a) is type(b) and bool(a == b)
