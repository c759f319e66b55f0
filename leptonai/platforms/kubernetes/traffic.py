"""What leads requests of others in the cluster to a service. Pure."""

from __future__ import annotations

from leptonai.plan.render import Apis, Traffic
from leptonai.settings import Kubernetes


def led_by(wanted: Kubernetes, apis: Apis) -> Traffic:
    """What leads requests of others in the cluster to a service: as set, else the most that is served there."""
    if wanted.traffic != "auto":
        return wanted.traffic
    if wanted.gateway and "HTTPRoute" in apis.versions:
        return "gateway"
    return "istio" if "VirtualService" in apis.versions else "service"
