"""How fast many series move, streaming: a discounted mean rate with its standard error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Floats
from leptonai.series.columns import Columns

LEAST = 0.3  # correlation of increments that is believed at least
LOCAL = 4.0
CHANGED = 2.0  # standard errors of the mean rate from which the newest one is believed, with its own wider error


class Drift(Columns):
    """Mean rate per second over ``span`` increments between means of ``stretch`` steps, and how sure it is.

    Under "a random walk that goes nowhere" increments are centred at zero, so the test holds where a line fitted
    through levels would be fooled (spurious regression; see ``series.slope``). The standard error of their mean is
    widened by their correlation, at least LEAST. Both are taken about a mean that follows LOCAL times faster, so that a
    rate that changed does not pass for noise for as long as it is remembered. One jump
    counts as at most six standard deviations.
    """

    def __init__(self, stretch: int = 1, span: float = 120.0, warm: int = 30) -> None:
        self.stretch, self.span, self.warm = stretch, span, warm
        nan = float("nan")
        super().__init__(
            total=0.0,
            when=0.0,
            count=0.0,
            value=nan,
            at=nan,
            rate=0.0,
            local=0.0,
            square=0.0,
            before=nan,
            product=0.0,
            n=0.0,
            apart=0.0,
        )

    def step(self, at: float, x: Floats, where: NDArray[np.bool_]) -> None:
        """Learn ``x`` at ``at`` seconds, where ``where`` and finite."""
        where = where & np.isfinite(x)
        self["total"][:] += np.where(where, x, 0.0)
        self["when"][:] += np.where(where, at, 0.0)
        self["count"][:] += where
        due = where & (self["count"] >= self.stretch)
        count = np.maximum(self["count"], 1.0)
        value, when = self["total"] / count, self["when"] / count
        elapsed = when - self["at"]
        use = due & (elapsed > 0)
        rate = np.where(use, (value - self["value"]) / np.where(use, elapsed, 1.0), 0.0)
        gain = np.where(use, np.maximum(1.0 / (self["n"] + 1.0), 1.0 / self.span), 0.0)
        spread = 6.0 * (np.sqrt(self._variance()) + np.abs(self["rate"]))
        settled = (self["n"] >= self.warm) & (spread > 0)
        rate = np.where(settled, np.clip(rate, self["rate"] - spread, self["rate"] + spread), rate)
        apart = np.where(use & (self["n"] > 0), rate - self["local"], 0.0)
        self["product"][:] += gain * (apart * np.nan_to_num(self["before"]) - self["product"])
        self["square"][:] += gain * (apart**2 - self["square"])
        self["local"][:] += np.minimum(LOCAL * gain, 1.0) * (rate - self["local"])
        self["rate"][:] += gain * (rate - self["rate"])
        self["apart"][:] += gain * (np.where(use, elapsed, 0.0) - self["apart"])
        self["n"][use] += 1.0
        self["before"][use] = apart[use]
        self["value"][due], self["at"][due] = value[due], when[due]
        for name in ("total", "when", "count"):
            self[name][due] = 0.0

    @property
    def ready(self) -> NDArray[np.bool_]:
        out: NDArray[np.bool_] = self["n"] >= self.warm
        return out

    def error(self) -> Floats:
        """Standard error of the mean rate."""
        r = np.clip(self["product"] / np.maximum(self._variance(), 1e-300), LEAST, 0.97)
        count = np.clip(self["n"], 1.0, 2 * self.span)  # a discounted mean is worth twice its span
        return np.sqrt(self._variance() * (1 + r) / (1 - r) / count)

    def wander(self, seconds: float) -> Floats:
        """Standard deviation of where the series is ``seconds`` from now: of its rate, and of a random walk."""
        walk = self._variance() * self["apart"] * seconds
        return np.sqrt((self.now()[1] * seconds) ** 2 + walk)

    def now(self) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """The rate, its standard error, and where the rate is no longer the mean one: of the newest span / LOCAL
        increments, where these differ from the mean by CHANGED of its standard errors."""
        error = self.error()
        changed = (np.abs(self["local"] - self["rate"]) > CHANGED * error) & self.ready
        rate = np.where(changed, self["local"], self["rate"])
        return rate, np.where(changed, error * np.sqrt(LOCAL), error), changed

    def freedom(self) -> Floats:
        return np.clip(self["n"] / 2 - 1, 1.0, 2 * self.span)

    def _variance(self) -> Floats:
        return self["square"]
