"""A service as a Helm chart: the objects of `export kubernetes`, with what differs from site to site as values."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from leptonai import __version__
from leptonai.export.site import Files
from leptonai.plan.lanes import lanes
from leptonai.plan.render import Ground, render, to_yaml
from leptonai.types import Service, parse_key

Json = dict[str, Any]

# Stand where an action of the template goes: what no object holds, and YAML writes as it is.
_NAMESPACE = "zz-release-namespace-zz"
_MARK = re.compile(r"zz-leptonai-(\d+)-zz")
_BOUNDS = {
    "HorizontalPodAutoscaler": {"min": "minReplicas", "max": "maxReplicas"},
    "ScaledObject": {"min": "minReplicaCount", "max": "maxReplicaCount"},
}
_ACTION = re.compile(r"\{\{|\}\}")


class Chart(NamedTuple):
    files: Files
    lost: list[str]


class _Marks:
    """What stands for actions while objects become text."""

    def __init__(self) -> None:
        self.actions: list[str] = []

    def put(self, action: str) -> str:
        self.actions.append(action)
        return f"zz-leptonai-{len(self.actions) - 1}-zz"


def files(service: Service, ground: Ground) -> Chart:
    """The chart. With its own values it renders to what `render` gives, in the release's namespace."""
    made = render(service, ground._replace(namespace=_NAMESPACE))
    found = {lane.name: lane for lane in lanes(service)}
    marks, values = _Marks(), {}
    for made_object in made.objects:
        if made_object["kind"] == "Deployment":
            lane = made_object["metadata"]["labels"]["leptonai.dev/lane"]
            values[lane] = _opened(made_object, lane, marks)
        elif made_object["kind"] in _BOUNDS:
            lane, spec = made_object["metadata"]["labels"]["leptonai.dev/lane"], made_object["spec"]
            own, bounds = f"(index .Values.lanes {_q(lane)}).autoscaling", _BOUNDS[made_object["kind"]]
            values[lane]["autoscaling"] = {short: spec[field] for short, field in bounds.items()}
            spec |= {field: marks.put(f"{own}.{short}") for short, field in bounds.items()}
            for trigger in spec.get("triggers", ()):
                values[lane]["autoscaling"]["prometheus"] = trigger["metadata"]["serverAddress"]
                trigger["metadata"]["serverAddress"] = marks.put(f"{own}.prometheus | quote")
    assert values.keys() == found.keys()
    templates: dict[str, list[Json]] = {}
    for made_object in made.objects:
        templates.setdefault(made_object["kind"].lower(), []).append(made_object)
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
    defaults: Json = {
        "lanes": values,
        "imagePullPolicy": "IfNotPresent",
        "imagePullSecrets": [],
        "nodeSelector": {},
        "tolerations": [],
        "podAnnotations": {},
    }
    out = {
        "Chart.yaml": _plain(chart),
        "values.yaml": _HEAD + _plain(defaults),
        "values.schema.json": json.dumps(schema(values), indent=2) + "\n",
        "templates/NOTES.txt": _NOTES,
    }
    for kind, objects in templates.items():
        out[f"templates/{kind}.yaml"] = _template(to_yaml(objects), marks)
    return Chart(out, made.lost)


def _opened(deployment: Json, lane: str, marks: _Marks) -> Json:
    """Put actions where a site may differ; returns the values that give what stood there."""
    spec, own = deployment["spec"], f"(index .Values.lanes {_q(lane)})"
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    values: Json = {"image": container["image"], "env": {}, "resources": container.get("resources") or {}}
    container["image"] = marks.put(f"{own}.image | quote")
    container["imagePullPolicy"] = marks.put(".Values.imagePullPolicy | quote")
    container["resources"] = marks.put(f"toJson {own}.resources")
    # A list goes on where ours ends: the last entry of env is followed by those of the site.
    container["env"].append(marks.put(f"#env {own}"))
    if "replicas" in spec:
        values["replicas"] = spec["replicas"]
        spec["replicas"] = marks.put(f"{own}.replicas")
    annotations = spec["template"]["metadata"]["annotations"]
    annotations[marks.put("#annotations")] = ""
    for name in ("imagePullSecrets", "nodeSelector", "tolerations"):
        pod[name] = marks.put(f"toJson .Values.{name}")
    return values


def schema(values: dict[str, Json]) -> Json:
    """Of values.yaml: a wrong type or an unknown name is refused by `helm install` itself."""
    count = {"type": "integer", "minimum": 0, "maximum": 10_000}
    text = {"type": "string"}
    texts = {"type": "object", "additionalProperties": text}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "required": ["lanes"],
        "properties": {
            "global": {"type": "object"},
            "lanes": {
                "type": "object",
                "additionalProperties": False,
                "required": sorted(values),
                "properties": {lane: _lane(own, count, texts) for lane, own in values.items()},
            },
            "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
            "imagePullSecrets": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": {"name": text},
                },
            },
            "nodeSelector": texts,
            "tolerations": {"type": "array", "items": {"type": "object"}},
            "podAnnotations": texts,
        },
    }


def _lane(own: Json, count: Json, texts: Json) -> Json:
    properties: Json = {
        "image": {"type": "string", "minLength": 1, "pattern": r"^[a-z0-9][A-Za-z0-9._:/@-]*$"},
        "env": texts,
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
                for name in ("requests", "limits")
            },
        },
    }
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


def _template(text: str, marks: _Marks) -> str:
    """The text of objects as a template: what looks like an action in it is none, and each mark becomes its own."""
    text = _ACTION.sub(lambda m: '{{ "' + m[0] + '" }}', text)
    lines = []
    for line in text.splitlines():
        match = _MARK.search(line)
        action = marks.actions[int(match[1])] if match else ""
        indent = " " * (len(line) - len(line.lstrip()))
        if action.startswith("#env"):
            own = action.removeprefix("#env ")
            lines.append(f"{indent}{{{{- range $name, $value := {own}.env }}}}")
            lines.append(f"{indent}- name: {{{{ $name }}}}")
            lines.append(f"{indent}  value: {{{{ $value | quote }}}}")
            lines.append(f"{indent}{{{{- end }}}}")
        elif action == "#annotations":
            lines.append(f"{indent}{{{{- range $name, $value := .Values.podAnnotations }}}}")
            lines.append(f"{indent}{{{{ $name | quote }}}}: {{{{ $value | quote }}}}")
            lines.append(f"{indent}{{{{- end }}}}")
        elif match:
            lines.append(line.replace(match[0], f"{{{{ {action} }}}}"))
        elif line.endswith(f": {_NAMESPACE}"):
            lines.append(line.replace(_NAMESPACE, "{{ .Release.Namespace | quote }}"))
        else:
            lines.append(line.replace(_NAMESPACE, "{{ .Release.Namespace }}"))
    return "\n".join(lines) + "\n"


def _plain(value: Json) -> str:
    return to_yaml([value]).removeprefix("---\n")


def _q(text: str) -> str:
    return json.dumps(text)


_HEAD = (
    "# What may differ from site to site. The rest follows from the service: export the chart again when it changes.\n"
)
_NOTES = """\
{{ .Chart.Name }} is served in {{ .Release.Namespace }}:

  kubectl -n {{ .Release.Namespace }} get pods -l app.kubernetes.io/name={{ .Chart.Name }}
"""
