"""The pure parts by table: when a replica counts as able, what a golden example accepts, what is logged."""

from __future__ import annotations

import pytest

from leptonai.runtime.background import BEAT, BLOCKED, Background
from leptonai.runtime.golden import close
from leptonai.runtime.health import STALE_GRACE, Running, readiness
from leptonai.runtime.predictions import summary

TABLE = [
    ("starting", None, True, "", (False, "starting", "starting")),
    ("failed", None, True, "", (False, "failed", "load_failed")),
    ("serving", None, True, "", (True, "ready", "")),
    ("serving", None, False, "", (False, "failed", "compute_dead")),
    ("serving", Running(0.0, 3.0, 1), True, "", (True, "ready", "")),  # 10 s < 3 x 3 + 1: still in time
    ("serving", Running(0.0, 2.9, 1), True, "", (False, "failed", "hung")),
    ("serving", None, True, "ValueError", (False, "failed", "canned_failed")),
    ("stopping", None, True, "", (False, "stopping", "stopping")),
    ("stopping", Running(0.0, 0.0, 1), True, "", (False, "failed", "hung")),
]


@pytest.mark.parametrize(("phase", "running", "alive", "canned", "want"), TABLE)
def test_readiness(phase: str, running: Running | None, alive: bool, canned: str, want: tuple[bool, str, str]) -> None:
    verdict = readiness(phase, running, alive, canned, 3 * 3.0 + STALE_GRACE)  # type: ignore[arg-type]
    assert verdict[:3] == want
    assert verdict.ready or verdict.detail or phase == "failed"


@pytest.mark.parametrize(
    ("want", "have", "same"),
    [
        ([1.0, 2.0], [1.00005, 2.0], True),
        ([1.0], [1.01], False),
        ([1.0], [1.0, 1.0], False),
        ("a", "a", True),
        ("1", 1, False),
        (True, 1, False),
        (None, None, True),
        (None, 0.0, False),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_golden_comparison(want: object, have: object, same: bool) -> None:
    assert close(want, have, 1e-4) is same


def test_a_summary_is_small_whatever_the_output_is() -> None:
    assert summary({"y": list(range(100)), "z": 1}) == list(range(8))
    assert summary("x" * 1000) == "x" * 64
    assert summary([{"k": "v" * 100}] * 9)[0].startswith("{'k'")
    assert summary({}) is None


def test_asynchronous_code_that_blocks_is_a_hang_that_says_what_to_do() -> None:
    assert readiness("serving", None, True, "", 9.0, blocked=0.0).ready
    verdict = readiness("serving", None, True, "", 9.0, blocked=6.0)
    assert (verdict.state, verdict.reason) == ("failed", "hung") and "6.0 s" in verdict.detail
    background = Background()
    assert background.blocked(1e9) == 0.0, "never used"
    background.beat = 100.0
    assert background.blocked(100.0 + BEAT + BLOCKED) == 0.0
    assert background.blocked(101.0 + BEAT + BLOCKED) == BLOCKED + 1.0
