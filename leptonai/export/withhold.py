"""Exported objects without their secrets: a variable of ``env`` that looks like one is taken from a Secret there."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.export.chart import NAMESPACE
from leptonai.ops.logs.privacy import secret
from leptonai.plan.lanes import lanes
from leptonai.plan.render import Ground, Rendering, render
from leptonai.plan.render.names import lane_name
from leptonai.types import Service, canonical

Json = dict[str, Any]

LAUNCH = "launch.json"


def withheld(service: Service, ground: Ground) -> Rendering:
    """As ``render`` gives it, but that no value of ``env`` that looks like a secret stands in it: the container reads
    it from the Secret ``<Deployment>-env`` of its namespace, whose keys are the names of the variables. ``lost`` tells
    how each such Secret is made. Errors as of ``render``."""
    made = render(service, ground)
    hidden = {
        lane_name(service.key, lane.name): [n for n, v in lane.variant.env.items() if secret(n, v)]
        for lane in lanes(service)
    }
    named = {n for names in hidden.values() for n in names}
    if not named:
        return made
    for made_object in made.objects:
        if made_object["kind"] == "Deployment":
            name = made_object["metadata"]["name"]
            for container in made_object["spec"]["template"]["spec"]["containers"]:
                container["env"] = [_referred(e, f"{name}-env", hidden[name]) for e in container["env"]]
        elif LAUNCH in made_object.get("data", ()):
            launch = msgspec.json.decode(made_object["data"][LAUNCH])
            launch["variant"]["env"] = {k: v for k, v in launch["variant"]["env"].items() if not secret(k, v)}
            made_object["data"] |= {LAUNCH: msgspec.json.format(canonical(launch), indent=2).decode() + "\n"}
    place = f"kubectl create secret generic{_in(ground.namespace)}"
    told = [
        f"{', '.join(names)}: the values stay here, make them there: "
        f"{place} {name}-env {' '.join(f'--from-literal={n}=...' for n in names)}"
        for name, names in hidden.items()
        if names
    ]
    return made._replace(lost=[*made.lost, *told])


def _referred(entry: Json, holder: str, hidden: list[str]) -> Json:
    if entry["name"] not in hidden or "value" not in entry:
        return entry
    return {"name": entry["name"], "valueFrom": {"secretKeyRef": {"name": holder, "key": entry["name"]}}}


def _in(namespace: str) -> str:
    """Of a chart the namespace is the release's, which has no name yet."""
    return "" if namespace in ("default", NAMESPACE) else f" -n {namespace}"
