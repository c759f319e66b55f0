"""From arrivals to an outlook: what the policy `ours` knows of the time when a replica started now will be ready."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from leptonai.plan.scale.policy import Outlook
from leptonai.series.forecast import Forecaster

PARTS = 3  # samples a start-up: fine enough to place a rise within it, coarse enough to hold some requests each
SHORTEST = 1.0  # seconds a sample: below, there is nothing to count
PRIOR = 60.0  # seconds of evidence that Poisson's variance is worth before anything was seen: the stable window
MEMORY = 3600.0  # seconds over which the spread of demand around its forecast is averaged


SUMS = ("seconds", "m", "mm", "e", "me")  # of a Spread


class Learner:
    """Online: told the demand of each interval, answers with the outlook of this moment.

    Demand is forecast for the sample in which a replica started now becomes ready and for the next one; the higher
    counts. Its variance is taken as proportional to its mean, as that of counts is, whatever the factor (1 for
    Poisson arrivals, more for bursts): the factor is learnt from how each interval differed from what had been
    forecast for it one start-up before. ``coarsest``: seconds that a sample has at least.
    """

    def __init__(self, startup: float, coarsest: float = 0.0) -> None:
        self.sample = max(startup / PARTS, SHORTEST, coarsest)
        self.ahead = math.ceil(startup / self.sample - 1e-9) + 1
        self.forecaster = Forecaster((max(1, self.ahead - 1), self.ahead))
        self.filled = self.work = 0.0  # of the sample that is being filled
        self.means: deque[float] = deque(maxlen=self.ahead)  # forecast for the samples to come, the oldest for now
        self.spread = Spread()
        self.outlook: Outlook | None = None

    def step(self, now: float, seconds: float, demand: float) -> Outlook | None:
        """``demand``: mean over the ``seconds`` until ``now``. None until the first sample is full."""
        if len(self.means) == self.ahead:
            self.spread.learn(self.means[0], demand, seconds)
        while seconds > 0:
            part = min(seconds, self.sample - self.filled)
            self.filled += part
            self.work += part * demand
            seconds -= part
            if self.filled >= self.sample - 1e-9:
                self._learn(self.work / self.sample)
                self.filled = self.work = 0.0
        if self.outlook is None:
            return None
        return self.outlook._replace(variance=self.spread.variance(self.outlook.mean))

    def skip(self, seconds: float) -> None:
        """Nothing was seen for so long; the seasons go on."""
        self.filled = self.work = 0.0
        for _ in range(round(seconds / self.sample)):
            self.forecaster.step(math.nan)
        self.means.clear()

    def retime(self, startup: float) -> None:
        """A start takes ``startup`` seconds now: the outlook is of another moment, what was learnt of seasons stays."""
        ahead = math.ceil(startup / self.sample - 1e-9) + 1
        if abs(ahead - self.ahead) > 1:  # a sample more or less is what measured start-ups differ by
            self.ahead = ahead
            self.forecaster = self.forecaster.toward((max(1, ahead - 1), ahead))
            self.means = deque(maxlen=ahead)

    def dump(self) -> dict[str, Any]:
        """What ``restored`` makes the same learner of."""
        spread = [float(getattr(self.spread, n)) for n in SUMS]
        return {"sample": self.sample, "ahead": self.ahead, "spread": spread, "forecaster": self.forecaster.dump()}

    @staticmethod
    def restored(state: dict[str, Any]) -> Learner:
        """ValueError, KeyError or TypeError for what ``dump`` did not make."""
        sample, ahead = float(state["sample"]), int(state["ahead"])
        if not (0 < sample < math.inf and 0 < ahead < 1_000_000):
            raise ValueError(f"sample {sample}, ahead {ahead}")
        out = Learner((ahead - 1) * sample, sample)
        out.sample, out.ahead, out.means = sample, ahead, deque(maxlen=ahead)
        out.forecaster = Forecaster((max(1, ahead - 1), ahead))
        out.forecaster.load(state["forecaster"])
        for name, value in zip(SUMS, state["spread"], strict=True):
            setattr(out.spread, name, float(value))
        return out

    def _learn(self, mean: float) -> None:
        self.forecaster.step(mean)
        ahead = float(self.forecaster.mean().max())
        self.means.append(ahead)
        self.outlook = Outlook(ahead, 0.0, self.forecaster.rules[-1])


class Spread:
    """The variance of demand around its forecast m, as a + b m: b 1 and a 0 for Poisson arrivals around a good
    forecast, a > 0 for bursts that the forecast knows nothing of.

    Least squares of squared surprise on m with forgetting, held within 0 <= b m <= all of it, from a prior of
    Poisson's spread with the weight of PRIOR seconds. The prior stands at the forecast that is asked about, too: after
    a long quiet the sums are almost 0, and their ratio alone could say anything of the traffic that comes back.
    """

    def __init__(self) -> None:
        self.seconds = self.m = self.mm = self.e = self.me = 0.0  # sums: 1, m, m m, surprise, m surprise

    def learn(self, forecast: float, demand: float, seconds: float) -> None:
        fade = max(0.0, 1 - seconds / MEMORY)
        surprise = (demand - forecast) ** 2
        self.seconds = self.seconds * fade + seconds
        self.m = self.m * fade + forecast * seconds
        self.mm = self.mm * fade + forecast * forecast * seconds
        self.e = self.e * fade + surprise * seconds
        self.me = self.me * fade + forecast * surprise * seconds

    def variance(self, forecast: float) -> float:
        if self.m == 0:
            return forecast
        total = self.seconds + PRIOR
        mean = self.m / self.seconds
        level = (self.e + PRIOR * mean) / total  # of surprise
        across = self.mm / self.seconds - mean * mean
        slope = (self.me / self.seconds - mean * self.e / self.seconds) / across if across > 1e-9 else level / mean
        steepest = (self.e + PRIOR * forecast) / (self.m + PRIOR * forecast)
        slope = min(max(slope, 0.0), level / mean, steepest)
        return level + slope * (forecast - mean)
