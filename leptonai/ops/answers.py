"""What the prediction logs say beside labels: requests that fail wherever they go, answers that are not as before.

``poisoned_ratio``: of the requests that failed in the newest ``WINDOW`` seconds, the share that failed on two replicas
or more (the gateway repeats a request under the same id); ``poisoned_request_ratio``: those as a share of all requests.
``output_shift_ratio``: the Kolmogorov-Smirnov distance of the newest answers of a revision from its own before, 0..1
(Smirnov, 1948); only of answers that begin with a number. Before are minutes, however many answers come in a second: a
change that takes half a minute would else be older than all that a busy service remembers. ``repeated_ratio``: the
share of good answers of the newest ``LATELY`` seconds that one revision gave a second time, because somebody asked
again under the same id.
``input_shift_ratio``: the same of the mean, and of the range, of each request's first input of numbers; the larger.
``Answers.marked``: what the inputs of failed requests have in common (``ops.marks``).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import isfinite
from typing import Any

import numpy as np

from leptonai.ops.marks import mark
from leptonai.ops.predictions import Line
from leptonai.ops.scene import Marked
from leptonai.types import Key, Replica, Signal

WINDOW = 30.0  # seconds of failures counted together
MOST_FAILED = 5_000  # failed requests of one service remembered
RECENT = 200  # answers that are compared with those before
FORMER = 1_000  # answers they are compared with at most, half of that at least once there were as many
SPAN = 300.0  # seconds that those reach back, where more than FORMER come in them
FEWEST = 300  # answers before them, until anything is said
LATELY = 8.0  # seconds of good answers in which a second one is looked for
FEWEST_ASKED = 50  # good answers, until a share of them says anything
MOST_DIGESTS = 4  # revisions of one service whose answers are remembered
MOST_ANSWERED = 20_000  # good answers of one service remembered for that
MOST_INPUTS = 500  # of requests that failed, and of others, whose inputs are remembered: MARKING is more than both
MARKING = 60.0  # seconds


class Course:
    """The newest RECENT values of a number, and up to FORMER of those before, evenly over at least SPAN seconds."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()
        self._former: deque[tuple[float, float]] = deque(maxlen=FORMER)
        self._every, self._left = 1, 0  # one of so many that are not recent any more is kept

    def add(self, at: float, value: float) -> None:
        """The next one, told ``at``."""
        self._recent.append((at, value))
        if len(self._recent) <= RECENT:
            return
        old = self._recent.popleft()
        self._left += 1
        if self._left < self._every:
            return
        self._left = 0
        self._former.append(old)
        if len(self._former) < FORMER:
            return
        span = old[0] - self._former[0][0]
        if span < SPAN:
            self._former = deque(list(self._former)[1::2], maxlen=FORMER)
            self._every *= 2
        elif span > 4.0 * SPAN and self._every > 1:  # fewer come by now
            self._every //= 2

    @property
    def apart(self) -> float | None:
        """The distance of the newest from those before; None while too few are known."""
        if len(self._former) < FEWEST:
            return None
        return distance([v for _, v in self._former], [v for _, v in self._recent])


class _Of:
    def __init__(self) -> None:
        self.failed: OrderedDict[str, tuple[float, set[str]]] = OrderedDict()
        self.values: dict[str, Course] = {}  # by digest: another revision answers otherwise, and may
        self.answered: deque[tuple[float, str, str]] = deque(maxlen=MOST_ANSWERED)
        self.fresh = ""
        self.means, self.spans = Course(), Course()
        self.asked = False  # something was told of inputs since the last look
        # (at, digest, inputs) by request, newest last; hashes of another revision are others
        self.spoilt: OrderedDict[str, tuple[float, str, Any]] = OrderedDict()
        self.sound: deque[tuple[float, str, Any]] = deque(maxlen=MOST_INPUTS)


