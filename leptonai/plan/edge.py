"""The edge in the gateway's files: the priority-1 endpoint of every cluster. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from leptonai.types import Hold, Service, Standby, Variant, VariantDials

Json = dict[str, Any]

METADATA = "leptonai.edge"
# Priority 1 gets nothing while one replica of P0 is healthy: at the default of 140 % it would get a share below 72 %.
POLICY = {"overprovisioning_factor": 1_000_000}


def wakes(service: Service, variant: str) -> bool:
    """Whether a request to the variant at zero replicas is to start one. Where a person set zero, ``auto`` does not.

    KEDA sees who waits; on one machine, where there is none, they wait in vain.
    """
    scale, dials = service.spec.scale, service.dials.variants.get(variant, VariantDials())
    keda = scale.owner == "keda" and scale.min == 0
    return keda or scale.idle is not None or (scale.auto is not None and dials.auto)


def standby(service: Service, variant: Variant) -> Standby:
    """What the edge is told of a variant. At zero replicas, nothing is held for one that no request wakes."""
    spec = service.spec
    wanted = service.dials.variants.get(variant.name, VariantDials(replicas=spec.scale.replicas)).replicas
    # The gateway ends a request after spec.timeout; a held one is answered a little before, with what is known.
    wait = min(spec.hold.max_wait, 0.9 * spec.timeout) if wanted or wakes(service, variant.name) else 0.0
    return Standby(
        service=service.key,
        variant=variant.name,
        digest=variant.digest,
        idempotent=bool(variant.idempotent),
        asleep=wanted == 0,
        hold=Hold(max_wait=wait, max_count=spec.hold.max_count, max_bytes=spec.hold.max_bytes),
        fallback=spec.fallback if service.dials.fallback else None,
    )


def endpoint(service: Service, variant: Variant, cluster: str, folder: str) -> Json:
    """The edge as the cluster's second choice, on a socket of its own: the socket says which service is asked for."""
    name = hashlib.sha256(cluster.encode()).hexdigest()[:12]
    return {
        "priority": 1,
        "lb_endpoints": [
            {
                "endpoint": {
                    "address": {"pipe": {"path": f"{folder}/{name}"}},
                    "hostname": "edge",
                    # One edge stands behind every cluster: a thousand probes would only ask it the same thing.
                    "health_check_config": {"disable_active_health_check": True},
                },
                "metadata": {"filter_metadata": {METADATA: msgspec.to_builtins(standby(service, variant))}},
            }
        ],
    }
