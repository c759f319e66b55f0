"""The live detectors on labelled series, with any of their parameters: what they say, and what that is worth.

The detectors learn from a series as it comes and from no other, so what they say of it is the same whatever it is
compared with. Only the level from which a score is an alarm is chosen on series, and judged on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from leptonai import settings
from leptonai.errors import SpecError
from leptonai.ops.detect.full import LOUDER, FullTier, agreed
from leptonai.ops.detect.labelled import Labelled, stretched
from leptonai.ops.detect.measure import PROFILES, Judged, nab
from leptonai.ops.detect.stream import PROBATION, PROBATION_ROWS
from leptonai.protocols import Floats
from leptonai.settings import Detecting, Ops

ALARMS = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)  # decades
QUIET = 120  # rows after an alarm in which only what is LOUDER times worse is another, as in FullTier
OF = {  # the parameters that each voter depends on
    "ewma": ("alpha", "patience"), "ar": ("alpha", "order", "patience"), "seasonal": ("day", "weekly"),
    "novelty": ("every",), "cusum": ("patience",), "garch": ("patience",),
}  # fmt: skip
DAY = 86400.0
KEPT = 64  # voters' words remembered, 8 bytes a row and series each


class Bench:
    """``series`` first, then ``copies`` of each (``labelled.stretched``), which no ``worth`` ever counts."""

    defaults: Mapping[str, Any] = msgspec.to_builtins(Detecting())
    usual = Ops().anomaly_score  # the alarm where nothing was tuned

    def __init__(self, series: Sequence[Labelled], copies: int = 0, profile: str = "standard", seed: int = 0) -> None:
        if profile not in PROFILES:
            raise SpecError(f"there is no profile {profile!r}", hint=f"NAB's: {', '.join(PROFILES)}")
        self.series, self.copies, self.profile = list(series), copies, PROFILES[profile]
        rng = np.random.default_rng(seed)
        self._all = [*self.series, *(stretched(one, rng) for _ in range(copies) for one in self.series)]
        longest = max(len(one.values) for one in self._all)
        self._table = np.full((longest, len(self._all)), np.nan)
        for i, one in enumerate(self._all):
            self._table[: len(one.values), i] = one.values
        self._said: dict[tuple[Any, ...], list[Floats]] = {}

    @property
    def labelled(self) -> list[bool]:
        """Of each series, whether it has an incident past what NAB's rules do not judge."""
        return [any(last >= _start(one) for _, last in one.windows) for one in self.series]

    def check(self, params: Mapping[str, Any]) -> None:
        """SpecError names the parameter that is none of ``settings.Detecting``, or out of its bounds."""
        _options(params)

    def alarm(self, params: Mapping[str, Any], train: Sequence[int]) -> float:
        """The level that scores best on these series and on the copies of them; of equals the nearest to the usual."""
        count = len(self.series)
        mine = [i + count * k for i in train for k in range(self.copies + 1)]
        said = self._scores(params)
        best = {level: self._nab([(said[i], level, i) for i in mine]).score for level in ALARMS}
        return max(ALARMS, key=lambda level: (round(best[level], 9), -abs(level - self.usual)))

    def worth(self, choices: Sequence[tuple[Mapping[str, Any], float, Sequence[int]]]) -> dict[str, float]:
        """``choices``: parameters, alarm, and the series they judge. All series together: NAB's score, incidents found
        of those asked for, false alarms, and those per day of rows that are judged (nan without times)."""
        judges = [(self._scores(params), alarm, held) for params, alarm, held in choices]
        parts = [(said[i], alarm, i) for said, alarm, held in judges for i in held]
        told = self._nab(parts)
        judged = [(self.series[i], _start(self.series[i])) for _, _, i in parts]
        days = sum(float(one.at[-1] - one.at[start]) if one.timed else float("nan") for one, start in judged) / DAY
        return {
            "nab": told.score, "found": told.found,
            "incidents": sum(last >= start for one, start in judged for _, last in one.windows),
            "false_alarms": told.false_alarms, "false_alarms_a_day": told.false_alarms / days if days else float("nan"),
        }  # fmt: skip

    def _nab(self, parts: Sequence[tuple[Floats, float, int]]) -> Any:
        corpus = [Judged(alarms(score, level), self._all[i].windows) for score, level, i in parts]
        return nab(corpus, self.profile, 0.5)

    def _scores(self, params: Mapping[str, Any]) -> list[Floats]:
        """Of every series, copies too, the score of the full tier at each row; 0 where it cannot tell."""
        options = msgspec.to_builtins(_options(params))
        told = [self._voter(name, {n: options[n] for n in OF[name]}) for name in OF]
        return [np.nan_to_num(agreed([voter[i] for voter in told])) for i in range(len(self._all))]

    def _voter(self, name: str, options: dict[str, Any]) -> list[Floats]:
        key = (name, *sorted(options.items()))
        if key not in self._said:
            if len(self._said) > KEPT:
                self._said.clear()
            self._said[key] = self._seasonal(options) if name == "seasonal" else self._columns(name, options)
        return self._said[key]

    def _columns(self, name: str, options: dict[str, Any]) -> list[Floats]:
        """One that looks at no clock sees all series side by side."""
        voter = FullTier(voters=(name,), **options).voters[name]
        voter.open(len(self._all))
        every = np.ones(len(self._all), dtype=np.bool_)
        told = np.array([voter.step(float(t), row, every).score for t, row in enumerate(self._table)])
        return [told[: len(one.values), i] for i, one in enumerate(self._all)]

    def _seasonal(self, options: dict[str, Any]) -> list[Floats]:
        """Those with the same times side by side; nothing is said of series shorter than two seasons."""
        told = [np.full(len(one.values), np.nan) for one in self._all]
        groups: dict[bytes, list[int]] = {}
        for i, one in enumerate(self._all):
            if one.at[-1] - one.at[0] >= 2 * options["day"]:  # three days of a bin take more
                groups.setdefault(one.at.tobytes(), []).append(i)
        for mine in groups.values():
            voter = FullTier(voters=("seasonal",), **options).voters["seasonal"]
            voter.open(len(mine))
            every = np.ones(len(mine), dtype=np.bool_)
            for t, at in enumerate(self._all[mine[0]].at):
                score = voter.step(float(at), self._table[t, mine], every).score
                for k, i in enumerate(mine):
                    told[i][t] = score[k]
        return told


def alarms(score: Floats, level: float, quiet: int = QUIET) -> Floats:
    """1 where the score rises to ``level`` and, within ``quiet`` rows of an alarm or a repeat, is LOUDER times worse
    than the worst; else 0. The rule of ``FullTier.news``."""
    out = np.zeros(len(score))
    last, worst = -quiet - 1, 0.0
    for t in np.flatnonzero(score >= level).tolist():
        if t - last > quiet:
            worst = 0.0
        out[t] = float(score[t] > LOUDER * worst)
        last, worst = t, max(worst, float(score[t]))
    return out


def _start(one: Labelled) -> int:
    """The first row that is judged."""
    return int(min(PROBATION * len(one.at), PROBATION_ROWS))


def _options(params: Mapping[str, Any]) -> Detecting:
    try:
        found = msgspec.convert(dict(params), Detecting)
    except msgspec.ValidationError as e:
        raise SpecError(f"the space: {e}", hint=f"parameters: {', '.join(Detecting.__struct_fields__)}") from e
    settings.check(found)
    return found
