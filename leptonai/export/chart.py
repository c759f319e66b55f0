"""From objects to a Helm chart: what differs from site to site becomes actions of a template, the rest stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from leptonai.plan.render import to_yaml

Json = dict[str, Any]

# Stand where an action of the template goes: what no object holds, and YAML writes as it is.
NAMESPACE = "zz-release-namespace-zz"
_MARK = re.compile(r"zz-leptonai-(\d+)-zz")
_ACTION = re.compile(r"\{\{|\}\}")
TEXT: Json = {"type": "string"}
TEXTS: Json = {"type": "object", "additionalProperties": TEXT}
IMAGE: Json = {"type": "string", "minLength": 1, "pattern": r"^[a-z0-9][A-Za-z0-9._:/@-]*$"}
RESOURCES: Json = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        name: {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
        for name in ("requests", "limits")
    },
}


class Marks:
    """What stands for actions while objects become text."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, ...]] = []
        self._inside: set[int] = set()

    def put(self, action: str) -> str:
        """A value that becomes ``{{ action }}``."""
        self._inside.add(len(self._lines))
        return self._mark(f"{{{{ {action} }}}}")

    def lines(self, *lines: str) -> str:
        """An item, or a field's name, whose whole line becomes these; each begins where that line began."""
        return self._mark(*lines)

    def spread(self, values: str, *lines: str) -> str:
        """As ``lines``, once for each ``$name`` and ``$value`` of ``values``."""
        return self.lines(f"{{{{- range $name, $value := {values} }}}}", *lines, "{{- end }}")

    def _mark(self, *lines: str) -> str:
        self._lines.append(lines)
        return f"zz-leptonai-{len(self._lines) - 1}-zz"

    def template(self, objects: Sequence[Json]) -> str:
        """The text of ``objects`` as a template: what looks like an action in it is none, each mark becomes its own."""
        text = _ACTION.sub(lambda m: '{{ "' + m[0] + '" }}', to_yaml(objects))
        return "".join(f"{line}\n" for old in text.splitlines() for line in self._made(old))

    def _made(self, line: str) -> list[str]:
        found = list(_MARK.finditer(line))
        if found and int(found[0][1]) not in self._inside:
            indent = " " * (len(line) - len(line.lstrip()))
            return [f"{indent}{made}" for made in self._lines[int(found[0][1])]]
        line = _MARK.sub(lambda m: self._lines[int(m[1])][0], line)
        if line.endswith(f": {NAMESPACE}"):
            return [line.replace(NAMESPACE, "{{ .Release.Namespace | quote }}")]
        return [line.replace(NAMESPACE, "{{ .Release.Namespace }}")]


def open_pod(pod: Json, marks: Marks, own: str) -> Json:
    """Put actions where a site may differ, over the values ``own``; returns those that give what stood there."""
    (container,) = pod["containers"]
    values: Json = {"image": container["image"], "env": {}, "resources": container.get("resources") or {}}
    container["image"] = marks.put(f"{own}.image | quote")
    container["imagePullPolicy"] = marks.put(".Values.imagePullPolicy | quote")
    container["resources"] = marks.put(f"toJson {own}.resources")
    # A list goes on where ours ends: the last entry of env is followed by those of the site.
    several = marks.spread(f"{own}.env", "- name: {{ $name | quote }}", "  value: {{ $value | quote }}")
    container.setdefault("env", []).append(several)
    for name in ("imagePullSecrets", "nodeSelector", "tolerations"):
        pod[name] = marks.put(f"toJson .Values.{name}")
    return values


def annotate(template: Json, marks: Marks) -> None:
    """The site's annotations of pods beside ours."""
    several = marks.spread(".Values.podAnnotations", "{{ $name | quote }}: {{ $value | quote }}")
    template["metadata"].setdefault("annotations", {})[several] = ""


SITE: Json = {
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [],
    "nodeSelector": {},
    "tolerations": [],
    "podAnnotations": {},
}
SITE_SCHEMA: Json = {
    "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "imagePullSecrets": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": TEXT},
        },
    },
    "nodeSelector": TEXTS,
    "tolerations": {"type": "array", "items": {"type": "object"}},
    "podAnnotations": TEXTS,
}


def schema(properties: Json, required: Sequence[str], **more: Any) -> Json:
    """Of values.yaml: a wrong type or an unknown name is refused by `helm install` itself."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {"global": {"type": "object"}} | properties | SITE_SCHEMA,
    } | more


def plain(value: Json) -> str:
    return to_yaml([value]).removeprefix("---\n")


def quoted(text: str) -> str:
    return json.dumps(text)
