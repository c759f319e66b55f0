"""The rows of the multi-window, multi-burn-rate rule: which burns over which windows are worth a page or a ticket.

Google SRE workbook, chapter 5, with sloth's 30-day table. budget = 1 - objective; burn = bad share / budget;
factor = budget spent x period / long window; alert when burn(long) > factor and burn(short) > factor.
"""

from __future__ import annotations

from typing import NamedTuple

from leptonai.errors import SpecError
from leptonai.types import Severity

MONTH = 30 * 86400.0
HOUR = 3600.0

# (severity, share of the budget spent, long window, short window) for a period of 30 days
TABLE: tuple[tuple[Severity, float, float, float], ...] = (
    ("critical", 0.02, 1 * HOUR, HOUR / 12),
    ("critical", 0.05, 6 * HOUR, HOUR / 2),
    ("warning", 0.10, 24 * HOUR, 2 * HOUR),
    ("warning", 0.10, 72 * HOUR, 6 * HOUR),
)
SHORT_STEPS, LONG_STEPS = 3, 6  # a window holds at least this many collections


class Window(NamedTuple):
    severity: Severity
    long: float  # seconds
    short: float
    factor: float

    @property
    def name(self) -> str:
        return f"{self.long:g}s/{self.short:g}s"


def windows(objective: float, period: float, step: float = 1.0) -> tuple[Window, ...]:
    """The rows that can fire for this promise, most severe and quickest first; ``step``: seconds between counts.

    Windows scale with ``period`` / 30 d but hold at least 3 (short) and 6 (long) steps; the factor is always
    budget spent x period / long, so it is the textbook's wherever no floor applies. A row with factor x budget >= 1
    asks for more than 100 % bad events and is left out. SpecError when no critical row is left, or when the period is
    so short that a floored window would spend its share of the budget before it is full (factor < 1).
    """
    if not 0 < objective < 1:
        raise SpecError(f"slo: the objective is {objective}, wanted a share strictly between 0 and 1")
    budget = 1.0 - objective
    rows = []
    for severity, spent, long, short in TABLE:
        scale = period / MONTH
        wide, narrow = max(long * scale, LONG_STEPS * step), max(short * scale, SHORT_STEPS * step)
        factor = spent * period / wide
        if factor < 1 - 1e-9:
            raise SpecError(
                f"slo.period: {period:g} s is too short for counts every {step:g} s, "
                f"wanted at least {LONG_STEPS * step / spent:g} s",
                hint="lengthen slo.period or shorten ops.period",
            )
        if factor * budget < 1:
            rows.append(Window(severity, wide, narrow, factor))
    if not any(row.severity == "critical" for row in rows):
        raise SpecError(
            f"slo: an objective of {objective:g} leaves a budget of {budget:g}; a burn that pages would need more "
            "than 100 % bad requests",
            hint=f"raise the objective above {1 - TABLE[1][2] / (TABLE[1][1] * MONTH):.3g}",
        )
    return tuple(rows)
