"""How long a batch takes: t(n) = a n + b, learnt from every run, and the slowest run of late. Pure: times come in.

Recursive least squares with forgetting, kept as means and centred sums. Three things keep it honest on a stream whose
batches may all be of one size, and whose clock is a busy machine's:

- the sums that make the slope are forgotten only as fast as new sizes are seen (directional forgetting, Kulhavý 1987):
  a thousand equal batches move the level, not the slope;
- a run that is far from what was expected counts for less (Huber's weight, beyond 2 robust deviations);
- until sizes differ, half the time of a mean batch is held to be fixed (``SHARE``); that opinion weighs as much as runs
  whose sizes vary by a tenth.
"""

from __future__ import annotations

from collections import deque
from math import exp
from threading import Lock

FORGET = 0.02  # of the level, each run: the memory is some 50 runs
SHARE = 0.5  # of a mean batch's time that is fixed cost, until runs tell
VARIED = 0.1  # deviation of sizes, over their mean, from which runs weigh as much as ``SHARE`` does
HUBER = 2.0  # robust deviations beyond which a run counts for less
START = 16  # runs in which one no smaller than the mean, in half the mean time, makes those before it warming up
SLOWEST = 300.0  # seconds in which the slowest run seen loses 1 - 1/e of its weight
UNKNOWN = 10.0  # seconds expected of a run before any was seen
LONG = 0.02  # seconds of a run that nobody else should wait for: several time slices of a busy core
QUICK = 200e-6  # seconds of a mean run up to which a hop to another thread (10 to 20 us of CPU) is worth saving
PROVEN = 1000  # runs without a long one until a model counts as quick


class Cost:
    """The learnt cost of one model. ``runs``: how many taught it.

    Callable in any thread: while one learns, another sees what had been learnt before.
    """

    def __init__(self) -> None:
        self._learning = Lock()
        self._seen: deque[tuple[int, float, float]] = deque(maxlen=256)  # of older ones 1 % would be left
        self._short = 0  # runs since the last long one
        self._slowest = self._slowest_at = 0.0
        self._restart()

    def _restart(self) -> None:
        self.runs = 0
        self._n = self._t = 0.0  # means
        self._nn = self._nt = 0.0  # variance of sizes, covariance of sizes and times
        self._deviation = 0.0
        self.per_sample = self.fixed = 0.0  # seconds

    def saw(self, samples: int, seconds: float, now: float) -> None:
        """A run took ``seconds``. Costs an append: what it means is worked out when somebody asks."""
        self._seen.append((samples, seconds, now))
        self._short = self._short + 1 if seconds < LONG else 0

    def learn(self) -> Cost:
        """Everything seen so far has been learnt, or is being learnt in another thread."""
        if self._seen and self._learning.acquire(blocking=False):
            try:
                while self._seen:
                    self._learn(*self._seen.popleft())
            finally:
                self._learning.release()
        return self

    def time(self, samples: float) -> float:
        """Seconds that ``samples`` take, as learnt; 0 before any run."""
        return self.per_sample * samples + self.fixed

    def expect(self, samples: int, now: float) -> float:
        """Seconds a batch of ``samples`` should take at most; UNKNOWN before any run.

        The slowest run of late guards models whose time does not follow from the number of samples.
        """
        if not self.learn().runs:
            return UNKNOWN
        return max(self.time(samples), self._slowest * exp((self._slowest_at - now) / SLOWEST))

    def quick(self) -> bool:
        """Runs are so short that the I/O loop can do them itself: QUICK on average, the last PROVEN all below LONG."""
        return self._short >= PROVEN and self.learn()._t <= QUICK

    def _learn(self, samples: int, seconds: float, now: float) -> None:
        if seconds >= self._slowest * exp((self._slowest_at - now) / SLOWEST):
            self._slowest, self._slowest_at = seconds, now
        if self.runs < START and samples >= self._n and seconds < 0.5 * self._t:
            self._restart()
        self.runs += 1
        residual = seconds - self.time(samples)
        weight, size = 1.0, abs(residual)
        if self.runs > 2:
            bound = HUBER * max(self._deviation, 0.01 * self._t)
            weight = min(1.0, bound / size) if size else 1.0
            self._deviation += 0.05 * (min(size, 2.0 * bound) - self._deviation)
        elif self.runs == 2:
            self._deviation = min(size, self._t)
        gain = max(FORGET, 1.0 / self.runs) * weight
        d, e = samples - self._n, seconds - self._t
        self._n += gain * d
        self._t += gain * e
        square = d * d
        if square > 0.0:
            gain *= min(1.0, 2.0 * square / (square + self._nn))  # forget as far as there is something new
            self._nn += gain * ((1.0 - gain) * square - self._nn)
            self._nt += gain * ((1.0 - gain) * d * e - self._nt)
        held = (VARIED * self._n) ** 2
        steepest = self._t / self._n if self._n else 0.0
        slope = (self._nt + held * (1.0 - SHARE) * steepest) / (self._nn + held) if self._n else 0.0
        self.per_sample = min(max(slope, 0.0), steepest)
        self.fixed = max(self._t - self.per_sample * self._n, 0.0)
