"""All objects of one service, in the order in which they are applied."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from leptonai.errors import PlatformError, SpecError
from leptonai.plan.lanes import Lane, lanes
from leptonai.plan.render import control, gate, gateway, istio, keda, names, objects, pod, weights
from leptonai.plan.render.apis import Apis
from leptonai.plan.render.lost import lost
from leptonai.plan.render.wish import wish
from leptonai.settings import Kubernetes
from leptonai.types import Key, Service

Json = dict[str, Any]
Traffic = Literal["service", "gateway", "istio"]

# Of a registry that nobody else can fill: "localhost/" is never looked up in a public one.
IMAGE = Kubernetes().image
_TAKEN = {gate.NAME: "the gateway's pods of the platform", control.NAME: "the platform itself"}
_GATEWAY = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Ground(NamedTuple):
    """The cluster, and how a service is to stand on it."""

    apis: Apis
    traffic: Traffic = "service"
    image: str = IMAGE  # fields: workspace, service, variant, digest (of the variant), model (its artifact's digits)
    namespace: str = "default"
    gateway: str = ""  # of traffic "gateway": the Gateway that the route joins, namespace/name
    callers: tuple[str, ...] = ()  # other namespaces that may call
    own_gateway: bool = False  # ours leads requests too: a plain Service need not share them
    prometheus: str = ""  # that KEDA asks; of services with scale.owner keda
    wishes: bool = False  # gateways in pods of their own route by what the namespace says is wished
    orders: str = ""  # the Secret by which a platform gives orders to replicas; "": there is none, nobody may


class Rendering(NamedTuple):
    """``objects`` in the order to apply them; ``lost``: a sentence for each part of the wish that they do not hold."""

    objects: list[Json]
    lost: list[str]


def nameable(key: Key, namespace: str) -> None:
    """SpecError when clients would call the service by a name that is not a service's there: the platform's own, or
    the cluster's."""
    name = names.front_name(key)
    taken = _TAKEN | ({"kubernetes": "the cluster's API server"} if namespace == "default" else {})
    if name in taken:
        raise SpecError(
            f"name: {key!r} would be called by Service/{name}, which is the address of {taken[name]}",
            hint="give the service another name",
        )


def render(service: Service, ground: Ground) -> Rendering:
    """What ``service`` is on ``ground``. Equal arguments give equal objects; a lane keeps its names and selectors.

    SpecError for what the wish must say otherwise, PlatformError for what the cluster or its traffic cannot do.
    """
    for name in (ground.namespace, *ground.callers):
        names.legal(name, "namespace")
    if ground.gateway and not _GATEWAY.fullmatch(ground.gateway):
        raise SpecError(f"{ground.gateway!r} is no name of a Gateway", hint="as in infra/public")
    namespace, apis, key = ground.namespace, ground.apis, service.key
    nameable(key, namespace)
    found = lanes(service)
    made = [objects.account(service, namespace), objects.policy(service, namespace, ground.callers, apis)]
    made += [wish(service, namespace)] if ground.wishes else []
    made += [objects.config(service, lane, namespace, ground.orders) for lane in found]
    made += [objects.service_of(service, names.lane_name(key, lane.name), lane, namespace) for lane in found]
    if ground.traffic != "gateway":
        made.append(_front(service, found, ground))
    for lane in found:
        image = pod.image(ground.image, key, lane.variant)
        made.append(objects.deployment(service, lane, image, namespace, ground.orders))
    made += [objects.disruption(service, lane, namespace, apis) for lane in found]
    made += [_autoscaler(service, lane, ground) for lane in found if objects.scaled(service, lane)]
    if ground.traffic == "gateway":
        made.append(gateway.route(service, found, namespace, ground.gateway, apis))
    elif ground.traffic == "istio":
        made += [istio.destination_rule(service, lane, namespace, apis) for lane in found]
        made.append(istio.virtual_service(service, found, namespace, apis))
    old = ground.traffic == "gateway" and apis.version("HTTPRoute").endswith("beta1")
    return Rendering(made, lost(service, found, ground.traffic, old))


def _autoscaler(service: Service, lane: Lane, ground: Ground) -> Json:
    if service.spec.scale.owner == "keda":
        return keda.autoscaler(service, lane, ground.namespace, ground.apis, ground.prometheus, ground.own_gateway)
    return objects.autoscaler(service, lane, ground.namespace, ground.apis)


def _front(service: Service, found: list[Lane], ground: Ground) -> Json:
    """What clients call. In a mesh its selector is for those outside of it, whom no weights reach."""
    weighed = weights.weighed(found, service.key)
    if ground.traffic == "service" and not ground.own_gateway:
        copied = [lane.name for lane in found if lane.mirror > 0]
        if len(weighed) > 1 or copied:
            what = f"copies requests to {copied[0]}" if copied else f"shares requests among {len(weighed)} variants"
            raise PlatformError(
                f"{service.key} {what}, which a plain Service cannot do",
                hint="choose traffic gateway or istio",
            )
    largest = max(weight for _, weight in weighed)
    main = next(lane for lane, weight in weighed if weight == largest)
    return objects.service_of(service, names.front_name(service.key), main, ground.namespace, front=True)
