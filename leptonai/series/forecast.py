"""Online forecasts of one series of rates or counts, with quantiles, at several horizons at once.

The model is a regression on the recent past at several scales (Corsi 2009, "A simple approximate long-memory model of
realized volatility": a heterogeneous autoregression) and on the same phase of earlier seasons, learnt by recursive
least squares with forgetting (Haykin, *Adaptive Filter Theory*, table 10.1), one column per horizon. It works on
square roots, in which counts have the same variance at every level (Anscombe 1948), and its quantiles are those of
its own errors. Two simpler rules run beside it. What is said is the mean of the three, each weighted by how little it
lost of late (Bates and Granger 1969): a rule that is bad falls silent, rules as good as each other are averaged, and
``rules`` tells whose share is the largest.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from leptonai.errors import SpecError
from leptonai.protocols import Floats
from leptonai.series.season import History, periods

SPANS = (4.0, 16.0, 64.0, 256.0)  # samples; half-lives of the scales of the recent past, each four times the last
CYCLES = (0.4, 0.3, 0.2, 0.1)  # weights of the same phase one, two, three and four periods ago
KEEP = 1 - 1 / 2000  # forgetting: samples the regression remembers: some weeks of half-hours, some hours of ten seconds
JUDGED = 500.0  # samples over which the rules are compared
ERRORS = 400  # errors kept for quantiles: a 99th percentile rests on four of them
RIDGE = 0.1  # start variance of a coefficient: the rule of thumb it starts from is about right
LOOK_FIRST, LOOK_AGAIN = 64, 1.25  # samples until a season is first looked for; then each time there are 1.25 x more
_ARRAYS = ("scales", "weight", "a", "p", "said", "errors", "judged", "loss", "square")
RULES = ("long mean", "recent mean", "regression")  # the simpler first
BEYOND = 1.25  # times the largest root seen: some 1.5 times the largest sample; past it, nothing was learnt
SHARPNESS = 8.0  # weights are loss ** -SHARPNESS: a tenth more loss halves a weight, twice the loss silences it


class Forecaster:
    """``step`` learns one more sample and forecasts the ``horizons`` (samples ahead) after it.

    ``season``: periods in samples if they are known; None: looked for. Missing samples (nan) are taken as forecast.
    """

    def __init__(self, horizons: tuple[int, ...] = (1,), season: tuple[float, ...] | None = None) -> None:
        if not horizons or min(horizons) < 1:
            raise SpecError(f"horizons are {horizons}, wanted whole numbers from 1")
        self.horizons = horizons
        self.given, self.season, self.level = season is not None, season or (), 0
        self.history = History()
        self.look = LOOK_FIRST
        count, size = len(horizons), 1 + len(SPANS) + 1 + 4
        self.scales = np.zeros(len(SPANS))
        self.decay = 0.5 ** (1 / np.array(SPANS))
        self.weight = np.zeros(len(SPANS))
        self.spread = 0.0  # running variance of the square roots
        self.top = 0.0  # the largest of them
        # the rule of thumb it starts from: the mean of the scales
        self.a = np.tile(np.concatenate(([0.0, 0.0], np.full(len(SPANS), 1 / len(SPANS)), np.zeros(4))), (count, 1))
        self.p = np.tile(RIDGE * np.eye(size), (count, 1, 1))
        self.pending: deque[tuple[Floats, Floats]] = deque(maxlen=max(horizons))  # features [H, F], forecasts [3, H]
        self.said: Floats = np.zeros((4, count))  # roots, by each rule and by their mean
        self.errors = np.zeros((count, ERRORS))
        self.judged = np.zeros(count)  # errors seen
        self.loss, self.square = np.zeros((3, count)), np.zeros((4, count))
        self._fit(self.season)

    def step(self, value: float) -> None:
        """``value`` of the sample just over, >= 0 (less counts as 0). Forecasts depend on it and earlier ones only."""
        n = self.history.count
        z = math.sqrt(max(value, 0.0)) if math.isfinite(value) else float(self.said[3, 0])
        for h, ahead in enumerate(self.horizons):
            if ahead <= len(self.pending):
                features, said = self.pending[-ahead]
                self._learn(h, z, features[h], said[:, h])
        self.history.push(z)
        self.weight = self.decay * self.weight + (1 - self.decay)
        self.scales += (z - self.scales) * (1 - self.decay) / self.weight
        self.spread += ((z - self.scales[-1]) ** 2 - self.spread) / min(n + 1, SPANS[-1])
        if not self.given and n + 1 >= self.look:
            self.look = int(self.look * LOOK_AGAIN) + 1
            self._fit(periods(self.history))
        features = self._features(z)
        said = np.empty((4, len(self.horizons)))
        said[0], said[1] = self.scales[-1], self.scales[0]
        said[2] = (self.a * features).sum(axis=1)
        self.top = max(self.top, z)
        np.clip(said, 0.0, BEYOND * self.top, out=said)  # a young regression after a jump says anything
        said[3] = (self.weights * said[:3]).sum(axis=0)
        self.pending.append((features, said))
        self.said = said

    def toward(self, horizons: tuple[int, ...]) -> Forecaster:
        """One for other ``horizons`` that has seen the same past: its seasons are known, its regression starts anew."""
        out = Forecaster(horizons, self.season if self.given else None)
        out.history, out.look = self.history, self.look
        out.scales, out.weight, out.spread, out.top = self.scales.copy(), self.weight.copy(), self.spread, self.top
        out._fit(self.season)
        return out

    def dump(self) -> dict[str, Any]:
        """All that was learnt, as plain values; ``load`` of one with the same horizons goes on where this one is."""
        kept: dict[str, Any] = {n: getattr(self, n).astype("<f8").tobytes() for n in _ARRAYS}
        season, spread = [float(p) for p in self.season], float(self.spread)
        kept |= {"horizons": self.horizons, "season": season, "look": self.look, "spread": spread, "top": self.top}
        return kept | {"history": self.history.dump()}

    def load(self, state: dict[str, Any]) -> None:
        """ValueError, KeyError or TypeError for what ``dump`` did not make or made for other horizons."""
        if tuple(state["horizons"]) != self.horizons:
            raise ValueError(f"horizons are {state['horizons']}, wanted {self.horizons}")
        fresh = {n: np.frombuffer(state[n], dtype="<f8").reshape(getattr(self, n).shape).copy() for n in _ARRAYS}
        self.history.load(state["history"])
        for name, values in fresh.items():
            setattr(self, name, values)
        self.look, self.spread, self.top = int(state["look"]), float(state["spread"]), float(state["top"])
        self._fit(tuple(float(p) for p in state["season"]))

    @property
    def weights(self) -> Floats:
        """``[rule, horizon]``: the share of each of RULES in what is said; they sum to 1 a horizon."""
        least = self.loss.min(axis=0)
        share = ((least + 1e-12) / (self.loss + 1e-12)) ** SHARPNESS
        out: Floats = share / share.sum(axis=0)
        return out

    @property
    def rules(self) -> tuple[str, ...]:
        """Per horizon, the rule with the largest share, by pinball loss of late at median and 90th percentile."""
        return tuple(RULES[i] for i in self.loss.argmin(axis=0))

    def mean(self) -> Floats:
        """Per horizon, the mean expected: the square of what was said for the root, and the variance of its errors."""
        out: Floats = self.said[3] ** 2 + self.square[3]
        return out

    def quantiles(self, levels: tuple[float, ...]) -> Floats:
        """``[level, horizon]``, from the newest errors of what was said; before there are any, just what is said."""
        out = np.empty((len(levels), len(self.horizons)))
        for h in range(len(self.horizons)):
            errors = self.errors[h, : min(int(self.judged[h]), ERRORS)]
            out[:, h] = self.said[3, h] + (np.quantile(errors, levels) if len(errors) else 0.0)
        return np.maximum(out, 0.0) ** 2

    def _learn(self, h: int, z: float, features: Floats, said: Floats) -> None:
        wrong = z - said
        self.errors[h, int(self.judged[h]) % ERRORS] = wrong[3]
        self.judged[h] += 1
        share = 1 / min(self.judged[h], JUDGED)
        high = (wrong - 1.2816 * np.sqrt(self.square[:, h]))[:3]  # past the 90th percentile of normal errors
        lost = 0.5 * np.abs(wrong[:3]) + np.where(high > 0, 0.9 * high, -0.1 * high)
        self.loss[:, h] += (lost - self.loss[:, h]) * share
        self.square[:, h] += (wrong**2 - self.square[:, h]) * share
        a, p = self.a[h], self.p[h]
        scale = root if (root := math.sqrt(self.spread)) > 1e-6 else 1.0  # a constant, or next to nothing
        f = features / scale
        pf = p @ f
        gain = pf / (KEEP + float(f @ pf))
        a += gain * ((z - float(a @ features)) / scale)
        p -= gain[:, None] * pf
        p /= KEEP
        trace = float(p.trace())
        if trace > len(f):  # without excitation 1 / KEEP makes it grow without bound
            p *= len(f) / trace

    def _fit(self, found: tuple[float, ...]) -> None:
        self.season = found
        if found:
            self.level = max(0, int(math.log2(found[0] / 48.0)))  # 48 to 96 points a period: half-hours of a day

    def _features(self, z: float) -> Floats:
        """``[horizon, feature]``: 1, the last sample, the scales, and per period the phase ahead and the phase now."""
        out = np.zeros((len(self.horizons), self.a.shape[1]))
        out[:, 0] = 1.0
        out[:, 1] = z
        out[:, 2 : 2 + len(SPANS)] = self.scales
        now = self.history.count - 1
        for i, period in enumerate(self.season[:2]):
            here = self._phase(now, period)
            if here is None:
                continue
            column = 2 + len(SPANS) + 2 * i
            out[:, column + 1] = here
            for h, ahead in enumerate(self.horizons):
                then = self._phase(now + ahead, period)
                out[h, column] = here if then is None else then
        return out

    def _phase(self, time: float, period: float) -> float | None:
        """The weighted mean of what was seen whole periods before ``time``."""
        total = weights = 0.0
        first = math.floor((time - self.history.count + 1) / period) + 1 if time >= self.history.count else 1
        for cycle, weight in enumerate(CYCLES, first):
            value = self.history.at(time - cycle * period, self.level)
            if value is None:
                break
            total += weight * value
            weights += weight
        return total / weights if weights else None
