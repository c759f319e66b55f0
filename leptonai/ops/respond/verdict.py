"""Whether the last action helped. No samples are never a success; what others changed meanwhile proves nothing."""

from __future__ import annotations

from leptonai.admit.world import dialled
from leptonai.ops.remedies import Retrain
from leptonai.ops.respond.acts import Judge, TakeBack, Wait
from leptonai.ops.respond.sight import Sight
from leptonai.ops.runbook.form import Verify
from leptonai.settings import Ops
from leptonai.types import OF_PIPELINE, Action, Service, SpecChange

SHED = "shed"  # eases by and by (``ease``), and beside other dials it ends before them
FAILED = ("ineffective", "inconclusive", "harmful")


def verify(last: Action, sight: Sight, now: float, settings: Ops, wanted: Verify, well: bool) -> Judge | Wait:
    """``well``: nothing fires and all is as wished, for as long as ``wanted`` asks."""
    settle = settings.settle if wanted.settle is None else wanted.settle
    patience = settings.verify_timeout if wanted.seconds is None else wanted.seconds
    if last.proposal in sight.waiting:
        return Wait(why="waits for a person's approval")
    if sight.worse:
        return Judge(verdict="harmful", detail=sight.worse)
    if sight.job:
        return Judge(verdict="ineffective", detail=sight.job)
    if sight.running:
        return Wait(why=f"the process of {last.remedy} runs")
    if meanwhile := _changed(last, sight):
        return Judge(verdict="inconclusive", detail=meanwhile)
    age = now - last.at
    missed = _missed(sight, wanted)
    if well and sight.samples > 0 and age >= settle and not missed:
        return Judge(verdict="effective", detail=f"healthy for {settle:g} s, over {sight.samples:.0f} samples")
    if age < patience:
        return Wait(why=f"{last.remedy} is being verified")
    if sight.samples <= 0:
        return Judge(verdict="inconclusive", detail=f"nothing was seen of the service within {age:.0f} s")
    if missed and all(sight.readings.get(name) is None for name in wanted.signals) and not sight.firing:
        return Judge(verdict="inconclusive", detail=f"nothing was seen of {', '.join(wanted.signals)}")
    state = "the trouble goes on" if sight.firing else missed or "the replicas are not as wished"
    return Judge(verdict="ineffective", detail=f"{state} {age:.0f} s later")


def taking_back(last: Action, sight: Sight) -> TakeBack | None:
    """The change that takes back an action that did not help; None when there is none, or it is not in force any more.

    Called until ``Action.undone`` says that it was put to the door.
    """
    if last.verdict not in FAILED or last.undo is None or last.undone is not None:
        return None
    key = last.undo.spec.key if isinstance(last.undo, SpecChange) else last.undo.service
    service = next((s for s in (sight.service, *sight.others) if s is not None and s.key == key), None)
    if service is None or not _in_force(last, service):
        return None
    return TakeBack(change=last.undo, why=f"take back {last.remedy}, which was {last.verdict}: {last.detail}")


def _in_force(last: Action, service: Service) -> bool:
    if isinstance(last.undo, SpecChange):
        return last.undo.base == service.revision
    dials = dialled(service)
    lasting = {p: value for p, value in last.set.items() if p != SHED}
    if not lasting:
        return 0.0 < dials[SHED] <= last.set.get(SHED, 0.0)
    return all(dials.get(path) == value for path, value in lasting.items())


def _changed(last: Action, sight: Sight) -> str:
    """What became of the service beside the action; an action of before this was kept has revision 0."""
    service = sight.service
    if not last.revision or service is None or last.service not in ("", service.key):
        return ""
    if service.revision > last.revision:
        newest = sight.revisions[-1] if sight.revisions else None
        if last.remedy == Retrain.name and newest is not None and newest.why.startswith(OF_PIPELINE):
            return ""  # what it was to bring
        whose = f" of {newest.by}" if newest is not None and newest.number == service.revision else ""
        return f"revision {service.revision}{whose} came meanwhile"
    return ""


def _missed(sight: Sight, wanted: Verify) -> str:
    """Which of the wanted signals is not in its range; one that was not seen is not."""
    for name, bounds in wanted.signals.items():
        value = sight.readings.get(name)
        if value is None:
            return f"nothing was seen of {name}"
        if not bounds.holds(value):
            return f"{name} is {value:.4g}, not {bounds}"
    return ""
