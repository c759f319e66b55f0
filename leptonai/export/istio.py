"""A service in a mesh of Istio: its Kubernetes objects with Istio's traffic, and what the mesh is to do for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from leptonai.export.site import Files
from leptonai.export.withhold import withheld
from leptonai.plan.render import Ground, names, to_yaml
from leptonai.plan.render.objects import metadata
from leptonai.settings import Gateway
from leptonai.types import Service

Json = dict[str, Any]


class Meshed(NamedTuple):
    files: Files
    lost: list[str]


def files(service: Service, ground: Ground, retried: bool = False) -> Meshed:
    """``service.yaml`` as `export kubernetes --traffic istio` writes it, and ``mesh.yaml``.

    ``retried``: a gateway of ours in front already repeats failed requests. Then the mesh does not: two that repeat
    multiply a service's trouble.
    """
    made = withheld(service, ground._replace(traffic="istio"))
    objects = [_once(o) for o in made.objects] if retried else made.objects
    return Meshed({"service.yaml": to_yaml(objects), "mesh.yaml": to_yaml(mesh(service, ground))}, made.lost)


def mesh(service: Service, ground: Ground) -> Sequence[Json]:
    """Callers need a certificate of the mesh and a namespace that may call; traces as our gateway keeps them."""
    namespace, key = ground.namespace, service.key
    name, old = names.account_name(key), ground.apis.version("VirtualService").endswith("beta1")
    chosen = {"matchLabels": names.selector(key)}
    about = metadata(name, namespace, key)
    version = "v1beta1" if old else "v1"
    callers = sorted({namespace, *ground.callers})
    share = Gateway().trace_share
    slow = round(1000 * Gateway().trace_slow)
    return [
        {
            "apiVersion": f"security.istio.io/{version}",
            "kind": "PeerAuthentication",
            "metadata": about,
            "spec": {"selector": chosen, "mtls": {"mode": "STRICT"}},
        },
        {
            "apiVersion": f"security.istio.io/{version}",
            "kind": "AuthorizationPolicy",
            "metadata": about,
            "spec": {
                "selector": chosen,
                "action": "ALLOW",
                "rules": [{"from": [{"source": {"namespaces": callers}}], "to": [{"operation": {"ports": ["8080"]}}]}],
            },
        },
        {
            "apiVersion": f"telemetry.istio.io/{'v1alpha1' if old else 'v1'}",
            "kind": "Telemetry",
            "metadata": about,
            "spec": {
                "selector": chosen,
                "tracing": [{"randomSamplingPercentage": 100 * share}],
                "accessLogging": [{"filter": {"expression": f"response.code >= 500 || response.duration > {slow}"}}],
            },
        },
    ]


def _once(made: Json) -> Json:
    if made["kind"] != "VirtualService":
        return made
    rules = [rule | {"retries": {"attempts": 0}} for rule in made["spec"]["http"]]
    return made | {"spec": made["spec"] | {"http": rules}}
