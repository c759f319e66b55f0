"""The full tier: everything we know of a signal, to one score with one meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError
from leptonai.ops.detect.ar import Ar
from leptonai.ops.detect.autoencoder import Autoencoder
from leptonai.ops.detect.base import ALONE
from leptonai.ops.detect.bocpd import Bocpd
from leptonai.ops.detect.correlation import Mahalanobis, Pca
from leptonai.ops.detect.cusum import Cusum
from leptonai.ops.detect.ewma import Ewma
from leptonai.ops.detect.exemplar import Exemplar
from leptonai.ops.detect.exhaustion import Exhaustion, Remaining
from leptonai.ops.detect.forest import IsolationForest, RandomForest
from leptonai.ops.detect.groups import Grouped
from leptonai.ops.detect.missing import Missing
from leptonai.ops.detect.oneclass import OneClass
from leptonai.ops.detect.quantile import Quantile
from leptonai.ops.detect.seasonal import DAY, Seasonal
from leptonai.ops.detect.slotted import Slotted
from leptonai.ops.detect.threshold import Threshold
from leptonai.ops.detect.volatility import Volatility
from leptonai.protocols import Floats, Scored, Slots
from leptonai.series.columns import Columns

ALARM = 3.0  # decades
LOUDER = 1.2  # within ``quiet`` steps of an alarm only what is so many times worse is another
ON = ("ewma", "ar", "seasonal", "novelty", "cusum", "garch", "mahalanobis", "pca")
# each adds nothing to those that are on: docs/benchmarks/detection.md, Detectors
OFF = ("quantile", "bocpd", "isolation_forest", "random_forest", "one_class_svm", "autoencoder")
STATED = ("threshold", "exhaustion", "missing")


class Reason(NamedTuple):
    """What one detector says of a slot now, and, of a group, the slot's share of it (nan: not of a group)."""

    detector: str
    score: float
    share: float


def agreed(scores: Sequence[Floats]) -> Floats:
    """One score from n detectors: what two of them agree on, or what one says alone less ALONE decades.

    Whatever depends on whatever, the chance that the second greatest of n scores is s or more is at most n/2 x 10^-s
    (Rueger 1978; Vovk & Wang 2020), and of the greatest n x 10^-s. So the second greatest less log10(n/2) is still a
    -log10 tail probability, and so is the greatest less ALONE, as long as n is below 1,000. No average: it lets many
    weak signs pass for a strong one and halves a strong one. nan (cannot tell yet) does not vote; all nan: nan.
    """
    votes = np.array(scores)
    told = np.isfinite(votes)
    n = told.sum(axis=0)
    ranked = np.sort(np.where(told, votes, -1.0), axis=0)[::-1]
    alone = ranked[0] - np.where(n > 1, ALONE, 0.0)
    second = np.where(n > 1, ranked[min(1, len(ranked) - 1)] - np.log10(np.maximum(n, 2) / 2), -1.0)
    return np.where(n > 0, np.maximum(np.maximum(alone, second), 0.0), np.nan)


