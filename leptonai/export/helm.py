"""A service as a Helm chart: the objects of `export kubernetes`, with what differs from site to site as values."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from leptonai import __version__
from leptonai.export.chart import (
    IMAGE,
    NAMESPACE,
    RESOURCES,
    SITE,
    TEXTS,
    Marks,
    annotate,
    open_pod,
    plain,
    quoted,
    schema,
)
from leptonai.export.site import Files
from leptonai.export.withhold import withheld
from leptonai.plan.lanes import lanes
from leptonai.plan.render import Ground
from leptonai.types import Service, parse_key

Json = dict[str, Any]

_BOUNDS = {
    "HorizontalPodAutoscaler": {"min": "minReplicas", "max": "maxReplicas"},
    "ScaledObject": {"min": "minReplicaCount", "max": "maxReplicaCount"},
}


class Chart(NamedTuple):
    files: Files
    lost: list[str]


def files(service: Service, ground: Ground) -> Chart:
    """The chart. With its own values it renders to what `render` gives, in the release's namespace."""
    made = withheld(service, ground._replace(namespace=NAMESPACE))
    found = {lane.name: lane for lane in lanes(service)}
    marks, values = Marks(), {}
    templates: dict[str, list[Json]] = {}
    for made_object in made.objects:
        if made_object["kind"] == "Deployment":
            lane = made_object["metadata"]["labels"]["leptonai.dev/lane"]
            values[lane] = _opened(made_object, lane, marks)
        elif made_object["kind"] in _BOUNDS:
            lane = made_object["metadata"]["labels"]["leptonai.dev/lane"]
            values[lane]["autoscaling"] = _bounds(made_object, lane, marks)
        templates.setdefault(made_object["kind"].lower(), []).append(made_object)
    assert values.keys() == found.keys()
    workspace, name = parse_key(service.key)
    chart = {
        "apiVersion": "v2",
        "name": name,
        "description": f"{workspace}/{name}, served by leptonai.",
        "type": "application",
        "version": f"0.1.{service.revision}",
        "appVersion": __version__,
        "kubeVersion": f">=1.{ground.apis.minor}.0-0",
    }
    out = {
        "Chart.yaml": plain(chart),
        "values.yaml": _HEAD + plain({"lanes": values} | SITE),
        "values.schema.json": json.dumps(_schema(values), indent=2) + "\n",
        "templates/NOTES.txt": _NOTES,
    }
    for kind, objects in templates.items():
        out[f"templates/{kind}.yaml"] = marks.template(objects)
    return Chart(out, made.lost)


def _own(lane: str) -> str:
    return f"(index .Values.lanes {quoted(lane)})"


def _opened(deployment: Json, lane: str, marks: Marks) -> Json:
    spec, own = deployment["spec"], _own(lane)
    values = open_pod(spec["template"]["spec"], marks, own)
    if "replicas" in spec:
        values["replicas"] = spec["replicas"]
        spec["replicas"] = marks.put(f"{own}.replicas")
    annotate(spec["template"], marks)
    return values


def _bounds(scaler: Json, lane: str, marks: Marks) -> Json:
    own, spec, bounds = f"{_own(lane)}.autoscaling", scaler["spec"], _BOUNDS[scaler["kind"]]
    values = {short: spec[field] for short, field in bounds.items()}
    spec |= {field: marks.put(f"{own}.{short}") for short, field in bounds.items()}
    for trigger in spec.get("triggers", ()):
        values["prometheus"] = trigger["metadata"]["serverAddress"]
        trigger["metadata"]["serverAddress"] = marks.put(f"{own}.prometheus | quote")
    return values


def _schema(values: dict[str, Json]) -> Json:
    lanes = {
        "type": "object",
        "additionalProperties": False,
        "required": sorted(values),
        "properties": {lane: _lane(own) for lane, own in values.items()},
    }
    return schema({"lanes": lanes}, ["lanes"])


def _lane(own: Json) -> Json:
    count = {"type": "integer", "minimum": 0, "maximum": 10_000}
    properties: Json = {"image": IMAGE, "env": TEXTS, "resources": RESOURCES}
    if "replicas" in own:
        properties["replicas"] = count
    if "autoscaling" in own:
        scaling: Json = {"min": count | {"minimum": 1}, "max": count | {"minimum": 1}}
        if "prometheus" in own["autoscaling"]:
            scaling["prometheus"] = {"type": "string", "pattern": "^https?://"}
        properties["autoscaling"] = {
            "type": "object",
            "additionalProperties": False,
            "required": sorted(scaling),
            "properties": scaling,
        }
    return {"type": "object", "additionalProperties": False, "required": ["image"], "properties": properties}


_HEAD = (
    "# What may differ from site to site. The rest follows from the service: export the chart again when it changes.\n"
)
_NOTES = """\
{{ .Chart.Name }} is served in {{ .Release.Namespace }}:

  kubectl -n {{ .Release.Namespace }} get pods -l app.kubernetes.io/name={{ .Chart.Name }}
"""
