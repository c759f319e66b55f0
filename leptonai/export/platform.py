"""The platform itself as a Helm chart: the objects of `export control`, with what differs between sites as values."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec

from leptonai import __version__
from leptonai.export.chart import (
    IMAGE,
    NAMESPACE,
    RESOURCES,
    SITE,
    TEXT,
    TEXTS,
    Marks,
    annotate,
    open_pod,
    plain,
    schema,
)
from leptonai.export.site import Files
from leptonai.plan.render import Apis
from leptonai.plan.render.control import NAME, QUANTITY, STORE_SECRET, Seat, control
from leptonai.plan.render.names import DOTTED, OWN
from leptonai.platforms.kubernetes.rights import role
from leptonai.settings import Settings

Json = dict[str, Any]

_URL = "postgresql://localhost/leptonai"  # stands for the site's own while objects are made
_FILES = {"Role": "rbac", "RoleBinding": "rbac"}
_CREATED = {  # of the gateway's account as of control's: not where they are there already
    "ServiceAccount": ".Values.serviceAccount.create",
    "Role": ".Values.rbac.create",
    "RoleBinding": ".Values.rbac.create",
}
_GIVEN = 'include "leptonai.settings" .'


def files(seat: Seat, given: Json, account: str, apis: Apis) -> Files:
    """The chart. With its own values it renders to what `export control` writes, in the release's namespace.

    ``given``: settings, which become the default of the value ``settings``. SpecError when they cannot be.
    """
    control(seat, given, account, apis)  # refuses what cannot be
    seat = seat._replace(namespace=NAMESPACE)
    objects = copy.deepcopy(control(seat, {"store": {"url": _URL}}, account, apis))
    marks = Marks()
    values: Json = {"storage": {"size": seat.storage, "class": seat.storage_class}}
    templates: dict[str, str] = {}
    for made in copy.deepcopy(role(apis, NAMESPACE, account, nodes=True, room=True)):
        name = f"templates/{'serviceaccount' if made['kind'] == 'ServiceAccount' else 'rbac'}.yaml"
        templates[name] = templates.get(name, "") + _right(made, marks)
    own: Json = {}
    for made in objects:
        if made["kind"] == "ConfigMap" and "settings.yaml" in made["data"]:
            own = msgspec.yaml.decode(made["data"]["settings.yaml"])
            made["data"] = {marks.lines("settings.yaml: |", f"  {{{{- {_GIVEN} | nindent 4 }}}}"): ""}
        elif made["kind"] in ("StatefulSet", "Deployment"):
            which = "control" if made["kind"] == "StatefulSet" else made["metadata"]["name"].removeprefix("leptonai-")
            values[which] = _opened(made, which, account, marks)
        name = f"templates/{_FILES.get(made['kind'], made['kind'].lower())}.yaml"
        made_where = _CREATED.get(made["kind"])
        text = _where(made_where, made, marks) if made_where else marks.template([made])
        templates[name] = templates.get(name, "") + text
    del own["store"]
    url = (given.get("store") or {}).get("url", "")
    rest = copy.deepcopy(given)
    for section, fields in _fixed(own).items():  # what repeats them: the schema has no words for them
        if rest.get(section) is None:
            rest.pop(section, None)
        for name in fields & rest.get(section, {}).keys():
            del rest[section][name]
    values |= {
        "store": {"url": url, "secret": STORE_SECRET, "key": "password"},
        "serviceAccount": {"create": True, "name": account, "annotations": {}},
        "rbac": {"create": True, "nodes": False, "room": False},
        "settings": rest,
    }
    chart = {
        "apiVersion": "v2",
        "name": "leptonai",
        "description": "The leptonai platform: control, operations and the gateway.",
        "type": "application",
        "version": __version__,
        "appVersion": __version__,
        "kubeVersion": f">=1.{apis.minor}.0-0",
    }
    return {
        "Chart.yaml": plain(chart),
        "values.yaml": _HEAD + plain(values | SITE),
        "values.schema.json": json.dumps(_schema(values, own), indent=2) + "\n",
        "templates/NOTES.txt": _NOTES,
        "templates/_settings.tpl": _settings(own),
        **templates,
    }


def _right(made: Json, marks: Marks) -> str:
    """An object of the account: made only where the site wants it, named as the site says."""
    kind, name = made["kind"], marks.put(".Values.serviceAccount.name | quote")
    of_cluster = kind.startswith("Cluster")
    if of_cluster:
        name = marks.put('printf "%s-%s" .Values.serviceAccount.name .Release.Namespace | quote')
    made["metadata"]["name"] = name
    for subject in made.get("subjects", ()):
        subject["name"] = marks.put(".Values.serviceAccount.name | quote")
    if "roleRef" in made:
        made["roleRef"]["name"] = name
    if kind == "ServiceAccount":
        more = ("{{- with .Values.serviceAccount.annotations }}", "annotations: {{ toJson . }}", "{{- end }}")
        made["metadata"][marks.lines(*more)] = ""
        return _where(".Values.serviceAccount.create", made, marks)
    if of_cluster:
        if "rules" in made:
            first, room = made["rules"]
            room = marks.lines("{{- if .Values.rbac.room }}", f"- {json.dumps(room)}", "{{- end }}")
            made["rules"] = [first, room]
        return _where("and .Values.rbac.create (or .Values.rbac.nodes .Values.rbac.room)", made, marks)
    return _where(".Values.rbac.create", made, marks)


def _where(condition: str, made: Json, marks: Marks) -> str:
    return f"{{{{- if {condition} }}}}\n{marks.template([made])}{{{{- end }}}}\n"


def _opened(workload: Json, which: str, account: str, marks: Marks) -> Json:
    """Put actions where a site may differ; returns the values that give what stood there."""
    spec, own = workload["spec"], f".Values.{which}"
    template, pod = spec["template"], spec["template"]["spec"]
    (container,) = pod["containers"]
    secret = [e for e in container["env"] if e["name"] == "PGPASSWORD"]
    container["env"] = [e for e in container["env"] if e not in secret] + ([_password(marks)] if secret else [])
    values = open_pod(pod, marks, own) | {"replicas": spec["replicas"]}
    spec["replicas"] = marks.put(f"{own}.replicas")
    if pod["serviceAccountName"] == account:
        pod["serviceAccountName"] = marks.put(".Values.serviceAccount.name | quote")
    annotations = template["metadata"]["annotations"]
    annotations[f"{OWN}/settings"] = marks.put(f"{_GIVEN} | sha256sum | trunc 16 | quote")
    annotate(template, marks)
    for claim in spec.get("volumeClaimTemplates", ()):
        claim["spec"].pop("storageClassName", None)
        claim["spec"]["resources"]["requests"]["storage"] = marks.put(".Values.storage.size | quote")
        named = ("{{- with .Values.storage.class }}", "storageClassName: {{ . | quote }}", "{{- end }}")
        claim["spec"][marks.lines(*named)] = ""
    return values


def _password(marks: Marks) -> str:
    """Of a database, where there is one."""
    return marks.lines(
        "{{- if .Values.store.url }}",
        "- name: PGPASSWORD",
        "  valueFrom:",
        "    secretKeyRef:",
        "      name: {{ .Values.store.secret | quote }}",
        "      key: {{ .Values.store.key | quote }}",
        "      optional: true",
        "{{- end }}",
    )


def _settings(own: Json) -> str:
    """settings.yaml: what follows from being in a cluster, under what the site says."""
    fixed = Marks().template([own]).removeprefix("---\n")
    return f"""\
{{{{- define "leptonai.own" -}}}}
{fixed}{{{{- with .Values.store.url }}}}
store:
  url: {{{{ . | quote }}}}
{{{{- end }}}}
{{{{- end }}}}
{{{{- define "leptonai.settings" -}}}}
{{{{ mergeOverwrite (include "leptonai.own" . | fromYaml) (deepCopy .Values.settings) | toYaml }}}}
{{{{- end }}}}
"""


def _schema(values: Json, own: Json) -> Json:
    switch, count = {"type": "boolean"}, {"type": "integer", "minimum": 1, "maximum": 100}
    settings = msgspec.json.schema(Settings)
    _without(settings, own)
    workload = {"image": IMAGE, "env": TEXTS, "resources": RESOURCES, "replicas": count}
    properties: Json = {
        which: _object(workload | ({"replicas": count | {"maximum": 2}} if which == "control" else {}), "image")
        for which in ("control", "gateway")
        if which in values
    }
    properties |= {
        "storage": _object({"size": {"type": "string", "pattern": f"^{QUANTITY}$"}, "class": TEXT}, "size"),
        "store": _object(
            {
                # Anybody may read a ConfigMap: the password is in the Secret. As `store.secret` has it.
                "url": {"type": "string", "pattern": _NO_PASSWORD, "not": {"pattern": r"[?&]\w*(password|secret)\w*="}},
                "secret": TEXT,
                "key": TEXT,
            }
        ),
        "serviceAccount": _object(
            {"create": switch, "name": {"type": "string", "pattern": f"^{DOTTED}$"}, "annotations": TEXTS}, "name"
        ),
        "rbac": _object({"create": switch, "nodes": switch, "room": switch}),
        "settings": {"$ref": settings["$ref"]},
    }
    # A store in a file is of one pod; on a database the second takes over.
    alone = {"properties": {"store": {"properties": {"url": {"const": ""}}}}}
    one = {"properties": {"control": {"properties": {"replicas": {"maximum": 1}}}}}
    more = {"$defs": settings["$defs"], "allOf": [{"if": alone, "then": one}]}
    return schema(properties, sorted(properties), **more)


def _without(settings: Json, own: Json) -> None:
    """What follows from being in a cluster, or is a value of its own, cannot be said among the settings."""
    known = settings["$defs"]
    sections = known[settings["$ref"].rpartition("/")[2]]["properties"]
    for section, fields in _fixed(own).items():
        there = known[sections[section]["$ref"].rpartition("/")[2]]["properties"]
        for name in fields:
            del there[name]


def _fixed(own: Json) -> dict[str, set[str]]:
    """The settings, by section, that follow from being in a cluster or are a value of their own."""
    return {section: set(fields) - {"public"} for section, fields in own.items()} | {"store": {"url"}}


def _object(properties: Json, *required: str) -> Json:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


_NO_PASSWORD = r"^(postgres(ql)?://([^:@/?#]+@)?[^@?#]*([?][^@#]*)?)?$"  # noqa: S105 - a pattern
_HEAD = """\
# What may differ from site to site; values.schema.json has the types.
#
# control.image             as `leptonai build --control` writes it, in a registry of yours
# control.replicas          1; with store.url 2: the second stands by, leads callers to the first, and takes over
# control.env               more variables of its process
# gateway                   the gateway's pods, where they are their own
# storage                   of the home: store, models, logs, telemetry; class "": the cluster's own
# store.url                 postgresql://user@host/name, the password in the Secret store.secret; "": SQLite in the home
# serviceAccount, rbac      create false: they are there already (`leptonai export rbac` says which rights)
# rbac.nodes, rbac.room     a ClusterRole: nodes as evidence, and how many replicas fit
# settings                  settings.yaml (docs/settings.md) but for what follows from being in a cluster
"""
_NOTES = f"""\
The platform starts in {{{{ .Release.Namespace }}}}:

  kubectl -n {{{{ .Release.Namespace }}}} rollout status statefulset/{NAME}
  kubectl -n {{{{ .Release.Namespace }}}} exec {NAME}-0 -- python -m leptonai.cli token create ana --role admin

Its API answers inside of the cluster at http://{NAME}.{{{{ .Release.Namespace }}}}:8310.
Upgrades keep the home: it is on a volume, which `helm uninstall` leaves there.
"""
