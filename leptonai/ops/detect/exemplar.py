"""Streaming novelty of many series at once: a shape that was never there before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.novelty import FLOOR, LENGTHS
from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.columns import Columns
from leptonai.series.peaks import Peaks

EVERY = 12  # steps of a sample


class Exemplar(Slotted):
    """The columnar form of ``novelty``: distance of the newest samples to the nearest such window before them.

    A sample is the value of ``every`` steps that departs most from the mean of the ``every`` before. Windows of 2, 3
    and 4 samples are compared with the last ``kept``; the distance in units of the range seen, over what is usual in
    this series; the least surprised length speaks (left nearest neighbour: the causal half of a matrix profile, Yeh
    et al., ICDM 2016). The law of that ratio is learnt (``series.peaks``). What a sample said holds until the next, so
    that detectors that judge each value can agree with it. ``expected`` is the mean of the stretch before, ``scale``
    the share of the range that is usual. Cost: 2 kB a series at 256 kept; all work falls on every ``every``-th step.
    Cold start: 48 samples, for which nothing is said. Fails on: what looks like something that was there before, and
    a slow climb within the range.
    """

    name = "novelty"

    def __init__(self, every: int = EVERY, kept: int = 256, warm: int = 20) -> None:
        self.every, self.kept = every, kept
        self.options = "" if every == EVERY else f"every {every}"
        nan = float("nan")
        self._seen = Columns(seen=np.full(kept, np.inf))
        self._own = Columns(
            n=0.0, total=0.0, count=0.0, low=np.inf, high=-np.inf, far=nan, gap=0.0, before=nan, said=nan, samples=0.0
        )
        self._usual = Columns(mean=np.zeros(len(LENGTHS)))
        self._peaks = Peaks(warm=warm, memory=2000.0, peaks=200.0)
        super().__init__(seen=self._seen, own=self._own, usual=self._usual, peaks=self._peaks)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        own = self._own
        seen = np.isfinite(x)
        known = np.where(seen, x, 0.0)
        taught = seen & learn
        own["low"][taught] = np.minimum(own["low"], known)[taught]
        own["high"][taught] = np.maximum(own["high"], known)[taught]
        own["total"][:] += np.where(taught, known, 0.0)
        own["count"][:] += taught
        middle = np.where(np.isnan(own["before"]), own["total"] / np.maximum(own["count"], 1.0), own["before"])
        gap = np.abs(known - middle)
        further = seen & (np.isnan(own["far"]) | (gap > own["gap"]))
        own["far"][further], own["gap"][further] = known[further], gap[further]
        own["n"][:] += 1.0
        due = np.flatnonzero(own["n"] >= self.every)
        if len(due):
            self._sample(due, learn)
        span = np.maximum(own["high"] - own["low"], 0.0)
        ready = np.isfinite(own["said"])
        usual = span * (self._usual["mean"].mean(axis=0) + FLOOR)
        return Scored(
            np.where(seen, own["said"], np.nan), np.where(ready, own["before"], np.nan), np.where(ready, usual, np.nan)
        )

    def _sample(self, due: NDArray[np.int64], learn: NDArray[np.bool_]) -> None:
        own = self._own
        sampled = due[np.isfinite(own["far"][due])]
        ratio = self._ratio(sampled, learn[sampled])
        value = np.full(self.slots, np.nan)
        value[sampled] = ratio
        told = self._peaks.score(value)
        settled = own["samples"] >= 2 * LENGTHS[-1] + self._peaks.warm  # a short past makes everything new
        self._peaks.learn(value, learn & settled)
        own["said"][due] = np.minimum(own["said"][due], 0.0)  # nothing came: no news, if there was ever any
        own["said"][sampled] = told[sampled]
        taught = due[own["count"][due] > 0]
        own["before"][taught] = own["total"][taught] / own["count"][taught]
        for name, fresh in (("n", 0.0), ("total", 0.0), ("count", 0.0), ("gap", 0.0), ("far", np.nan)):
            own[name][due] = fresh

    def _ratio(self, slot: NDArray[np.int64], learn: NDArray[np.bool_]) -> Floats:
        """The surprise of each slot's new sample; nan before there is anything to compare with. Learns it."""
        own, usual = self._own, self._usual["mean"]
        old, y = self._seen["seen"][:, slot], own["far"][slot]
        span = own["high"][slot] - own["low"][slot]
        span = np.where(np.isfinite(span) & (span > 0), span, np.inf)
        everything = np.concatenate((old, y[None, :]))
        count = own["samples"][slot]
        far = np.zeros((0, len(slot)))
        scores, done, last = [], 0, LENGTHS[-1]
        for k, length in enumerate(LENGTHS):
            # windows end at last - 1 ... kept - length: they share no sample with the newest
            far = far[: self.kept - length - last + 2]
            for lag in range(done, length):
                newest = everything[self.kept - lag]
                with np.errstate(invalid="ignore"):  # inf - inf: not seen yet
                    apart = np.abs(everything[last - 1 - lag : self.kept - length + 1 - lag] - newest)
                apart = np.where(np.isfinite(apart), apart, np.inf)
                far = apart if lag == 0 else far + apart
            done = length
            nearest = far.min(axis=0)
            whole = np.isfinite(nearest) & (count >= 2 * last)
            nearest = np.where(whole, nearest, 0.0) / (length * span)
            scores.append(np.where(whole, nearest / (usual[k][slot] + FLOOR), np.nan))
            gain = np.where(
                whole & learn, np.maximum(1.0 / np.maximum(count - 2 * last + 1.0, 1.0), 1.0 / self.kept), 0.0
            )
            usual[k][slot] += gain * (nearest - usual[k][slot])
        kept = slot[learn]
        self._seen["seen"][:, kept] = everything[1:, learn]
        own["samples"][kept] += 1.0
        out: Floats = np.min(scores, axis=0) if len(slot) else np.zeros(0)
        return out
