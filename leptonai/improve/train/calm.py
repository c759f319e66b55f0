"""What needs no judging: bounds within which ``decide`` is silent, so that a healthy step costs a few comparisons.

Everything here is a pure function of what was seen, never of the clock: the same run looks closely at the same steps,
resumed or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, isfinite
from sys import float_info
from zlib import crc32

from msgspec.structs import replace

from leptonai.improve.train.observed import History, Rules
from leptonai.types import Noun

Moments = tuple[float, float]  # location and scale of a batch
Healthy = tuple[float, float, Moments | None]  # loss, gradient norm, and moments where they were looked at, of one step
_SHARE = 16  # close looks come further apart so that at most 2 / 16 of the healthy steps lie between two
_MARGIN = 0.999  # rounding must not tell another story than ``decide``


class Calm(Noun, frozen=True, kw_only=True):
    """For ``steps`` steps whose numbers all lie within, ``decide`` has nothing to say about any of them."""

    loss: float = -inf
    norm: float = -inf
    low: float = inf  # location of the batch
    high: float = -inf
    narrow: float = inf  # its scale
    wide: float = -inf
    steps: int = 0


NEVER = Calm()


def calm(h: History, update: float, r: Rules) -> Calm:
    """The bounds that hold from ``h`` on; ``NEVER`` while each step must be judged.

    ``k`` new values move the median of ``n`` by at most ``k`` ranks, whatever they are: so the medians of the next
    ``n / 4`` steps lie between two values that are known now.
    """
    count = min(len(h.losses), len(h.locations))
    if count < r.enough or not isfinite(h.start) or update > r.rough:
        return NEVER
    steps = count // 4
    least = (len(h.locations) - 1) // 2 - steps
    locations, scales = sorted(h.locations), sorted(h.scales)
    tight, broad = max(scales[least], 1e-12), max(scales[-1 - least], 1e-12)
    room, fold = _MARGIN * r.shift_size * tight, exp(_MARGIN * r.shift_size)
    return Calm(
        loss=max(h.start, r.jump * max(h.losses[steps:])),
        norm=min(r.explode * h.peak, float_info.max),
        low=locations[-1 - least] - room,
        high=locations[least] + room,
        narrow=broad / fold,
        wide=tight * fold,
        steps=steps,
    )


def settled(h: History, steps: Sequence[Healthy], r: Rules) -> History:
    """As ``remember`` would after each of these calm steps in turn."""
    if not steps:
        return h
    losses, norms, moments = zip(*steps, strict=True)
    seen = [m for m in moments if m is not None]
    return replace(
        h,
        losses=(*h.losses, *losses)[-r.window :],
        norms=(*h.norms, *norms)[-r.window :],
        locations=(*h.locations, *(m[0] for m in seen))[-r.window :],
        scales=(*h.scales, *(m[1] for m in seen))[-r.window :],
        first=h.first if isfinite(h.first) else losses[0],
        peak=max(h.peak, *norms),
        healthy=h.healthy + len(steps),
        streak=h.streak + len(steps),
        violent=0,
        milder=0.0,
        bad=0,
        seen=h.seen + len(steps),
        restores=0 if h.streak + len(steps) >= 3 * r.settle else h.restores,
    )


def due(h: History, r: Rules) -> int:
    """``seen`` at the next close look at every layer; ``h.seen`` when it is now.

    Every step at the start and after trouble, then each ``settle``, each ``look``, and further apart the longer all is
    well: what looking costs falls, and what could be lost stays a small share of what was done.
    """
    since = h.seen - h.troubled if h.troubled >= 0 else h.seen
    if h.seen < r.young or (h.troubled >= 0 and since <= r.settle):
        return h.seen
    apart = min(r.look << (since // (_SHARE * r.look)).bit_length(), r.look_most)
    if h.troubled >= 0 and since <= r.look:
        apart = r.settle
    return h.seen + -since % apart


def inspects(since: int, r: Rules) -> bool:
    """Whether the inputs of a batch are looked at, ``since`` steps after the last trouble, though its loss be calm.

    All of them at first and after trouble, then a fraction: continuous sampling (Dodge 1943), at fixed places so that
    a run can be had again, by a checksum so that a loader that takes its sources in turn has all of them seen.
    """
    return since < r.look or crc32(since.to_bytes(8, "little")) % r.inspect == 0


class Memory:
    """A run's history to which a calm step is added by one append; reading ``history`` takes them in."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.set(History())

    def set(self, history: History, update: float = float("nan")) -> None:
        """``history`` is what is known now; ``update``: the last looked-at update over the weights."""
        self._history, self._update = history, update
        self._pending: list[Healthy] = []
        self.calm = calm(history, update, self._rules)
        self._left = due(history, self._rules) - history.seen
        self._since = history.seen - max(history.troubled, 0)

    @property
    def history(self) -> History:
        if self._pending:
            self.set(settled(self._history, self._pending, self._rules), self._update)
        return self._history

    @property
    def streak(self) -> int:
        """``history.streak``, without taking anything in."""
        return self._history.streak + len(self._pending)

    @property
    def looking(self) -> bool:
        """Whether a close look is due on the next step."""
        return len(self._pending) >= self._left

    @property
    def inspecting(self) -> bool:
        """Whether the inputs of the next batch are to be looked at."""
        return self.calm is NEVER or inspects(self._since + len(self._pending), self._rules)

    def quiet(self, loss: float, moments: Moments | None) -> bool:
        """Whether ``decide`` has nothing to say about such a batch, as far as it was looked at."""
        c = self.calm
        if not -inf < loss <= c.loss:
            return False
        return moments is None or (c.low <= moments[0] <= c.high and c.narrow <= moments[1] <= c.wide)

    def add(self, loss: float, norm: float, moments: Moments | None) -> None:
        """One more calm step; ``moments`` only when they were looked at."""
        self._pending.append((loss, norm, moments))
        if len(self._pending) >= self.calm.steps:
            self.set(settled(self._history, self._pending, self._rules), self._update)
