"""What many outcomes come to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from leptonai.drill.kinds import KINDS
from leptonai.drill.outcome import Outcome
from leptonai.series.proportion import wilson


def share(count: int, total: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson)."""
    low, high = (float(x) for x in wilson(count, total))
    return {"count": count, "of": total, "share": count / total if total else None, "low": low, "high": high}


def score(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Shares of the faults named and answered rightly, of actions that did harm, of controls that were disturbed.

    Of the faults that somebody could notice; ``unfelt``: of the others, how many were told of all the same, and
    ``first_of_all``: the share named rightly of both. ``lost``: failed requests of faults that may lose none.
    ``kinds``: by kind, medians of the seconds.
    """
    every = [o for o in outcomes if not o.control]
    faults = [o for o in every if o.felt]
    controls = [o for o in outcomes if o.control]
    harmful, acts = sum(len(o.harm) for o in outcomes), max(1, sum(o.acts for o in outcomes))
    kinds = dict.fromkeys(o.kind for o in faults)
    return {
        "first": share(sum(o.first for o in faults), len(faults)),
        "first_of_all": share(sum(o.first for o in every), len(every)),
        "unfelt": share(sum(o.detect is not None for o in every if not o.felt), len(every) - len(faults)),
        "first_two": share(sum(o.first_two for o in faults), len(faults)),
        "remedy": share(sum(o.right_remedy for o in faults), len(faults)),
        "in_time": share(sum(o.in_time for o in faults), len(faults)),
        "detected": share(sum(o.detect is not None for o in faults), len(faults)),
        "harmful_acts": share(min(harmful, acts), acts),
        "controls_acted_on": share(sum(o.acts > 0 for o in controls), len(controls)),
        "controls_alarmed": share(sum(bool(o.noise) for o in controls), len(controls)),
        "lost": sum(o.failed for o in faults if KINDS[o.kind].lossless),
        "kinds": {kind: _of_kind([o for o in faults if o.kind == kind]) for kind in kinds},
        "confusion": confusion([o for o in outcomes if o.felt]),
    }


def _of_kind(mine: Sequence[Outcome]) -> dict[str, Any]:
    def middle(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return round(median(known), 2) if known else None

    return {
        "runs": len(mine),
        "first": sum(o.first for o in mine),
        "first_two": sum(o.first_two for o in mine),
        "remedy": sum(o.right_remedy for o in mine),
        "detect": middle([o.detect for o in mine]),
        "recover": middle([o.recover for o in mine]),
        "detect_bound": KINDS[mine[0].kind].detect,
        "recover_bound": KINDS[mine[0].kind].recover,
        "failed": sum(o.failed for o in mine),
    }


def confusion(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Right cause -> cause named first -> how often; "nothing" where no incident was opened, or none was due."""
    out: dict[str, dict[str, int]] = {}
    for o in outcomes:
        causes = KINDS[o.kind].causes
        truth = (o.cause if o.cause in causes else causes[0]) if causes else "nothing"
        row = out.setdefault(truth, {})
        row[o.cause or "nothing"] = row.get(o.cause or "nothing", 0) + 1
    return out
