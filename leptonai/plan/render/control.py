"""The platform itself on a cluster: one pod with a volume for its home, its settings, its address, its rights, and the
gateway's pods. Pure.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

import msgspec

from leptonai import __version__
from leptonai.errors import SpecError
from leptonai.plan.render import gate
from leptonai.plan.render.apis import Apis
from leptonai.plan.render.gate import Gate
from leptonai.plan.render.names import DOTTED, MANAGER, OWN, PART, legal
from leptonai.plan.render.pod import LEAVE, UID, house, housed, leaving, named, nobody
from leptonai.settings import Settings
from leptonai.store.secret import may_hold_password

Json = dict[str, Any]

NAME = "leptonai-control"
IMAGE = f"localhost/{NAME}:{__version__}"
PLACE = "/var/lib/leptonai"  # the home, a volume
API, GATEWAY = 8310, gate.HTTP
STORE_SECRET = "leptonai-store"  # noqa: S105 - the Secret's name; its key ``password`` is for a store in PostgreSQL
ORDERS = "leptonai-orders"  # the Secret by which pods take orders, one in a namespace, made by the platform
_END = 30  # seconds for control and ops to let go, with room
QUANTITY = r"[0-9]+(\.[0-9]+)?([KMGTPE]i?|k|m)?"  # Kubernetes': its serialisation of quantities, without exponents
_START = 300  # seconds until a platform that does not come up is started again


class Seat(NamedTuple):
    """What differs from site to site."""

    namespace: str = "default"
    image: str = IMAGE
    storage: str = "10Gi"
    storage_class: str = ""  # "": the cluster's own
    cpu: str = "500m"  # requested; not limited: a burst of work must not starve the gateway
    memory: str = "2Gi"  # requested and limited
    gateways: int = 2  # pods of the gateway; 0: it is in the platform's pod, and away while that is
    gateway_cpu: str = Gate("", "").cpu
    gateway_memory: str = Gate("", "").memory


def control(seat: Seat, given: Json, account: str, apis: Apis) -> list[Json]:
    """Settings, address and pods, in the order to apply them. ``account`` has the rights of ``export rbac``.

    ``given``: settings besides those that follow from being in a cluster. SpecError when they cannot be.
    """
    text = _settings(seat, given)
    named_so, chosen = {"app.kubernetes.io/name": NAME}, {PART: "control"}
    labels = {"app.kubernetes.io/managed-by": MANAGER} | named_so | chosen
    meta: Json = {"name": NAME, "namespace": seat.namespace, "labels": labels}
    ports = [{"name": "api", "port": API, "targetPort": "api", "protocol": "TCP"}]
    if not seat.gateways:
        ports.insert(0, {"name": "gateway", "port": 80, "targetPort": "gateway", "protocol": "TCP"})
    claim: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": seat.storage}}}
    if seat.storage_class:
        claim["storageClassName"] = seat.storage_class
    # Settings are read at the start: others are another pod.
    marked = {f"{OWN}/settings": hashlib.sha256(text.encode()).hexdigest()[:16]}
    template: Json = {
        "metadata": {"labels": labels, "annotations": marked},
        "spec": _pod(seat, account, bool((given.get("store") or {}).get("url"))),
    }
    found = Gate(seat.namespace, seat.image, seat.gateways, seat.gateway_cpu, seat.gateway_memory)
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"settings.yaml": text}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"type": "ClusterIP", "selector": chosen, "ports": ports},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": meta,
            "spec": {
                "replicas": 1,  # a store has one writer; a second pod would wait for it
                "serviceName": NAME,
                # It cannot be changed, and counts only pods that it made: none of a service that is named so.
                "selector": {"matchLabels": named_so},
                "template": template,
                "volumeClaimTemplates": [{"metadata": {"name": "home"}, "spec": claim}],
            },
        },
        *(gate.gate(found, NAME, marked, NAME, ORDERS, apis) if seat.gateways else ()),
    ]


def _settings(seat: Seat, given: Json) -> str:
    own: Json = {
        "api": {"host": "0.0.0.0", "port": API},
        "gateway": {"host": "0.0.0.0", "port": GATEWAY},
        "kubernetes": {"enabled": True, "namespace": seat.namespace, "gateway_pods": bool(seat.gateways)},
    }
    for section, fields in own.items():
        there = given.get(section) or {}
        if not isinstance(there, dict):
            raise SpecError(f"settings: {section} is {there!r}, and must be a mapping", hint="see docs/settings.md")
        for name, value in fields.items():
            if there.get(name, value) != value:
                raise SpecError(
                    f"settings: {section}.{name} is {there[name]!r}, and in this pod it must be {value!r}",
                    hint="leave it out; --namespace chooses the namespace, --gateways the gateway's pods",
                )
    own["gateway"]["public"] = (given.get("gateway") or {}).get("public") or (
        f"http://{gate.NAME if seat.gateways else NAME}.{seat.namespace}"
    )
    merged = given | {section: (given.get(section) or {}) | fields for section, fields in own.items()}
    try:
        settings = msgspec.convert(merged, Settings)
    except msgspec.ValidationError as e:
        raise SpecError(f"settings: {e}", hint="see docs/settings.md for every setting") from e
    if may_hold_password(settings.store.url):  # not shown: anybody may read a ConfigMap
        raise SpecError(
            "settings: store.url holds a password",
            hint=f"kubectl create secret generic {STORE_SECRET} --from-literal=password=...",
        )
    return msgspec.yaml.encode(merged).decode()


def _address() -> Json:
    return {"name": "LEPTONAI_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def _password() -> Json:
    chosen = {"name": STORE_SECRET, "key": "password", "optional": True}
    return {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": chosen}}


def _probes(seat: Seat) -> Json:
    """With the gateway in the pod, of that: it serves users while control is started again or the API server is away.
    Else whether the API answers; control's parent starts again what ends."""
    if seat.gateways:
        answers = {"httpGet": {"path": "/api/v1/healthz", "port": "api"}}
        return {"readinessProbe": answers | {"periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2}}
    alive = {"httpGet": {"path": "/v2/health/live", "port": "gateway"}}
    return {
        "startupProbe": alive | {"periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": _START // 2},
        "readinessProbe": alive | {"periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": alive | {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
    }


def _pod(seat: Seat, account: str, database: bool) -> Json:
    ports = [{"name": "api", "containerPort": API, "protocol": "TCP"}]
    if not seat.gateways:
        ports.insert(0, {"name": "gateway", "containerPort": GATEWAY, "protocol": "TCP"})
    return {
        "serviceAccountName": account,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LEAVE + _END,
        "securityContext": nobody() | {"fsGroup": UID},
        "containers": [
            {
                "name": "control",
                "image": seat.image,
                "imagePullPolicy": "IfNotPresent",
                "args": ["up", "--foreground"],
                # Where other copies find this one; read by PostgreSQL's library, for there are logins with a password.
                "env": [_address(), *([_password()] if database else [])],
                "ports": ports,
                "resources": {"requests": {"cpu": seat.cpu, "memory": seat.memory}, "limits": {"memory": seat.memory}},
                **_probes(seat),
                "lifecycle": leaving("python"),
                **housed(PLACE),
            }
        ],
        "volumes": house(NAME),
    }


def checked(seat: Seat, account: str) -> Seat:
    """``seat`` as it is. SpecError for what Kubernetes would refuse."""
    legal(seat.namespace, "namespace")
    legal(account, "ServiceAccount", DOTTED)
    named(seat.image, f"registry.example/{NAME}:v1")
    if seat.storage_class:
        legal(seat.storage_class, "storage class", DOTTED)
    if seat.gateways < 0:
        raise SpecError(f"gateways is {seat.gateways}", hint="2 or more outlive a node; 0: it is in the platform's pod")
    for field, value in seat._asdict().items():
        if field.endswith(("storage", "cpu", "memory")) and not re.fullmatch(QUANTITY, value):
            raise SpecError(f"{field} {value!r} is no quantity", hint="as in 500m, 2 or 10Gi")
    return seat
