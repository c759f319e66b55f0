"""What was tried, what of it is worth having, and what to take: frozen values and pure decisions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from math import isfinite, isnan, nan, sqrt
from typing import Literal, TypeVar

from leptonai.errors import SpecError
from leptonai.types import Noun

T = TypeVar("T")
Aim = Literal["both", "latency", "size"]
QUALITIES = ("accuracy", "agreement", "rmse")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3}


class Budget(Noun, frozen=True, kw_only=True):
    """``loss``: how much of ``quality`` may be lost: a share of rows, or of rmse its relative growth."""

    quality: Literal["accuracy", "agreement", "rmse"] = "accuracy"
    loss: float = 0.005
    latency: float | None = None  # seconds, median of a request
    size: float | None = None  # bytes


def budget(text: str) -> Budget:
    """``accuracy=0.5%,latency=2ms,size=1MB``: one quality at most (accuracy is asked for when none is named)."""
    told: dict[str, float | str] = {}
    for part in text.split(","):
        name, _, value = (p.strip() for p in part.partition("="))
        hint = "accuracy=0.5%, agreement=1%, rmse=2%; latency=2ms; size=1MB; several with commas"
        found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z%]*)", value)
        if found is None:
            raise SpecError(f"budget {part.strip()!r} is not NAME=NUMBER", hint=hint)
        number, unit = float(found[1]), found[2]
        if name in QUALITIES:
            if unit not in ("", "%"):
                raise SpecError(f"budget {part.strip()!r}: unit {unit!r} is not known", hint=hint)
            loss = number / 100 if unit else number
            if not 0 <= loss < 1 or "quality" in told:
                raise SpecError(f"budget {text!r}: one quality, with a loss of 0 to under 100 %", hint=hint)
            told |= {"quality": name, "loss": loss}
        elif name in ("latency", "size"):
            units = _SECONDS if name == "latency" else _BYTES
            if unit not in units or number <= 0:
                raise SpecError(f"budget {part.strip()!r}: units are {', '.join(units)}", hint=hint)
            told[name] = number * units[unit]
        else:
            raise SpecError(f"budget {name!r} is not known", hint=hint)
    return Budget(**told)  # type: ignore[arg-type] # each was read as its field


class Candidate(Noun, frozen=True, kw_only=True):
    """One model that was made and measured. Names of steps in order; () is the original as it is served."""

    steps: tuple[str, ...] = ()
    file: str = ""  # beside the report; "": the original
    size: int = 0  # bytes on disk
    quality: float = nan  # on the rows that choose
    loss: float = nan  # of quality, against the original on the same rows
    error_of_loss: float = 0.0  # its standard error: few rows, or many changed answers, make a loss uncertain
    median: float = nan  # seconds of a request to a warm replica, one row, JSON
    p99: float = nan
    compute: float = nan  # median seconds inside the model, as the replica's own log has it
    speedup: float = nan  # original's median over this one's, in alternating blocks of requests
    speedup_low: float = nan  # with 95 % confidence at least so much (bootstrap over blocks)
    speedup_high: float = nan
    error: str = ""  # why it could not be made, run or measured
    left: str = ""  # why it was followed no further: it has no file then
    late: str = ""  # why its latency is not known: its replica, or the original's, was not in time

    @property
    def name(self) -> str:
        return " + ".join(self.steps) or "original"

    @property
    def measured(self) -> bool:
        return not self.error and isfinite(self.median) and isfinite(self.quality)

    @property
    def faster(self) -> float:
        """How many times faster it may be called: 1 unless the whole interval lies on one side of 1."""
        return self.speedup if self.speedup_low > 1 or self.speedup_high < 1 else 1.0


def affordable(c: Candidate, budget: Budget) -> bool:
    """Whether the loss plus one standard error of it is within the budget: the best of many is lucky otherwise.

    What looks better than the original counts as equal to it: luck must not pay for uncertainty.
    """
    return not c.error and max(c.loss, 0.0) + c.error_of_loss <= budget.loss + 1e-12


def within(c: Candidate, budget: Budget) -> bool:
    return (
        affordable(c, budget)
        and (budget.latency is None or c.median <= budget.latency)
        and (budget.size is None or c.size <= budget.size)
    )


def timed(aim: Aim, budget: Budget) -> bool:
    """Whether the clock has a say in the choice. Where it has none, the same search ends the same on a busy machine."""
    return aim != "size" or budget.latency is not None


def gain(c: Candidate, original: Candidate, aim: Aim) -> float:
    """What ``pick`` ranks by: times smaller, times faster, or the geometric mean of both."""
    smaller = original.size / max(c.size, 1)
    if aim == "size":
        return smaller
    return c.faster if aim == "latency" else sqrt(smaller * c.faster)


def pick(candidates: Sequence[Candidate], budget: Budget, aim: Aim = "both") -> Candidate:
    """The measured candidate within the budget that gains most; the original (the first) when none gains anything.

    Ties go to the smaller loss, then to fewer steps. Where the clock has no say, ``late`` ones count as measured.
    """
    original, *others = candidates
    known = [c for c in others if c.measured or (c.late and not timed(aim, budget))]
    fit = [c for c in known if within(c, budget) and gain(c, original, aim) > 1]
    return max(fit, key=lambda c: (gain(c, original, aim), -c.loss, -len(c.steps)), default=original)


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats or equals in quality, speed beside the original and size at once, largest first."""
    seen = [c for c in candidates if c.measured]

    def beaten(c: Candidate) -> bool:
        mine = (-c.quality, -c.speedup, c.size)
        return any(o is not c and beats((-o.quality, -o.speedup, o.size), mine) for o in seen)

    return sorted((c for c in seen if not beaten(c)), key=lambda c: -c.size)