class FullTier:
    """A Detector of detectors over slots: voters that must agree (``agreed``), and stated ones that need no second.

    ``ON`` voters unless ``voters`` names others (of ON and OFF). Stated: limits (``limit``), exhaustion towards them,
    and silence. ``expected`` and ``scale`` are those of the least surprised of ewma, ar and seasonal.

    - Cold start: 30 values until ewma speaks (alone: ALONE decades are taken off once two voters speak), 60 for ar,
      230 for cusum, 190 for mahalanobis and pca, 48 samples of ``every`` for novelty, 3 days for seasonal.
    - Level shifts are adopted after ``patience`` steps, leaks never (``series.robust.Level``); a leak towards a limit
      is told by exhaustion however slow it is.
    - Repeats: ``news`` of the newest step says where an alarm is none that was told before.
    """

    name = "full"

    def __init__(
        self,
        voters: Iterable[str] = ON,
        patience: int = 60,
        every: int = 12,
        day: float = DAY,
        weekly: bool = True,
        holidays: Sequence[date | str | int] = (),
        offset: float = 0.0,
        horizon: float = 3600.0,
        quiet: int = 120,
        seed: int = 0,
        alpha: float = 0.01,
        order: int = 3,
    ) -> None:
        known: dict[str, Callable[[], Slotted]] = {
            "ewma": lambda: Ewma(alpha=alpha, patience=patience),
            "ar": lambda: Ar(order=order, alpha=alpha, patience=patience),
            "seasonal": lambda: Seasonal(day=day, weekly=weekly, holidays=holidays, offset=offset),
            "novelty": lambda: Exemplar(every=every),
            "cusum": lambda: Cusum(patience=patience),
            "mahalanobis": lambda: Mahalanobis(patience=patience),
            "quantile": Quantile,
            "bocpd": lambda: Bocpd(patience=patience),
            "garch": lambda: Volatility(patience=patience),
            "pca": lambda: Pca(patience=patience),
            "isolation_forest": lambda: IsolationForest(seed),
            "random_forest": lambda: RandomForest(seed),
            "one_class_svm": lambda: OneClass(seed),
            "autoencoder": lambda: Autoencoder(seed),
        }
        chosen = tuple(voters)
        wrong = [v for v in chosen if v not in known]
        if wrong or not chosen:
            raise SpecError(f"no detector {wrong[0]!r}" if wrong else "no voters", hint=f"known: {', '.join(known)}")
        self.quiet = quiet
        self.voters: dict[str, Slotted] = {name: known[name]() for name in chosen}
        self.threshold, self.exhaustion, self.missing = Threshold(), Exhaustion(horizon=horizon), Missing()
        self.stated: dict[str, Slotted] = {m.name: m for m in (self.threshold, self.exhaustion, self.missing)}
        self._own = Columns(worst=0.0, since=np.inf)
        self.said: dict[str, Floats] = {}  # what each member said at the newest step
        self.news: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    @property
    def members(self) -> dict[str, Slotted]:
        return {**self.voters, **self.stated}

    @property
    def alone(self) -> tuple[str, ...]:
        """The members that look at each slot by itself."""
        return tuple(name for name, member in self.members.items() if not isinstance(member, Grouped))

    @property
    def nbytes(self) -> int:
        """Bytes of state for all slots together."""
        return self._own.nbytes + sum(m.nbytes for m in self.members.values())

    def open(self, slots: int) -> None:
        for member in self.members.values():
            member.open(slots)
        self._own.open(slots)
        self.said = {}

    def grow(self, slots: int) -> None:
        for member in self.members.values():
            member.grow(slots)
        self._own.grow(slots)
        self.said = {}

    def drop(self, slot: Slots) -> None:
        for member in self.members.values():
            member.drop(slot)
        self._own.drop(slot)
        for said in self.said.values():
            said[slot] = np.nan

    def assign(self, slot: Slots, group: int) -> None:
        """These slots are judged together as ``group`` (a number >= 0) until dropped. SpecError beyond 16 members."""
        for member in self.voters.values():
            if isinstance(member, Grouped):
                member.assign(slot, group)

    def regroup(self, slot: Slots) -> None:
        """What was learnt of how these slots go with the others of their groups is forgotten; they stay members."""
        for member in self.voters.values():
            if isinstance(member, Grouped):
                for group, slots in member.groups(slot).items():
                    member.drop(slots)
                    member.assign(slots, group)

    def limit(self, slot: Slots, lower: float = -np.inf, upper: float = np.inf) -> None:
        """Beyond these a value is wrong; a climb towards them is told ``horizon`` seconds before."""
        self.threshold.set(slot, lower, upper)
        self.exhaustion.set(slot, upper, lower)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        told = {name: voter.step(at, x, learn) for name, voter in self.voters.items()}
        for name, voter in self.voters.items():
            if isinstance(voter, Grouped):  # of a signal alone it would only repeat what ewma says
                told[name] = told[name]._replace(score=np.where(voter.together, told[name].score, np.nan))
        score = agreed([t.score for t in told.values()])
        expected, scale, least = np.full(len(x), np.nan), np.full(len(x), np.nan), np.full(len(x), np.inf)
        for name in ("ewma", "ar", "seasonal"):
            if name in told:
                nearer = told[name].score < least
                expected = np.where(nearer, told[name].expected, expected)
                scale = np.where(nearer, told[name].scale, scale)
                least = np.where(nearer, told[name].score, least)
        for name, member in self.stated.items():
            told[name] = member.step(at, x, learn)
            score = np.where(told[name].score > 0, np.fmax(score, told[name].score), score)
        self.said = {name: t.score for name, t in told.items()}
        self._repeat(score)
        return Scored(score, expected, scale)

    def reasons(self, slot: int, least: float = 1.0) -> list[Reason]:
        """What spoke at the newest step with ``least`` decades and more, loudest first."""
        out = []
        for name, said in self.said.items():
            member, score = self.members[name], float(said[slot])
            if score >= least:
                share = float(member.contributions[slot]) if isinstance(member, Grouped) else float("nan")
                out.append(Reason(name, score, share))
        return sorted(out, key=lambda r: -r.score)

    def remaining(self) -> Remaining:
        """Per slot, seconds until its limit is reached, with a 95 % band; nan where none is set."""
        return self.exhaustion.remaining()

    def dump(self) -> dict[str, Any]:
        return {"own": self._own.dump(), **{name: member.dump() for name, member in self.members.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Continue where ``dump`` was taken. SpecError when it is of other voters or options."""
        if set(state) != {"own", *self.members}:
            raise SpecError(
                f"the state is of {', '.join(sorted(state))}, wanted {', '.join(self.members)}",
                hint="load a state dumped by a tier of these voters",
            )
        for name, member in self.members.items():
            member.load(state[name])
        self._own.load(state["own"])
        self.said = {}

    def _repeat(self, score: Floats) -> None:
        own = self._own
        own["since"][:] += 1.0
        own["worst"][own["since"] > self.quiet] = 0.0
        alarm = np.nan_to_num(score) >= ALARM
        self.news = alarm & (np.nan_to_num(score) > LOUDER * own["worst"])
        own["worst"][alarm] = np.maximum(own["worst"], np.nan_to_num(score))[alarm]
        own["since"][alarm] = 0.0
