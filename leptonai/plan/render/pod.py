"""What a pod of one lane is: one container that runs ``python -m leptonai.runtime``, without a needless right."""

from __future__ import annotations

import math
import re
from typing import Any

from leptonai.errors import SpecError
from leptonai.plan.lanes import Lane
from leptonai.plan.render.names import MANAGER, OWN, held
from leptonai.settings import Gateway, Local
from leptonai.types import DIGEST, Key, Launch, Resources, Service, Variant, parse_key

Json = dict[str, Any]

PORT = 8080
RUN_DIR = "/run/leptonai"
MODELS = "/models"  # in the image: MODELS/<64 hex digits of the artifact> holds the model's files
SECRET_KEY = "secret"  # noqa: S105 - in the Secret that Ground.orders names
UID = 61184  # the first of the users that replicas run as on one machine too
LEAVE = 5  # seconds a pod that ends keeps answering while every proxy learns that it does
_FIELD = re.compile(r"\{([^{}]*)\}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*[a-z0-9](:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?")


def launch(service: Service, variant: Variant) -> Launch:
    """The replica's orders; ``replica`` is left to the pod, which knows its name. SpecError: no digest."""
    if not DIGEST.fullmatch(variant.model):
        raise SpecError(
            f"the model of variant {variant.name!r} is {variant.model!r}, no artifact",
            hint="an artifact is named sha256:<64 hex digits>; `leptonai export` reads it from the model's files",
        )
    spec = service.spec
    return Launch(
        replica="",
        service=service.key,
        variant=variant,
        revision=service.revision_of(variant),
        artifact=f"{MODELS}/{variant.model.removeprefix('sha256:')}",
        socket=f"0.0.0.0:{PORT}",
        run_dir=RUN_DIR,
        timeout=spec.timeout,
        latency=spec.slo.latency,
        drain=spec.drain,
    )


def image(template: str, key: Key, variant: Variant) -> str:
    """``template`` with its fields filled in. SpecError for an unknown field, or when no image can be named so."""
    workspace, name = parse_key(key)
    fields = {
        "workspace": workspace,
        "service": name,
        "variant": variant.name,
        "digest": variant.digest,
        "model": variant.model.removeprefix("sha256:")[:16],
    }
    for field in _FIELD.findall(template):
        if field not in fields:
            known = ", ".join(f"{{{f}}}" for f in fields)
            raise SpecError(f"image {template!r}: no field {{{field}}}", hint=f"there are {known}")
    return named(_FIELD.sub(lambda m: fields[m[1]], template), "registry.example/team/{service}:{digest}")


def named(image: str, like: str) -> str:
    """``image`` as it is. SpecError when no image can be named so."""
    if not _IMAGE.fullmatch(image):
        raise SpecError(f"image {image!r} is no name of an image", hint=f"as in {like}")
    return image


def grace(drain: float) -> int:
    """Seconds between the first word to a pod and its end: leaving, draining, and what ``local.kill_after`` allows."""
    return LEAVE + math.ceil(drain) + math.ceil(Local().kill_after)


def nobody() -> Json:
    """The user of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def confined() -> Json:
    """What a container may: nothing that it does not need."""
    return {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def leaving(python: str) -> Json:
    """It keeps answering for LEAVE seconds; ``python`` sleeps, for an image may hold no shell."""
    return {"preStop": {"exec": {"command": [python, "-c", f"import time; time.sleep({LEAVE})"]}}}


def spread(labels: Json) -> list[Json]:
    """Over zones and nodes, as far as there is room."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def housed(place: str) -> Json:
    """Of a container of the platform itself: its home at ``place``, and no right that it does not need."""
    return {
        "securityContext": confined(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "home", "mountPath": place},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
            {
                "name": "settings",
                "mountPath": f"{place}/settings.yaml",
                "subPath": "settings.yaml",
                "readOnly": True,
            },
        ],
    }


