"""How many more replicas the nodes have room for: what they allot, less what pods request. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from leptonai.platforms.kubernetes.compare import quantity
from leptonai.platforms.kubernetes.pods import said_ready
from leptonai.types import Resources

Json = dict[str, Any]
Amounts = dict[str, Decimal]

GPU = "nvidia.com/gpu"
_KEEPS_OUT = ("NoSchedule", "NoExecute")


def room(wanted: Resources, nodes: Iterable[Json], pods: Iterable[Json]) -> int:
    """Replicas that request ``wanted`` and fit on ready nodes without taints beside ``pods``, those of all namespaces.

    As the scheduler counts, resources alone: https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler
    """
    taken: defaultdict[str, list[Json]] = defaultdict(list)
    for pod in pods:
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            taken[str((pod.get("spec") or {}).get("nodeName") or "")].append(pod)
    ask = {"pods": Decimal(1), "cpu": Decimal(str(wanted.cpu or 0)), "memory": Decimal(wanted.memory or 0)}
    ask[GPU] = Decimal(wanted.gpu)
    return sum(_fit(ask, node, taken[str(node["metadata"]["name"])]) for node in nodes)


def slim(pod: Json) -> Json:
    """What ``room`` reads of a pod: of thousands of others' nothing else is kept."""
    meta, spec = pod["metadata"], pod.get("spec") or {}
    kept = ("name", "namespace", "uid", "resourceVersion")
    return {
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {"nodeName": spec.get("nodeName")}
        | {k: [{"resources": c.get("resources")} for c in spec.get(k) or []] for k in ("containers", "initContainers")},
        "status": {"phase": (pod.get("status") or {}).get("phase")},
    }


def _fit(ask: Amounts, node: Json, pods: list[Json]) -> int:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    closed = spec.get("unschedulable") or any(t.get("effect") in _KEEPS_OUT for t in spec.get("taints") or [])
    if closed or not said_ready(node):
        return 0
    held = [_requested(pod) for pod in pods]
    fits = []
    for name, amount in ask.items():
        if amount > 0:
            free = _amount(status.get("allocatable") or {}, name) - sum(h.get(name, Decimal(0)) for h in held)
            fits.append(int(free // amount))
    return max(0, min(fits))


def _requested(pod: Json) -> Amounts:
    """What containers request together, or one of those that run before them alone, where that is more."""
    found: Amounts = {"pods": Decimal(1)}
    for name in ("cpu", "memory", GPU):
        always = sum((_of(c, name) for c in pod["spec"].get("containers") or []), Decimal(0))
        before = max((_of(c, name) for c in pod["spec"].get("initContainers") or []), default=Decimal(0))
        found[name] = max(always, before)
    return found


def _of(container: Json, name: str) -> Decimal:
    return _amount((container.get("resources") or {}).get("requests") or {}, name)


def _amount(amounts: Json, name: str) -> Decimal:
    found = quantity(str(amounts.get(name, 0)))
    return found if isinstance(found, Decimal) else Decimal(0)
