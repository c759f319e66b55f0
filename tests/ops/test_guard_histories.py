"""Random histories of incidents, runbooks, people and faults of the platform itself: no guard rail is ever broken.

``benchmarks/guard_rails.py`` plays 10,000 of them; here are fewer, and each rail is broken once on purpose.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest
from guard_stage import SEEN, Guarded, settings_of
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from leptonai.ops.incidents import reopen
from leptonai.ops.remedies import OURS
from leptonai.ops.runbook import bind
from leptonai.ops.runbook.form import Limits, RowText, StepText

KEYS = ("wide", "pair", "lone")
CAUSES = ("hung_replica", "memory_leak", "traffic_surge", "bad_revision_errors", "noisy_neighbour")
ABOUT = {"hung_replica": "replica", "memory_leak": "replica", "bad_revision_errors": "revision"}
HISTORIES = int(os.environ.get("LEPTONAI_HISTORIES", "40"))

plain = st.builds(
    StepText,
    do=st.sampled_from(
        ["evict", "recycle", "restart", "rollback", "scale", "shed", "quarantine", "preempt", "fallback_off"]
    ),
    tries=st.integers(1, 2),
    approval=st.sampled_from([None, None, "never", "above low", "always"]),
    compensate=st.sampled_from([None, None, False]),
)
step = plain.map(lambda s: msgspec.structs.replace(s, given={"refuse": 60.0}) if s.do == "scale" else s)
row = st.builds(
    RowText,
    steps=st.lists(step, min_size=1, max_size=4, unique_by=lambda s: s.do).map(tuple),
    reconcile=st.booleans(),
    autonomy=st.sampled_from(["act", "act", "act", "recommend"]),
    limits=st.builds(
        Limits,
        attempts=st.sampled_from([None, 1, 4]),
        cooldown=st.sampled_from([None, 30.0]),
        share=st.sampled_from([0.25, 1.0]),
        ready=st.integers(0, 3),
        most=st.sampled_from([1, 3, 10]),
        window=st.sampled_from([60.0, 3600.0]),
    ),
)


def sane(text: RowText) -> RowText:
    """Without what the reader of runbooks refuses as a contradiction."""
    if text.autonomy == "recommend":
        plain = tuple(msgspec.structs.replace(s, approval=None) for s in text.steps if isinstance(s, StepText))
        return msgspec.structs.replace(text, steps=plain, autonomy="recommend" if plain else "act")
    return text


class Histories(RuleBasedStateMachine):
    @initialize(
        rows=st.fixed_dictionaries({cause: row.map(sane) for cause in CAUSES}),
        attempts=st.integers(1, 3),
        concurrent=st.integers(1, 3),
        shadow=st.sampled_from([False] * 14 + [True]),
        pace=st.sampled_from([1, 3, 10]),
    )
    def begin(self, rows: Any, attempts: int, concurrent: int, shadow: bool, pace: int) -> None:
        book = bind(rows, "drawn", OURS)
        self.stage = Guarded(settings_of(attempts, concurrent, shadow, pace), book)
        self.stage.step(1.0)
        self.trouble("wide", "hung_replica", 0.9)

    @rule(key=st.sampled_from(KEYS), cause=st.sampled_from(CAUSES), confidence=st.sampled_from([0.9, 0.9, 0.9, 0.4]))
    def trouble(self, key: str, cause: str, confidence: float) -> None:
        self.stage.open(key, cause, ABOUT.get(cause, "service"), confidence)
        self.stage.step(1.0)

    @rule(seconds=st.sampled_from([1.0, 1.0, 4.0, 11.0, 35.0, 120.0]), times=st.integers(1, 4))
    def wait(self, seconds: float, times: int) -> None:
        for _ in range(times):
            self.stage.step(seconds)

    @rule(key=st.sampled_from(KEYS), seconds=st.sampled_from([1.0, 2.0, 4.0]))
    def repair(self, key: str, seconds: float) -> None:
        """Whatever was wrong with it is over, and it is looked at for a while."""
        stage = self.stage
        for being in (stage.firing, stage.silent, stage.stuck, stage.broken, stage.flooded, stage.theirs):
            being.discard(key)
        self.stage.stale = False
        for _ in range(4):
            self.stage.step(seconds)

    @rule(key=st.sampled_from(KEYS), what=st.sampled_from(["firing", "silent", "stuck", "broken", "flooded", "theirs"]))
    def turn(self, key: str, what: str) -> None:
        being: set[str] = getattr(self.stage, what)
        being ^= {key}
        self.stage.step(1.0)

    @rule(key=st.sampled_from(KEYS))
    def deploy(self, key: str) -> None:
        self.stage.deploy(key)
        self.stage.step(1.0)

    @rule(key=st.sampled_from(KEYS))
    def verify(self, key: str) -> None:
        self.stage.verify(key)

    @rule(on=st.sampled_from([False, False, True]))
    def freeze(self, on: bool) -> None:
        self.stage.door.frozen = "human:ana: enough" if on else ""
        self.stage.step(1.0)

    @rule(stale=st.sampled_from([False, False, True]), doubt=st.sampled_from(["", "", "the classifier says otherwise"]))
    def see(self, stale: bool, doubt: str) -> None:
        self.stage.stale, self.stage.doubt = stale, doubt
        self.stage.step(1.0)

    @rule(pick=st.integers(0, 100), wrong=st.booleans())
    def approve(self, pick: int, wrong: bool) -> None:
        """Any proposal, whatever became of it: a wrong hash, a replay and a late yes count for nothing."""
        made = list(self.stage.door.proposals.values())
        if made:
            chosen = made[pick % len(made)]
            count = len(self.stage.door.admitted)
            counted = self.stage.door.approve(chosen.id, "0" * 64 if wrong else chosen.hash)
            assert not (counted and (wrong or chosen.status != "pending"))
            assert len(self.stage.door.admitted) == count + counted
            self.stage.step(1.0)

    @invariant()
    def one_at_a_time(self) -> None:
        for case in (getattr(self, "stage", None) and self.stage.book.cases) or ():
            assert sum(a.verdict is None for a in case.incident.actions) <= 1
            assert len({e.id for e in case.incident.evidence}) == len(case.incident.evidence)

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            SEEN["histories"] += 1
            SEEN["incidents"] += len(self.stage.book.cases)
            SEEN["escalated"] += sum(c.incident.escalated is not None for c in self.stage.book.cases)
            SEEN["closed"] += sum(c.incident.closed is not None for c in self.stage.book.cases)
            self.stage.close()


def play(count: int = HISTORIES, shrink: bool = True) -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=count, stateful_step_count=25, deadline=None, derandomize=count == 40, database=None,
            phases=tuple(Phase) if shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck), print_blob=False,
        ),
    )  # fmt: skip


SCALE = (StepText(do="scale", given={"refuse": 60.0}),)


@pytest.mark.parametrize(("steps", "theirs"), [(("shed",), False), (SCALE, False), (SCALE, True)])
def test_what_is_refused_is_let_in_again_once_it_is_carried_and_not_before(
    steps: tuple[Any, ...], theirs: bool
) -> None:
    """All rails hold on the way, also after the incident was closed; what comes back is no try that did not help."""
    SEEN.clear()
    stage = Guarded(settings_of(2, 3, False, 10), bind({"traffic_surge": RowText(steps=steps)}, "drawn", OURS))
    try:
        stage.step(1.0)
        stage.flooded.add("wide")
        stage.theirs |= {"wide"} if theirs else set()
        stage.open("wide", "traffic_surge", "service", 0.9)
        stage.step(1.0)
        share = stage.door.service("wide").dials.shed
        assert share > 0.2
        stage.firing.discard("wide")
        for _ in range(25):
            stage.step(1.0)
        (case,) = stage.book.cases
        assert case.incident.closed is not None and stage.door.service("wide").dials.shed == share, (
            "it is still too much"
        )
        stage.flooded.discard("wide")
        for _ in range(12):
            stage.step(1.0)
        assert stage.door.service("wide").dials.shed == 0.0 and SEEN["eased"] >= 1
        assert case.incident.actions[-1].verdict == "effective" and case.incident.actions[-1].undone is not None
        again = reopen(case.incident, stage.now)
        assert again.closed is None and again.actions[-1].verdict == "effective"
    finally:
        stage.close()


@pytest.mark.timeout(0)
def test_no_history_breaks_a_guard_rail() -> None:
    SEEN.clear()
    play()
    for what in ("admitted incident", "effective", "ineffective", "inconclusive", "taken back", "escalated"):
        assert SEEN[what] > 0, f"these histories know nothing of {what}: {SEEN}"
