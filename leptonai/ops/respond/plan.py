"""A plan: the exact change a step would make, whom it touches, and what would take it back. Pure.

The preview is the door's own ``diff``, so it says before what the audit log says after.
"""

from __future__ import annotations

from leptonai.admit.world import dialled, diff
from leptonai.ops.remedies import reversal_of
from leptonai.ops.remedies.wishing import Reversal, Risk
from leptonai.ops.runbook.rows import Step
from leptonai.types import Change, DialChange, JobChange, Noun, Proposal, Service, SpecChange


class Plan(Noun, frozen=True, kw_only=True):
    """``preview``: one line a field, ``path: old → new``. ``replaces``: replicas that go in all, ``share``: of those
    wished for. ``hash`` is what an approval binds to."""

    remedy: str
    risk: Risk
    reversal: Reversal
    service: str
    proposal: Proposal
    preview: tuple[str, ...]
    replaces: int
    share: float

    @property
    def hash(self) -> str:
        return self.proposal.hash

    @property
    def text(self) -> str:
        what = "; ".join(self.preview) or "nothing"
        goes = f", replaces {self.replaces} replica(s)" if self.replaces else ""
        return f"{self.remedy} of {self.service}: {what}{goes} ({self.risk} risk, taken back: {self.reversal})"


def plan_of(step: Step, proposal: Proposal, service: Service) -> Plan:
    """The plan of ``proposal``, which changes ``service``."""
    goes = replaced(proposal.change, service)
    wished = max(1, sum(d.replicas for d in service.dials.variants.values()))
    risk = step.remedy.risk
    return Plan(
        remedy=step.name,
        risk=risk if risk in ("low", "medium") else "high",  # type: ignore[arg-type]
        reversal=reversal_of(step.remedy),
        service=service.key,
        proposal=proposal,
        preview=diff(proposal.change, service),
        replaces=goes,
        share=goes / wished,
    )


def replaced(change: Change, service: Service) -> int:
    """How many of the service's replicas the change makes go, sooner or later."""
    dials = service.dials.variants
    if isinstance(change, JobChange):
        return 0
    if isinstance(change, SpecChange):
        wanted = {v.name: v.digest for v in change.spec.variants}
        going = [v.name for v in service.spec.variants if wanted.get(v.name) != v.digest and v.name in dials]
        return sum(dials[name].replicas for name in going)
    if not isinstance(change, DialChange):
        return sum(d.replicas for d in dials.values())
    count = 0
    restarted: set[str] = set()
    for path, value in change.set.items():
        name, _, dial = path.rpartition(".")
        if path.startswith("evict."):
            count += 1
        elif dial == "epoch" and name in dials:
            restarted.add(name)
        elif dial == "replicas" and name in dials:
            count += max(0, dials[name].replicas - int(value))
    return count + sum(dials[name].replicas for name in restarted)


def reverse(change: Change, service: Service) -> Change | None:
    """What takes ``change`` back once it was made of ``service`` as it is now; None when nothing can.

    A restart and an evict leave nothing to take back. A spec goes back to what it is, made from the revision that the
    change becomes: if another came in between, the door refuses. Dials go back for as long as they were set for.
    """
    if isinstance(change, SpecChange):
        return SpecChange(spec=service.spec, base=service.revision + 1)
    if not isinstance(change, DialChange):
        return None
    was = dialled(service, change.set)
    lasting = [p for p in change.set if not (p.endswith(".epoch") or p.startswith("evict."))]
    back = {p: was[p] for p in lasting if p in was and was[p] != change.set[p]}
    sooner = {p: seconds for p, seconds in change.sooner.items() if p in back}
    return DialChange(service=change.service, set=back, ttl=change.ttl, sooner=sooner) if back else None