def house(settings: str) -> list[Json]:
    """The volumes of ``housed`` but the home. ``settings``: a ConfigMap."""
    return [{"name": "tmp", "emptyDir": {}}, {"name": "settings", "configMap": {"name": settings}}]


def template(service: Service, lane: Lane, image: str, account: str, config: str, orders: str = "") -> Json:
    """The pod template of a lane's Deployment."""
    labels = held(service.key, lane.name)
    return {
        "metadata": {
            "labels": labels
            | {
                "app.kubernetes.io/managed-by": MANAGER,
                "app.kubernetes.io/name": parse_key(service.key)[1],
                f"{OWN}/digest": lane.variant.digest,
            },
            # Another epoch is another template: the Deployment replaces every pod, as `leptonai restart` means it.
            "annotations": {f"{OWN}/epoch": str(lane.dials.epoch), f"{OWN}/variant": lane.variant.name},
        },
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,  # every service of the namespace as environment: a replica needs none
            "terminationGracePeriodSeconds": grace(service.spec.drain),
            "securityContext": nobody(),
            "topologySpreadConstraints": spread(labels),
            "containers": [_container(service, lane.variant, image, orders)],
            "volumes": [
                {"name": "run", "emptyDir": {"sizeLimit": "256Mi"}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "launch", "configMap": {"name": config}},
            ],
        },
    }


def _container(service: Service, variant: Variant, image: str, orders: str) -> Json:
    python = _literal(variant.python or "python")
    probe: Json = {"httpGet": {"path": "/-/ready", "port": "http"}}
    return {
        "name": "replica",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [python, "-P", "-m", "leptonai.runtime", RUN_DIR],
        "workingDir": RUN_DIR,
        "env": _environment(variant, orders),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": _resources(variant.resources),
        # As rollout.start_timeout says on one machine: a load that outlasts it is ended and tried again.
        "startupProbe": probe
        | {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": math.ceil(service.spec.rollout.start_timeout)},
        "readinessProbe": probe | {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2},
        # Nobody else repairs what hangs in a cluster yet. Overload does not make it unready: see docs/runtime.md.
        "livenessProbe": probe | {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "lifecycle": leaving(python),
        "securityContext": confined(),
        # A model that does not load says why in its last lines.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
            {"name": "launch", "mountPath": f"{RUN_DIR}/launch.json", "subPath": "launch.json", "readOnly": True},
        ],
    }


def _environment(variant: Variant, orders: str) -> list[Json]:
    """As on one machine: nothing of ours but what the runtime reads, then what the variant declares."""
    base = {"HOME": RUN_DIR, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    if variant.resources.cpu is not None:
        base["OMP_NUM_THREADS"] = str(max(1, round(variant.resources.cpu)))
    base |= {k: v for k, v in variant.env.items() if not k.startswith("LEPTONAI_")}
    base["LEPTONAI_MAX_BODY"] = str(Gateway().max_body)
    secret = {"name": orders, "key": SECRET_KEY}
    return [
        {"name": "LEPTONAI_REPLICA", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        *([{"name": "LEPTONAI_ORDERS", "valueFrom": {"secretKeyRef": secret}}] if orders else []),
        *({"name": name, "value": _literal(value)} for name, value in base.items()),
    ]


def _literal(text: str) -> str:
    """As the container shall see it: Kubernetes replaces ``$(NAME)`` and reads ``$$`` as ``$``."""
    return text.replace("$", "$$")


def _resources(resources: Resources) -> Json:
    """Requested and limited alike: what is counted against the room is what may be used."""
    counted: Json = {}
    if resources.cpu is not None:
        counted["cpu"] = f"{max(1, round(1000 * resources.cpu))}m"
    if resources.memory is not None:
        counted["memory"] = str(resources.memory)
    if resources.gpu:
        counted["nvidia.com/gpu"] = str(resources.gpu)
    return {"requests": counted, "limits": dict(counted)} if counted else {}
