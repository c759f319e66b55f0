"""Who gets which part of the requests, in whole parts."""

from __future__ import annotations

from collections.abc import Sequence

from leptonai.errors import SpecError
from leptonai.plan.lanes import Lane


def weighed(lanes: Sequence[Lane], key: str) -> list[tuple[Lane, float]]:
    """The lanes that get requests and their weights. SpecError when none does."""
    found = [(lane, lane.dials.weight * lane.share) for lane in lanes]
    found = [(lane, weight) for lane, weight in found if weight > 0]
    if not found:
        raise SpecError(f"no variant of {key} has a weight above 0", hint="give one: its requests need somewhere to go")
    return found


def parts(lanes: Sequence[tuple[Lane, float]], total: int) -> list[tuple[Lane, int]]:
    """Weights as whole parts of ``total``, the largest remainders rounded up. SpecError when one would become 0."""
    whole = sum(weight for _, weight in lanes)
    exact = [total * weight / whole for _, weight in lanes]
    made = [int(share) for share in exact]
    order = sorted(range(len(made)), key=lambda i: (made[i] - exact[i], i))
    for i in order[: total - sum(made)]:
        made[i] += 1
    for (lane, weight), part in zip(lanes, made, strict=True):
        if part == 0:
            raise SpecError(
                f"{lane.name} is to get {100 * weight / whole:.3g} % of the requests; weights here are whole parts"
                f" of {total}",
                hint=f"give it at least {100 / total:g} %",
            )
    return [(lane, part) for (lane, _), part in zip(lanes, made, strict=True)]
