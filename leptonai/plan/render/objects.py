"""The objects of one lane, and those that all lanes of a service share, traffic aside."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from leptonai.errors import SpecError
from leptonai.plan.lanes import NEW, Lane, lanes
from leptonai.plan.render import names, pod
from leptonai.plan.render.apis import Apis
from leptonai.types import Key, Launch, Scale, Service, Tuning, canonical

Json = dict[str, Any]

_CONFIG_BYTES = 1_000_000  # etcd takes 1.5 MB with everything around; Kubernetes allows a ConfigMap 1 MiB
_CPU_TARGET = 70  # percent of what is requested: the advice of our own scaler, 0.7 x concurrency
_HOLD = 300.0  # seconds that scaling down waits: Kubernetes' own default
_METADATA = ("169.254.169.254/32", "fd00:ec2::254/128")  # where clouds hand out the node's credentials


def metadata(name: str, namespace: str, key: Key, lane: Lane | None = None) -> Json:
    labels = names.owner(key)
    if lane is not None:
        labels |= {f"{names.OWN}/lane": lane.name}
    return {"name": name, "namespace": namespace, "labels": labels}


def account(service: Service, namespace: str) -> Json:
    """Nobody's rights: the runtime asks the API server nothing."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(names.account_name(service.key), namespace, service.key),
        "automountServiceAccountToken": False,
    }


def config(service: Service, lane: Lane, namespace: str, orders: str = "") -> Json:
    """``launch.json``. The revision is no part of the name: one that leaves the variant as it is restarts nothing."""
    launch = pod.launch(service, lane.variant)
    text = msgspec.json.format(canonical(launch), indent=2).decode() + "\n"
    if len(text.encode()) > _CONFIG_BYTES:
        raise SpecError(
            f"variant {lane.variant.name!r}: options and env are over {_CONFIG_BYTES} bytes, the limit of a ConfigMap",
            hint="put what is large into the model's files",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(_config_name(service, lane, launch, orders), namespace, service.key, lane),
        "data": {"launch.json": text},
    }


def _config_name(service: Service, lane: Lane, launch: Launch, orders: str) -> str:
    """``orders``: what a running replica can be told (``Tuning``) makes no other name, and so no other pods."""
    named = msgspec.structs.replace(launch, revision=0)
    if orders:
        rest = Tuning()
        variant = msgspec.structs.replace(launch.variant, batching=rest.batching)
        named = msgspec.structs.replace(named, variant=variant, latency=rest.latency, timeout=rest.timeout)
    return names.config_name(service.key, lane.name, named)


def policy(service: Service, namespace: str, callers: tuple[str, ...], apis: Apis) -> Json:
    """Callers of its own namespace and of ``callers`` reach the one port; the node's credentials are out of reach."""
    if callers:
        what = f"letting in callers of namespace {callers[0]} by name"
        apis.require(21, what, "earlier versions do not label namespaces with their names")
    sources: list[Json] = [{"podSelector": {}}]
    sources += [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": c}}} for c in sorted(callers)]
    everywhere: list[Json] = [{"namespaceSelector": {}}]  # some networks do not count pods among addresses
    everywhere += [
        {"ipBlock": {"cidr": cidr, "except": [_METADATA[at]]}} for at, cidr in enumerate(("0.0.0.0/0", "::/0"))
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(names.account_name(service.key), namespace, service.key),
        "spec": {
            "podSelector": {"matchLabels": names.selector(service.key)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": sources, "ports": [{"port": pod.PORT, "protocol": "TCP"}]}],
            "egress": [{"to": everywhere}],
        },
    }


def service_of(service: Service, name: str, lane: Lane, namespace: str, *, front: bool = False) -> Json:
    """A stable address for the pods of ``lane``. ``front``: of what clients call, whichever lane answers."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, namespace, service.key, None if front else lane),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(service.key, lane.name),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def deployment(service: Service, lane: Lane, image: str, namespace: str, orders: str = "") -> Json:
    """``replicas`` is left out where somebody else sets them. A canary's few are ours in any case."""
    launch = pod.launch(service, lane.variant)
    rollout = service.spec.rollout
    made = metadata(names.lane_name(service.key, lane.name), namespace, service.key, lane)
    made["labels"] |= {f"{names.OWN}/digest": lane.variant.digest}  # of nothing else: it would change with each model
    made["annotations"] = {f"{names.OWN}/revision": str(launch.revision)}
    spec: Json = {} if scaled(service, lane) else {"replicas": lane.wanted}
    spec |= {
        "selector": {"matchLabels": names.held(service.key, lane.name)},
        # Never one less than wished; without a surge there is no other way.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": rollout.surge, "maxUnavailable": 0 if rollout.surge else 1},
        },
        "progressDeadlineSeconds": max(600, 2 * math.ceil(rollout.start_timeout)),
        "template": pod.template(
            service, lane, image, names.account_name(service.key), _config_name(service, lane, launch, orders), orders
        ),
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": made, "spec": spec}


def disruption(service: Service, lane: Lane, namespace: str, apis: Apis) -> Json:
    """A drained node takes one replica at a time. A lone one may go too: it would block the node for ever."""
    return {
        "apiVersion": apis.version("PodDisruptionBudget"),
        "kind": "PodDisruptionBudget",
        "metadata": metadata(names.lane_name(service.key, lane.name), namespace, service.key, lane),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": names.held(service.key, lane.name)}},
    }


def scaled(service: Service, lane: Lane) -> bool:
    """Whether somebody else than us sets the replicas of ``lane``. Those of a canary's new version are ours."""
    return service.spec.scale.owner != "leptonai" and lane.only is None


def hold(scale: Scale) -> int:
    """Seconds that what was needed is kept. Kubernetes takes an hour at most."""
    return min(3600, math.ceil(_HOLD if scale.auto is None or scale.auto.hold is None else scale.auto.hold))


def overtaken(service: Service, lane: Lane) -> str:
    """The lane of a version on probation that takes users' requests from ``lane``; "" while there is none."""
    return next(
        (x.name for x in lanes(service) if x.name == lane.name + NEW and x.only is not None and x.share > 0), ""
    )


def autoscaler(service: Service, lane: Lane, namespace: str, apis: Apis) -> Json:
    """Scales on CPU, between the bounds of the spec. SpecError without ``resources.cpu``: a share of what?"""
    scale = service.spec.scale
    if lane.variant.resources.cpu is None:
        raise SpecError(
            f"scale.owner kubernetes scales on CPU, and variant {lane.variant.name!r} says no resources.cpu",
            hint="set resources.cpu, or scale.owner: leptonai",
        )
    name = names.lane_name(service.key, lane.name)
    # What has no work now has it again when the canary is taken back, or promoted. Always said: what is left out is no
    # drift.
    policy = "Disabled" if overtaken(service, lane) else "Max"
    less = {"stabilizationWindowSeconds": hold(scale), "selectPolicy": policy}
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _CPU_TARGET}}
    return {
        "apiVersion": apis.version("HorizontalPodAutoscaler"),
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(name, namespace, service.key, lane),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": max(1, scale.min),  # zero is behind a feature gate
            "maxReplicas": max(1, scale.max),
            "metrics": [{"type": "Resource", "resource": cpu}],
            "behavior": {"scaleDown": less},
        },
    }