def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether ``a`` is nowhere more than ``b``, and somewhere less."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


class Report(Noun, frozen=True, kw_only=True):
    """A finished search. ``confirmed``: the chosen one's loss on rows that chose nothing; nan for the original."""

    budget: Budget
    aim: Aim
    candidates: tuple[Candidate, ...]  # the original first
    chosen: Candidate
    rows: dict[str, int]  # how many taught, chose, confirmed
    quality: float  # of the chosen one, on the rows that confirm
    original: float  # of the original, there
    confirmed: float = nan
    said: str = ""  # the outcome in a sentence

    @property
    def kept(self) -> bool:
        """Whether the original stays."""
        return not self.chosen.steps


def outcome(chosen: Candidate, original: Candidate, budget: Budget, confirmed: float, least: float) -> str:
    """One sentence; claims only what was measured. ``least``: the smallest loss of any candidate."""
    if not chosen.steps:
        if isnan(least) or least > budget.loss:
            best = "" if isnan(least) else f"; the least loss, with its standard error, was {100 * least:.2f} %"
            return f"the budget ({told(budget)}) cannot be met{best}: the original is kept"
        if budget.latency is not None or budget.size is not None:
            return f"nothing within the budget ({told(budget)}) was found: the original is kept"
        return "nothing within the budget is smaller or faster: the original is kept"
    smaller = original.size / max(chosen.size, 1)
    speed = f"{chosen.speedup:.2f} times as fast" if chosen.faster != 1 else "no measurable change of speed"
    if chosen.late:
        speed = "its speed was not measured"
    return f"{chosen.name}: {smaller:.2f} times smaller, {speed}, {100 * confirmed:.2f} % of {budget.quality} lost"


def told(budget: Budget) -> str:
    parts = [f"{budget.quality} {100 * budget.loss:g} %"]
    if budget.latency is not None:
        parts.append(f"latency {1e3 * budget.latency:g} ms")
    if budget.size is not None:
        parts.append(f"size {budget.size / 1e3:g} KB")
    return ", ".join(parts)


def chosen(known: Mapping[str, T], only: Collection[str] | None) -> dict[str, T]:
    """Those named in ``only``; all without it."""
    return {k: v for k, v in known.items() if only is None or k in only}


def slug(steps: Sequence[str]) -> str:
    return "-".join(steps).replace(" ", "_").replace("%", "").replace("/", "")