class Answers:
    """By service; every part is bounded."""

    def __init__(self) -> None:
        self._of: dict[Key, _Of] = {}

    def saw(self, replica: Replica, line: Line) -> None:
        of = self._of.setdefault(replica.service, _Of())
        if line.code >= 500 and line.code not in (503, 504):  # busy or late is no verdict on the request
            at, where = of.failed.pop(line.id, (line.at, set()))
            of.failed[line.id] = (max(at, line.at), where | {replica.id})
            if len(of.failed) > MOST_FAILED:
                of.failed.popitem(last=False)
            if isinstance(line.input, dict):
                of.spoilt[line.id] = (line.at, line.digest, line.input)
                if len(of.spoilt) > MOST_INPUTS:
                    of.spoilt.popitem(last=False)
        elif line.code < 400:
            if isinstance(line.input, dict):
                of.sound.append((line.at, line.digest, line.input))
            of.answered.append((line.at, line.id, line.digest))
            if (value := _first(line.output)) is not None:
                if line.digest not in of.values and len(of.values) >= MOST_DIGESTS:
                    del of.values[next(iter(of.values))]
                of.values.setdefault(line.digest, Course()).add(line.at, value)
                of.fresh = line.digest
            if (told := _numbers(line.input)) is not None:
                of.means.add(line.at, told[0])
                of.spans.add(line.at, told[1])
                of.asked = True

    def signals(self, now: float) -> list[Signal]:
        """What holds at ``now``; a service is left out of what cannot be told of it."""
        out: list[Signal] = []
        for key, of in self._of.items():
            for id in [id for id, (at, _) in of.failed.items() if now - at > WINDOW]:
                del of.failed[id]
            while of.answered and now - of.answered[0][0] > WINDOW:
                of.answered.popleft()
            found: dict[str, float] = {}
            if of.failed:
                poisoned = sum(len(w) > 1 for _, w in of.failed.values())
                found["poisoned_ratio"] = poisoned / len(of.failed)
                found["poisoned_request_ratio"] = poisoned / (len(of.failed) + len({id for _, id, _ in of.answered}))
            lately = [(id, digest) for at, id, digest in of.answered if now - at <= LATELY]
            if len(lately) >= FEWEST_ASKED:
                found["repeated_ratio"] = 1.0 - len(set(lately)) / len(lately)
            values = of.values.get(of.fresh)
            if values is not None and (apart := values.apart) is not None:
                found["output_shift_ratio"] = apart
            if of.asked and (far := [row.apart for row in (of.means, of.spans)])[0] is not None:
                found["input_shift_ratio"] = max(x for x in far if x is not None)
            of.fresh, of.asked = "", False
            out += [Signal(name=n, labels={"service": key}, at=now, value=v) for n, v in found.items()]
        return out

    def marked(self, service: Key, onset: float, now: float) -> Marked | None:
        """What the requests that failed since ``onset``, in the newest MARKING seconds, have in common which no other
        of these seconds has. Of one revision: the newest that failed on any."""
        of = self._of.get(service)
        if of is None or not of.spoilt:
            return None
        since, digest = max(onset - 1.0, now - MARKING), next(reversed(of.spoilt.values()))[1]
        failed = [told for at, of_digest, told in of.spoilt.values() if at >= since and of_digest == digest]
        sound = [told for at, of_digest, told in of.sound if at >= now - MARKING and of_digest == digest]
        return mark(failed, sound)

    def forget(self, services: set[Key]) -> None:
        """Drop what is known of services that are not in ``services``."""
        for key in self._of.keys() - services:
            del self._of[key]


def distance(a: list[float], b: list[float]) -> float:
    """The largest difference between the two shares of values up to x, over all x."""
    left, right = np.sort(a), np.sort(b)
    at = np.concatenate((left, right))
    up_to = [np.searchsorted(row, at, side="right") / len(row) for row in (left, right)]
    return float(np.abs(up_to[0] - up_to[1]).max())


def _numbers(told: Any) -> tuple[float, float] | None:
    """Mean and range of the first input of numbers; None: nothing of the kind was told. Replicas may write anything."""
    for one in told.values() if isinstance(told, dict) else ():
        parts = [one.get(name) for name in ("mean", "low", "high")] if isinstance(one, dict) else [None]
        if all(isinstance(v, int | float) and not isinstance(v, bool) and isfinite(v) for v in parts):
            mean, low, high = (float(v) for v in parts if v is not None)
            return mean, high - low
    return None


def _first(output: Any) -> float | None:
    while isinstance(output, list) and output:
        output = output[0]
    if isinstance(output, int | float) and isfinite(output):
        return float(output)
    return None
