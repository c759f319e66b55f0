"""What an action must not worsen is what was since the trouble began, not the peace before it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.admit import Door
from leptonai.errors import Denied
from leptonai.ops.case import Case, trend
from leptonai.ops.hand import BEFORE, Hand
from leptonai.ops.jobs.form import Ended
from leptonai.ops.lookout import Lookout
from leptonai.ops.remedies import Shed
from leptonai.ops.respond import plan_of
from leptonai.ops.runbook.rows import Step
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Admit, Ops, Settings
from leptonai.store import Store
from leptonai.types import (
    Action,
    Change,
    DialChange,
    Dials,
    Incident,
    Proposal,
    Service,
    Signal,
    Spec,
    SpecChange,
    Token,
    Variant,
    VariantDials,
)

NOW = 1000.0
OPS = Token(name="ops", role="operator", secret_sha256="", created=0.0)
ANA = Token(name="ana", role="admin", secret_sha256="", created=0.0)


@pytest.mark.parametrize(("lasted", "before"), [(1.0, 0.5), (5.0, 0.5), (60.0, 0.5)])
def test_the_errors_before_an_action_are_those_of_the_trouble(lasted: float, before: float) -> None:
    """Half of the answers fail from the onset on, none did before: whenever the action is taken, half were failing."""
    store = Memory(keep=1e9)
    for n in range(100):
        at = NOW - n
        failing = 0.5 if at >= NOW - lasted else 0.0
        store.write([Signal(name="error_ratio", labels={"service": "digits"}, at=at, value=failing)])
    spec = Spec(name="digits", variants=(Variant(model="sha256:" + "0" * 64),))
    service = Service(spec=spec, dials=Dials(variants={"main": VariantDials()}), revision=1)
    incident = Incident(
        id=1, subject="default/service/digits", severity="warning", title="x", began=NOW - lasted, opened=NOW
    )
    case = Case(incident, NOW)
    change = DialChange(service="digits", set={"shed": 0.5})
    asked = Proposal(id="", change=change, by="incident:1", why="", at=NOW, expires=NOW + 1)
    hand = Hand(None, store)  # type: ignore[arg-type] - control is not asked
    hand._began(case, plan_of(Step(Shed()), asked, service), {"digits": Lookout(service, Ops())}, NOW)
    known = case.errors_before["digits"]
    assert known is not None and known.level == pytest.approx(before, abs=0.2) and BEFORE == 10.0


@given(st.floats(0.0, 0.5), st.floats(-0.1, 0.1), st.integers(2, 10), st.floats(0.0, 60.0))
def test_a_fault_that_grows_is_expected_to_for_as_long_as_it_was_seen_to(
    first: float, slope: float, points: int, later: float
) -> None:
    """Never below the level before, never above 1; on the line for as long again as it was watched, not beyond."""
    store = Memory(keep=1e9)
    values = [min(max(first + slope * n, 0.0), 1.0) for n in range(points)]
    for n, value in enumerate(values):
        store.write([Signal(name="error_ratio", labels={"service": "digits"}, at=NOW + n, value=value)])
    end = NOW + points - 1
    found = trend(store, "error_ratio", "digits", NOW, end)
    assert found is not None
    expected = found.ahead(end + later)
    assert found.level - 1e-9 <= expected <= 1.0
    if slope <= 0:
        assert expected == pytest.approx(found.level)
    elif values[0] > 0.0 and values[-1] < 1.0:
        line = min(1.0, first + slope * (points - 1 + min(later, points - 1)))
        assert expected == pytest.approx(line, abs=1e-6)


def test_what_was_not_seen_has_no_trend() -> None:
    assert trend(Memory(keep=1e9), "error_ratio", "digits", NOW, NOW + 10) is None


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ended(code=0, seconds=1.0), "The process of command took 1.0 s: it ended well."),
        (Ended(error="it did not answer within 4 s", seconds=5.4), "took 5.4 s: it did not answer within 4 s."),
    ],
)
def test_how_a_job_ended_is_said_in_one_sentence(ended: Ended, said: str) -> None:
    action = Action(remedy="command", proposal="p", at=NOW)
    case = Case(
        Incident(
            id=1, subject="default/service/digits", severity="info", title="x", began=1.0, opened=2.0, actions=(action,)
        ),
        NOW,
    )
    Hand(None, Memory(keep=1.0))._ended(case, action, ended)  # type: ignore[arg-type] - control is not asked
    assert case.incident.evidence[-1].text.endswith(said)


class Asked:
    """The real door, as ops asks it."""

    def __init__(self, door: Door) -> None:
        self.door = door

    async def propose(self, change: Change, why: str, by: str, ask: str = "", expires_in: float | None = None) -> Any:
        return self.door.propose(change, OPS, why, by=by, ask=ask, expires_in=expires_in)


def test_an_easing_that_a_person_would_have_to_approve_is_asked_once_and_never_refuses_anew(tmp_path: Path) -> None:
    """Approved when the refusal is over, it would refuse again what nobody refuses any more."""
    clock = [NOW]
    with Store(tmp_path / "store.db") as store:
        door = Door(store, Settings(admit=Admit(approval=("shed",))), clock=lambda: clock[0])
        spec = Spec(name="digits", variants=(Variant(model="sha256:" + "0" * 64),))
        door.propose(SpecChange(spec=spec, base=0), ANA, "set the scene")
        action = Action(remedy="shed", proposal="p", at=NOW, verdict="effective", set={"shed": 0.9})
        incident = Incident(
            id=1, subject="default/service/digits", severity="info", title="x", began=1.0, opened=2.0, actions=(action,)
        )
        case = Case(incident, NOW)
        asyncio.run(Hand(Asked(door), Memory(keep=1.0)).ease(case, 0.5, NOW))  # type: ignore[arg-type] - the one call
        (waiting,) = store.proposals(status="pending")
        assert case.eased_at > NOW + 1e9, "it is not asked again"
        clock[0] += 120.0
        with pytest.raises(Denied):
            door.approve(waiting.id, waiting.hash, ANA)
        found = store.service("digits", clock[0])
        assert found is not None and found.dials.shed == 0.0
