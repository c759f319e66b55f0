"""The gateway as pods of its own on a cluster: who it is, what it may see, its address, and how it leaves. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from leptonai.plan.render.apis import Apis
from leptonai.plan.render.names import MANAGER, PART
from leptonai.plan.render.pod import LEAVE, SECRET_KEY, house, housed, leaving, nobody, spread
from leptonai.plan.render.rbac import account

Json = dict[str, Any]

NAME = "leptonai-gateway"
CHOSEN: Json = {PART: "gateway"}  # its pods; by their name label one of a service that is named so would be one, too
PLACE = "/var/lib/leptonai"  # its home: what it needs to go on when its container is started again
HTTP, PAGES = 8320, 8321  # what users ask; what control and ops ask
PATIENCE = 100  # seconds that requests under way have once it has been told to end; those of ``handover``, with room
_START = 120  # seconds until one that does not come up is started again


class Gate(NamedTuple):
    """What differs from site to site."""

    namespace: str
    image: str
    replicas: int = 2
    cpu: str = "250m"  # requested; not limited: a burst must not wait for a share of the second
    memory: str = "512Mi"  # requested and limited


def gate(wanted: Gate, settings: str, marked: Json, control: str, orders: str, apis: Apis) -> list[Json]:
    """Everything, in the order to apply it. ``settings``: the ConfigMap with settings.yaml, and ``marked`` the
    annotations that tell its content. ``control``: name of control's Service. ``orders``: the Secret by which control
    is known.
    """
    labels = {"app.kubernetes.io/managed-by": MANAGER, "app.kubernetes.io/name": NAME} | CHOSEN
    meta: Json = {"name": NAME, "namespace": wanted.namespace, "labels": labels}
    asks = [{"podSelector": {"matchLabels": {PART: "control"}}}]
    return [
        *_rights(meta, control),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": meta,
            "spec": {
                "podSelector": {"matchLabels": CHOSEN},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {"ports": [{"port": HTTP, "protocol": "TCP"}]},
                    {"from": asks, "ports": [{"port": PAGES, "protocol": "TCP"}]},
                ],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {
                "type": "ClusterIP",
                "selector": CHOSEN,
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
        },
        {
            "apiVersion": apis.version("PodDisruptionBudget"),
            "kind": "PodDisruptionBudget",
            "metadata": meta,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": CHOSEN}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": wanted.replicas,
                "selector": {"matchLabels": CHOSEN},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {
                    "metadata": {"labels": labels, "annotations": marked},
                    "spec": _pod(wanted, settings, control, orders),
                },
            },
        },
    ]


def _rights(meta: Json, control: str) -> list[Json]:
    """It looks and changes nothing: pods, wishes, and where control answers."""
    return account(
        meta,
        [
            {"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["list", "watch"]},
            {"apiGroups": [""], "resources": ["services"], "verbs": ["get"], "resourceNames": [control]},
        ],
    )


def _pod(wanted: Gate, settings: str, control: str, orders: str) -> Json:
    alive = {"httpGet": {"path": "/v2/health/live", "port": "http"}}
    secret = {"name": orders, "key": SECRET_KEY}
    return {
        "serviceAccountName": NAME,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LEAVE + PATIENCE,
        "securityContext": nobody() | {"fsGroup": nobody()["runAsGroup"]},
        "topologySpreadConstraints": spread(CHOSEN),
        "containers": [
            {
                "name": "gateway",
                "image": wanted.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-P", "-m", "leptonai.daemon.gateway"],
                "args": ["--home", PLACE, "--control", control, "--pages", str(PAGES)],
                "env": [{"name": "LEPTONAI_ORDERS", "valueFrom": {"secretKeyRef": secret}}],
                "ports": [
                    {"name": "http", "containerPort": HTTP, "protocol": "TCP"},
                    {"name": "pages", "containerPort": PAGES, "protocol": "TCP"},
                ],
                "resources": {
                    "requests": {"cpu": wanted.cpu, "memory": wanted.memory},
                    "limits": {"memory": wanted.memory},
                },
                # Envoy itself: it answers once it has the routes and endpoints of the moment it was started.
                "startupProbe": alive | {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": _START},
                "readinessProbe": alive | {"periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
                "livenessProbe": alive | {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
                "lifecycle": leaving("python"),
                **housed(PLACE),
            }
        ],
        "volumes": [
            {"name": "home", "emptyDir": {"sizeLimit": "256Mi"}},
            *house(settings),
        ],
    }
