"""From the objects wished and the objects there: what to apply, what to delete, and what is not ours. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from leptonai.errors import Conflict
from leptonai.plan.lanes import lanes
from leptonai.plan.render.names import MANAGER, OWN, lane_name, owner
from leptonai.plan.render.objects import scaled
from leptonai.platforms.kubernetes.compare import drift
from leptonai.platforms.kubernetes.names import Ref, ref
from leptonai.types import Key, Service

Json = dict[str, Any]

# What sets replicas goes before all else: one that comes in its place is refused while it is there (KEDA's admission),
# and replicas that we set again would be fought over. What leads requests goes before what answers them, and pods
# before what they read.
_AUTOSCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
_LEADING = ("HTTPRoute", "VirtualService", "DestinationRule")
_PRUNE = (
    *_AUTOSCALERS, *_LEADING, "Deployment", "PodDisruptionBudget", "Service", "ConfigMap", "Secret", "NetworkPolicy",
    "ServiceAccount",
)  # fmt: skip


class Move(NamedTuple):
    """``fields``: those of a live object that are not as wished; () of a new one."""

    verb: Literal["create", "change", "delete"]
    ref: Ref
    object: Json
    fields: tuple[str, ...] = ()


def moves(
    key: Key,
    wished: Sequence[Json],
    live: Mapping[Ref, Json],
    mounted: Collection[str],
    rejected: Collection[str] = (),
) -> list[Move]:
    """What makes the cluster match, in the order to do it; [] when it does.

    ``live``: the objects of the service. ``mounted``: names of ConfigMaps that pods still read. An autoscaler that is
    no longer wished goes first, everything else last: a Deployment once all wished ones serve in full, unless its
    version was ``rejected``; a ConfigMap once no pod reads it and no Deployment is being rolled.
    """
    made: list[Move] = []
    for wish in wished:
        at = ref(wish)
        here = live.get(at)
        if here is None:
            made.append(Move("create", at, wish))
        elif fields := drift(wish, here) + asleep(wish, here):
            made.append(Move("change", at, wish, tuple(fields)))
    kept = {ref(wish) for wish in wished}
    settled = not made and all(rolled(live[at]) for at in kept if at.kind == "Deployment")
    gone = []
    for at, here in live.items():
        if at in kept or here["metadata"].get("deletionTimestamp"):
            continue
        if at.kind == "Deployment":
            ready = settled or here["metadata"].get("labels", {}).get(f"{OWN}/digest") in rejected
        elif at.kind == "ConfigMap":
            ready = settled and at.name not in mounted
        else:
            ready = settled or at.kind in (*_AUTOSCALERS, *_LEADING)
        if ready:
            gone.append(Move("delete", at, here))
    gone.sort(key=lambda m: (_PRUNE.index(m.ref.kind), m.ref.name))
    first = [m for m in gone if m.ref.kind in _AUTOSCALERS]
    return first + made + gone[len(first) :]


def rolled(deployment: Json) -> bool:
    """Whether its newest template is all that runs, and serves in full."""
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    seen = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation") or 0)
    counts = [int(status.get(name) or 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return seen and counts == [wanted] * 3


def theirs(service: Service, deployments: Mapping[str, Json]) -> dict[str, int]:
    """Variant -> replicas, where ``scale.owner`` is another than us: as the Deployments have them, by name."""
    found = {}
    for lane in lanes(service):
        live = deployments.get(lane_name(service.key, lane.name))
        if scaled(service, lane) and live is not None:
            found[lane.variant.name] = int(live["spec"].get("replicas", 1))
    return found


def handed_over(wish: Json, live: Json | None) -> Json | None:
    """Replicas of a Deployment that we said and do not say any more, as they are, to be said by another field manager.

    A field that its only owner leaves out goes back to Kubernetes' default: one replica, for as long as an autoscaler
    takes. None: there is nothing to keep; none at all are not kept, see ``asleep``.
    """
    if live is None or not _still_said(wish, live) or live["spec"]["replicas"] == 0:
        return None
    meta = {name: live["metadata"][name] for name in ("name", "namespace")}
    kept = {"replicas": live["spec"]["replicas"]}
    return {"apiVersion": wish["apiVersion"], "kind": wish["kind"], "metadata": meta, "spec": kept}


def asleep(wish: Json, live: Json) -> list[str]:
    """``["spec.replicas"]`` where a zero of ours holds that we do not say any more, else [].

    Kubernetes' autoscaler is switched off at zero, and would never start one again: its default, one replica, is to
    follow. KEDA goes back to zero by itself.
    """
    return ["spec.replicas"] if _still_said(wish, live) and live["spec"]["replicas"] == 0 else []


def _still_said(wish: Json, live: Json) -> bool:
    """Whether replicas of a Deployment are ours in the cluster, and not wished by us any more."""
    if wish["kind"] != "Deployment" or "replicas" in wish["spec"]:
        return False
    said = [f for f in live["metadata"].get("managedFields") or [] if f.get("manager") == MANAGER]
    return any("f:replicas" in ((f.get("fieldsV1") or {}).get("f:spec") or {}) for f in said)


def ours(key: Key, obj: Json) -> bool:
    """By its labels; unless a controller made it, which may copy those of what it made it for: KEDA does."""
    labels = obj["metadata"].get("labels") or {}
    made = any(o.get("controller") for o in obj["metadata"].get("ownerReferences") or ())
    return not made and all(labels.get(name) == value for name, value in owner(key).items())


def foreign(key: Key, obj: Json, namespace: str) -> Conflict:
    """Why an object of that name is left alone: whose it is, as far as it says so."""
    meta, at = obj["metadata"], ref(obj)
    labels = meta.get("labels") or {}
    owners = [f"{o['kind']} {o['name']}" for o in meta.get("ownerReferences") or []]
    release = (meta.get("annotations") or {}).get("meta.helm.sh/release-name")
    owners += [f"Helm release {release}"] if release else []
    by = labels.get("app.kubernetes.io/managed-by")
    if by == MANAGER:
        other = "/".join(filter(None, (labels.get(f"{OWN}/workspace"), labels.get(f"{OWN}/service"))))
        owners += [f"leptonai's service {other}"]
    elif by:
        owners += [by]
    owners = owners or sorted({str(f.get("manager")) for f in meta.get("managedFields") or []})
    whose = ", ".join(owners) or "somebody else"
    return Conflict(
        f"{at} in namespace {namespace} belongs to {whose}, not to service {key}; it is left as it is",
        hint="delete or rename it, give the service another name, or use another namespace",
        code="foreign_owner",
        owner=whose,
    )
