"""What the cluster warns of: its Events about pods and what makes them, and the conditions of nodes. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from leptonai.platforms.kubernetes.pods import unix

Json = dict[str, Any]

_CUT = 500  # characters of what is said
_NODE = {"MemoryPressure": "memory_pressure", "DiskPressure": "disk_pressure", "PIDPressure": "pid_pressure"}
# Reasons of Kubernetes' own components: scheduler, kubelet, controllers of nodes, of ReplicaSets and of evictions.
_REASONS = {
    "FailedScheduling": "unschedulable",
    "ErrImageNeverPull": "image_missing",
    "InspectFailed": "image_missing",
    "Evicted": "evicted",
    "Preempted": "evicted",
    "NodeNotReady": "node_not_ready",
    "Unhealthy": "unhealthy",
    "FailedCreate": "not_made",
    "FailedMount": "volume",
    "FailedAttachVolume": "volume",
    "FailedCreatePodSandBox": "sandbox",
    "NetworkNotReady": "sandbox",
}


class Warned(NamedTuple):
    """``reason`` is a slug, ``said`` what the cluster says, ``at`` when it said so last, ``times`` how often."""

    reason: str
    said: str
    at: float
    times: int = 1


def of_event(event: Json) -> Warned | None:
    """What an Event of the kind Warning says; None for one that is none, and for what each pod says while it starts."""
    if event.get("type") != "Warning" or str(event.get("message") or "").startswith("Startup probe failed"):
        return None
    reason, message = str(event.get("reason") or ""), " ".join(str(event.get("message") or "").split())
    series = event.get("series") or {}
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return Warned(
        _reason(reason, message),
        f"{reason}: {message}"[:_CUT],
        unix(last or event["metadata"].get("creationTimestamp")),
        int(series.get("count") or event.get("count") or 1),
    )


def _reason(reason: str, message: str) -> str:
    """Of pulling and starting alike the kubelet says ``Failed`` and ``BackOff``: the message tells which."""
    if reason in ("Failed", "BackOff"):
        return "image_missing" if "image" in message.lower() or "ErrImage" in message else "crash_loop"
    return _REASONS.get(reason, "other")


def of_node(node: Json | None) -> dict[str, Warned]:
    """What is wrong with a node, by reason; of one that is gone, that it is."""
    if node is None:
        return {"node_gone": Warned("node_gone", "it has left the cluster", 0.0)}
    found = {}
    for condition in (node.get("status") or {}).get("conditions") or []:
        kind, status = condition["type"], condition["status"]
        slug = (
            "node_not_ready" if kind == "Ready" and status != "True" else _NODE.get(kind) if status == "True" else None
        )
        if slug:
            said = f"{kind} is {status}: {condition.get('message') or condition.get('reason') or 'no reason given'}"
            found[slug] = Warned(slug, said[:_CUT], unix(condition.get("lastTransitionTime")))
    if (node.get("spec") or {}).get("unschedulable"):
        found["cordoned"] = Warned("cordoned", "it takes no new pods: somebody has cordoned it", 0.0)
    return found


def maker(kind: str, name: str) -> str | None:
    """The name of the Deployment that makes what an Event is about; None when that is nothing of a Deployment."""
    dashes = {"Deployment": 0, "ReplicaSet": 1, "Pod": 2}.get(kind)
    if dashes is None:
        return None
    return name.rsplit("-", dashes)[0] if dashes else name
