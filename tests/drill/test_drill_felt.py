"""Which faults that only make answers late count: those that users could have noticed."""

from __future__ import annotations

import numpy as np
import pytest

from leptonai.drill.felt import BEFORE, by_users
from leptonai.drill.traffic import Answer

AT, LASTS, PROMISE = 1_000_000.0, 45.0, 0.15


def answers(since: float, *, failed: float = 0.0, rate: float = 16.0, before: float = BEFORE + 5.0) -> list[Answer]:
    """Users whose answers take 20 ms, give or take a third, and ``since`` times as long from AT on."""
    rng = np.random.default_rng(0)
    due = np.sort(rng.uniform(AT - before, AT + LASTS, int(rate * (before + LASTS))))
    return [
        Answer(
            id=str(n),
            due=float(t),
            seconds=float(0.02 * rng.lognormal(0, 0.3) * (since if t >= AT else 1.0)),
            status=200,
            result="failed" if t >= AT and rng.random() < failed else "right",
        )
        for n, t in enumerate(due)
    ]


@pytest.mark.parametrize(
    ("mine", "noticed"),
    [
        (answers(1.0), False),
        (answers(1.2), False),  # a fifth longer, which nobody sees
        (answers(2.5), True),
        (answers(1.0, failed=0.3), True),
        (answers(8.0), True),  # the promise is broken
        (answers(1.0, before=10.0), True),  # nobody knows what was usual, so the platform has to answer for it
        ([a for a in answers(1.0) if a.due < AT], True),
        ([], True),
    ],
)
def test_what_users_could_notice(mine: list[Answer], noticed: bool) -> None:
    assert by_users(mine, AT, AT + LASTS, PROMISE) is noticed
