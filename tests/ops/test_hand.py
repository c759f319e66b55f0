"""What an action must not worsen is what was since the trouble began, not the peace before it."""

from __future__ import annotations

import pytest

from leptonai.ops.case import Case
from leptonai.ops.hand import BEFORE, Hand
from leptonai.ops.lookout import Lookout
from leptonai.ops.remedies import Shed
from leptonai.ops.respond import plan_of
from leptonai.ops.runbook.rows import Step
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Ops
from leptonai.types import DialChange, Dials, Incident, Proposal, Service, Signal, Spec, Variant, VariantDials

NOW = 1000.0


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
    assert case.errors_before["digits"] == pytest.approx(before, abs=0.2) and BEFORE == 10.0
