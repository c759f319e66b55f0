"""What of a wish no object says: told to whoever asks for the objects, so that nobody believes in it."""

from __future__ import annotations

from leptonai.plan.lanes import Lane
from leptonai.types import Limits, Retry, Service


def lost(service: Service, lanes: list[Lane], traffic: str, old_route: bool) -> list[str]:
    """One sentence for each field of ``service`` that does not hold on a cluster by these objects."""
    spec, dials = service.spec, service.dials
    balance = spec.balancing
    found: list[tuple[bool, str]] = [
        (spec.fallback is not None, "fallback: there is no edge in a cluster yet, so no stale answers"),
        (spec.rate_limit is not None, "rate_limit: callers are not counted by token"),
        (spec.survey is not None, "survey: the form is not served"),
        (spec.scale.idle is not None, "scale.idle: nothing goes to zero or wakes by itself"),
        (
            spec.scale.auto is not None and spec.scale.owner == "leptonai",
            "scale.auto: no scaler of ours runs in a cluster yet; replicas stay as they are dialled",
        ),
        (
            spec.scale.owner == "kubernetes" and spec.scale.min == 0,
            "scale.min: the autoscaler of Kubernetes keeps one replica",
        ),
        (
            spec.scale.owner == "kubernetes" and spec.scale.auto is not None,
            "scale.auto: Kubernetes scales on CPU, at 70 % of resources.cpu; of auto it knows only hold",
        ),
        (
            spec.scale.owner == "keda" and spec.scale.min == 0,
            "scale.min: KEDA keeps one replica; only requests that our gateway holds are seen at zero",
        ),
        (
            spec.scale.owner == "keda" and spec.scale.auto is not None,
            "scale.auto.policy: KEDA goes its own way; of auto it knows target, concurrency, window and hold",
        ),
        (
            spec.rollout.strategy != "replace" and service.canary is None,
            f"rollout.strategy: nothing judges a {spec.rollout.strategy} in a cluster yet; a changed Deployment is"
            " rolled",
        ),
        (spec.priority != 0, "priority: no runbook takes replicas from another service"),
        (bool(dials.evict), "evicted replicas: they are of another platform"),
        (bool(dials.quarantine), "quarantine: a replica in a pod takes no orders and refuses nothing"),
        (bool(spec.limits.replica_connections), "limits.replica_connections: no mesh counts them per replica"),
        (any(lane.variant.python for lane in lanes), "python: the path is looked up in the image"),
    ]
    if traffic == "istio":
        found += [
            (len(balance.hash_on) > 1, f"balance.hash_on: Istio looks only for {(*balance.hash_on, '')[0]}"),
            (balance.load_factor > 0, "balance.load_factor: Istio has no such bound"),
            (spec.retry.budget != Retry().budget, "retry.budget: Istio counts repetitions, retry.min at once"),
            (spec.limits.pending == 0, "limits.pending: Istio reads 0 as its default"),
        ]
    else:
        plain = "a plain Service" if traffic == "service" else "an HTTPRoute"
        policy = balance.policy != "least_request" or balance.slow_start > 0
        limits = spec.limits != Limits() and spec.limits != Limits(replica_connections=spec.limits.replica_connections)
        found += [
            (policy, f"balance: {plain} does not say how a replica is chosen"),
            (spec.outlier is not None, f"outlier: {plain} leaves out only what is not ready"),
            (spec.retry != Retry(), f"retry: {plain} repeats nothing"),
            (limits, f"limits: {plain} limits nothing; replicas shed by themselves"),
            (dials.shed > 0, f"shed: {plain} refuses nothing"),
            (old_route, f"paths: a v1beta1 HTTPRoute routes /v2/models/{spec.name} only"),
        ]
    return [sentence for holds, sentence in found if holds]
