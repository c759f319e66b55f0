"""What stands in the status of a resource. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from leptonai.client.wire import ServiceView
from leptonai.serve.resource.decide import Word
from leptonai.serve.resource.form import Declared
from leptonai.types import Incident

Json = dict[str, Any]

HELD = ("RolledBack", "Overridden", "Deleted")  # words about a generation that is not proposed any more
_MOST = 1000  # characters of a message; an object of a cluster has little room


def status(one: Declared, word: Word, view: ServiceView | None, incident: Incident | None, now: float) -> Json:
    """The whole status. ``view``, ``incident``: of the service, where it is this resource's. Equal worlds give equal
    ones, whatever ``now``: a condition keeps the time of its last change."""
    admitted = one.generation if word.ok or word.reason in HELD else one.admitted
    ready, reason, said = _ready(view)
    state = _state(one, word, view)
    out: Json = {"observedGeneration": one.generation, "state": state}
    if admitted:
        out |= {"admittedGeneration": admitted, "service": one.key}
    if view is not None:
        out |= {
            "revision": view.service.revision,
            "replicas": view.wanted,
            "readyReplicas": view.ready,
            "ready": f"{view.ready}/{view.wanted}",
            "url": view.url,
        }
    if not word.ok:
        out |= {"reason": word.reason, "message": word.message[:_MOST]}
    elif incident is not None and (ready or _cause(incident) not in ("", "unknown")):
        about = incident.title if ready else f"{incident.title}; {said}"
        out |= {"reason": _camel(_cause(incident) or "unknown"), "message": about[:_MOST]}
    elif reason != "AllReady":
        out |= {"reason": reason, "message": said[:_MOST]}
    if incident is not None:
        out["incident"] = {
            "id": incident.id,
            "title": incident.title[:_MOST],
            "cause": _cause(incident),
            "since": _time(incident.began),
        }
    out["conditions"] = [
        _condition(one, "Synced", word.ok, word.reason, word.message, now),
        _condition(one, "Ready", ready, reason, said, now),
    ]
    return out


def patch(before: Json, after: Json) -> Json:
    """The merge patch that makes the one status the other."""
    return {"status": {name: None for name in before if name not in after} | after}


def _ready(view: ServiceView | None) -> tuple[bool, str, str]:
    if view is None:
        return False, "NotServed", "no revision of it is in force"
    if not view.wanted:
        return True, "ScaledToZero", "no replica is wished for; a request may wake it"
    if view.ready >= view.wanted:
        return True, "AllReady", f"{view.ready} of {view.wanted} replicas are ready"
    said = f"{view.ready} of {view.wanted} replicas are ready"
    sick = next((r for r in view.replicas if r.state == "failed"), None)
    sick = sick or next((r for r in view.replicas if r.state == "starting" and r.reason), None)
    if sick is None:
        return False, "Starting", said
    about = f"; {sick.id}: {sick.detail or sick.reason}"
    return False, _camel(sick.reason or "failed"), said + about


def _state(one: Declared, word: Word, view: ServiceView | None) -> str:
    if one.deleting:
        return "Deleting"
    if view is None:
        return {"ApprovalNeeded": "Waiting", "Deleted": "Deleted"}.get(word.reason, "Refused")
    if not view.wanted:
        return "Asleep"
    if view.ready >= view.wanted:
        return "Probation" if view.service.canary is not None else "Ready"
    if any(r.state == "failed" for r in view.replicas):
        return "Degraded" if any(r.state == "ready" for r in view.replicas) else "Failed"
    return "Starting"


def _condition(one: Declared, name: str, ok: bool, reason: str, message: str, now: float) -> Json:
    value = str(ok)
    before: Json = next((c for c in one.status.get("conditions") or [] if c.get("type") == name), {})
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    return {
        "type": name,
        "status": value,
        "reason": reason,
        "message": message[:_MOST],
        "lastTransitionTime": since or _time(now),
        "observedGeneration": one.generation,
    }


def _cause(incident: Incident) -> str:
    return incident.causes[0].name if incident.causes else ""


def _camel(text: str) -> str:
    """``image_missing`` as Kubernetes writes reasons: ``ImageMissing``."""
    return "".join(part[:1].upper() + part[1:] for part in text.replace("-", "_").split("_"))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
