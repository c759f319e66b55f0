"""A lane scaled by KEDA: on the requests in it, as a Prometheus counts them. Pure."""

from __future__ import annotations

import math
import re
from typing import Any

from leptonai.errors import SpecError
from leptonai.plan.lanes import Lane
from leptonai.plan.render import names
from leptonai.plan.render.apis import Apis
from leptonai.plan.render.objects import hold, metadata, overtaken
from leptonai.types import Auto, Service, parse_key

Json = dict[str, Any]

HELD = "leptonai_held_requests"  # on the platform's page, of every variant: requests that wait for a replica
READY = "leptonai_ready_replicas"  # and of every lane
_LEAST_WINDOW = 60.0  # seconds: four scrapes at their usual pace; a rate needs two
_STEP = 5  # seconds between the moments that an average is made of
_POLL = 5  # seconds between KEDA's looks at a lane that may be at zero: users wait; KEDA's own 30 are for queues
_UTILISATION = 0.7  # of ``concurrency``: the default target of every policy of ours (docs/scaling.md)
_URL = re.compile(r"https?://[^\s/?#\"\\{}]+(/[^\s?#\"\\{}]*)?")


def autoscaler(service: Service, lane: Lane, namespace: str, apis: Apis, prometheus: str, front: bool) -> Json:
    """Keeps ``scale.auto.target`` requests at once for each replica, between the bounds of the spec.

    ``prometheus``: where KEDA asks for them; it scrapes as ``leptonai export prometheus`` says. ``front``: our gateway
    leads the requests, so that those which wait while there is no replica are counted, and zero is left again. Without
    it one replica stays. SpecError without a Prometheus, PlatformError where the cluster has no KEDA.
    """
    scale = service.spec.scale
    if not _URL.fullmatch(prometheus):
        what = f"{prometheus!r} is no address of one" if prometheus else "none is named"
        raise SpecError(
            f"scale.owner keda asks a Prometheus for the requests of {service.key}, and {what}",
            hint="setting kubernetes.prometheus, or export --prometheus: http://prometheus.monitoring:9090",
        )
    auto = scale.auto or Auto()
    least = scale.min if front else max(1, scale.min)
    name = names.lane_name(service.key, lane.name)
    asked = {
        "serverAddress": prometheus.rstrip("/"),
        "metricName": name,  # KEDA 2.8 and 2.9 want one, later ones make their own
        "query": demand(service, lane, front),
        "threshold": f"{_UTILISATION * auto.concurrency if auto.target is None else auto.target:g}",
        "ignoreNullValues": "false",  # no answer is no zero: nothing is done until there is one
    }
    spec: Json = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicaCount": least,
        "maxReplicaCount": max(1, scale.max),
        "advanced": {
            "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": hold(scale)}}}
        },
        "triggers": [{"type": "prometheus", "metadata": asked}],
    }
    if least == 0:
        spec |= {
            "pollingInterval": _POLL,
            "cooldownPeriod": hold(scale) if scale.idle is None else math.ceil(scale.idle),
        }
    return {
        "apiVersion": apis.version("ScaledObject"),
        "kind": "ScaledObject",
        "metadata": metadata(name, namespace, service.key, lane),
        "spec": spec,
    }


def demand(service: Service, lane: Lane, front: bool) -> str:
    """Requests at once, in PromQL: by Little's law, or those inside where that is more, so that what hangs counts too.

    Nothing, which KEDA acts on in no way, where the pods of ready replicas are not scraped. What a version on probation
    takes of a lane's requests counts for the lane, which gets them back at once, or for good under the new version.
    """
    workspace, name = parse_key(service.key)
    whose = f'workspace="{workspace}",service="{name}"'
    window = math.ceil(max(_LEAST_WINDOW, (service.spec.scale.auto or Auto()).window))
    new = overtaken(service, lane)
    pods = f'{whose},lane=~"{lane.name}|{new}"' if new else f'{whose},lane="{lane.name}"'
    answered = f"sum(rate(leptonai_request_seconds_sum{{{pods}}}[{window}s]))"
    inside = f"avg_over_time(sum(leptonai_in_flight{{{pods}}})[{window}s:{_STEP}s])"
    busy = f"{answered} > {inside} or {inside}"
    if not front:
        return busy
    held = f'sum({HELD}{{{whose},variant="{lane.variant.name}"}})'
    ready = f"sum({READY}{{{pods}}}) > 0"
    return f"({busy}) + ({held} or vector(0)) or ({held} unless {ready})"
