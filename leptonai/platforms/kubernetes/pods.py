"""What a pod is as a Replica, and what a Deployment says of pods that are never made. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from leptonai.plan.render.names import OWN
from leptonai.plan.render.pod import PORT
from leptonai.types import Replica, State, make_key

Json = dict[str, Any]

LOAD_FAILED = 8  # exit code of a replica whose model does not load
_CUT = 500  # characters of a detail
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
_MISSING = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_HEAD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(,\d+)? (info|warning|error|critical) ")


def unix(text: str | None) -> float:
    """Kubernetes' times, whole seconds in UTC; 0.0 for none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def replica(pod: Json, stable_after: float, now: float) -> Replica:
    """``pod``: one of ours. Times are the cluster's, whole seconds.

    Ready, failed and starting are told apart as on one machine: ``hung`` is one that was ready since its container
    started, still runs, and is not; what waits to be started again has failed, with the reason it ended for.
    """
    meta, status = pod["metadata"], pod.get("status") or {}
    labels = meta.get("labels") or {}
    made = unix(meta.get("creationTimestamp"))
    container: Json = next(iter(status.get("containerStatuses") or []), {})
    attempt = int(container.get("restartCount") or 0)
    state, reason, detail, since = _look(meta, status, container, made)
    if state == "ready" and now - since >= stable_after:
        attempt = 0
    running = (container.get("state") or {}).get("running") or {}
    address = f"{status['podIP']}:{PORT}" if status.get("podIP") else ""
    return Replica(
        id=str(meta["name"]),
        service=make_key(labels.get(f"{OWN}/service", ""), labels.get(f"{OWN}/workspace", "default")),
        variant=str((meta.get("annotations") or {}).get(f"{OWN}/variant", "main")),
        digest=str(labels.get(f"{OWN}/digest", "")),
        epoch=int((meta.get("annotations") or {}).get(f"{OWN}/epoch") or 0),
        state=state,
        reason=reason,
        detail=detail[:_CUT],
        since=since,
        started=unix(running.get("startedAt")) or made,
        address=address,
        attempt=attempt,
    )


def said_ready(obj: Json) -> bool:
    """Whether the cluster calls it ready, a pod or a node."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def over(pod: Json) -> bool:
    """Whether nothing of a pod that was told to end runs any more, though its object waits for the node to tidy up.

    A kubelet that has removed the container before it said that it ended calls it ``ContainerStatusUnknown``, waiting
    to be made again, which it never is; such a pod stays for up to a minute.
    """
    containers = (pod.get("status") or {}).get("containerStatuses") or []
    return bool(containers) and bool(pod["metadata"].get("deletionTimestamp")) and all(map(_ceased, containers))


def _ceased(container: Json) -> bool:
    now, last = container.get("state") or {}, container.get("lastState") or {}
    return "terminated" in now or ("waiting" in now and "terminated" in last)


def taken(pod: Json, fresh: Iterable[Json] | None) -> bool:
    """Whether ``pod``, which is gone and was not seen to be told to end, was taken from us.

    One that no node had yet is gone the moment it is told to end. ``fresh``: those that came while nobody watched
    (None: somebody did): one that was taken then has been replaced by its like, one that was told to end has not.
    """
    if not pod["spec"].get("nodeName"):
        return False
    return fresh is None or any(_template(other) == _template(pod) for other in fresh)


def _template(pod: Json) -> str:
    return str((pod["metadata"].get("labels") or {}).get("pod-template-hash", ""))


def _look(meta: Json, status: Json, container: Json, made: float) -> tuple[State, str, str, float]:
    phase, now = status.get("phase"), container.get("state") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    ready = conditions.get("Ready") or {}
    changed = unix(ready.get("lastTransitionTime")) or made
    if phase in ("Failed", "Succeeded"):
        reason = str(status.get("reason") or "exited").lower()
        ended = _ended(now.get("terminated") or {})
        return "failed", reason, str(status.get("message") or ended[1]), ended[2] or changed
    if meta.get("deletionTimestamp"):
        if meta.get("deletionGracePeriodSeconds") == 0:
            return "failed", "killed", "its pod was deleted without grace", unix(meta["deletionTimestamp"])
        evicted = (meta.get("labels") or {}).get(f"{OWN}/evicted") == "yes"
        since = unix(meta["deletionTimestamp"]) - float(meta.get("deletionGracePeriodSeconds") or 0)
        return "stopping", "evicted" if evicted else "replaced", "", since
    if waiting := now.get("waiting"):
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in _IMAGE:
            return "failed", "image_missing", f"{reason}: {message}" if message else reason, changed
        if reason in _MISSING:
            return "failed", "start_failed", f"{reason}: {message}" if message else reason, changed
        last = (container.get("lastState") or {}).get("terminated")
        if last:
            return ("failed", *_ended(last))
        return "starting", "creating", message, made
    if over := now.get("terminated"):
        return ("failed", *_ended(over))
    if now.get("running"):
        begun = unix(now["running"].get("startedAt"))
        if ready.get("status") == "True":
            return "ready", "", "", changed
        if ready.get("reason") == "NodeNotReady" or ready.get("status") == "Unknown":
            return "failed", "hung", f"its node is not heard of: {ready.get('message', '')}", changed
        if container.get("started") and changed > begun:
            return "failed", "hung", "the readiness probe fails; the process runs", changed
        return "starting", "loading", "", begun
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return "starting", "unschedulable", str(scheduled.get("message") or ""), made
    return "starting", "pending", "", made


def _ended(terminated: Json) -> tuple[str, str, float]:
    """Reason, detail and when, of a container that ended. Its message is the end of its log."""
    code, why = terminated.get("exitCode"), str(terminated.get("reason") or "")
    at = unix(terminated.get("finishedAt"))
    lines = [line for line in str(terminated.get("message") or "").splitlines() if line.strip()]
    last = _HEAD.sub("", lines[-1]) if lines else ""
    if why == "OOMKilled":
        return "oom", "killed for using more than its memory limit", at
    if code == LOAD_FAILED:
        return "load_failed", last or "the model does not load", at
    if code in (137, 143):
        return "killed", f"killed by signal {code - 128}" + (f"; its last line: {last}" if last else ""), at
    return (
        "exited",
        f"the process ended by itself with exit code {code}" + (f"; its last line: {last}" if last else ""),
        at,
    )


def refused(deployment: Json) -> Replica | None:
    """A replica that cannot even be made: over a quota, refused by an admission rule, without rights."""
    meta, status = deployment["metadata"], deployment.get("status") or {}
    failure = next(
        (c for c in status.get("conditions") or [] if c["type"] == "ReplicaFailure" and c["status"] == "True"), None
    )
    if failure is None:
        return None
    labels = meta.get("labels") or {}
    message = str(failure.get("message") or "")
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    return Replica(
        id=f"{meta['name']}-refused",
        service=make_key(labels.get(f"{OWN}/service", ""), labels.get(f"{OWN}/workspace", "default")),
        variant=str(annotations.get(f"{OWN}/variant", "main")),
        digest=str(labels.get(f"{OWN}/digest", "")),
        epoch=int(annotations.get(f"{OWN}/epoch") or 0),
        state="failed",
        reason="quota" if "exceeded quota" in message else "refused",
        detail=message[:_CUT],
        since=unix(failure.get("lastTransitionTime")),
    )
