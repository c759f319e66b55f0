"""The CustomResourceDefinition ``services.leptonai.dev``, made from the types of a Spec and the bounds of its numbers.

It accepts what ``serve.spec.parse`` accepts, but for two things: a model is an artifact's digest, and ``variants`` are
a list. It refuses most of what the parser refuses; what a structural schema has no words for (one field over another)
the door refuses, and the status says so.
"""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec

from leptonai.admit.bounds import BOUNDS, HASH_ON, MAX_GOLDEN, MAX_QUESTION, MAX_STEPS, MAX_VARIANTS
from leptonai.plan.render.names import MANAGER, OWN
from leptonai.serve import units
from leptonai.serve.spec import SUGAR, UNITS
from leptonai.types import DIGEST, NAME, Noun, Spec, Variant

Json = dict[str, Any]

GROUP, VERSION, KIND, PLURAL = OWN, "v1alpha1", "Service", "services"
API = f"{GROUP}/{VERSION}"
OPEN = "x-kubernetes-preserve-unknown-fields"
_PATTERNS = {  # of texts, by the name of their field
    "name": NAME.pattern, "workspace": NAME.pattern, "model": DIGEST.pattern, "hash_on": HASH_ON.pattern,
    "python": "/.*",
}  # fmt: skip
_ITEMS = {"variants": (1, MAX_VARIANTS), "steps": (1, MAX_STEPS), "golden": (1, MAX_GOLDEN)}
_NEVER: dict[str, Json] = {  # what no value of that kind meets; values of other kinds do not look at it
    "number": {"minimum": 1, "maximum": 0},
    "string": {"minLength": 1, "maxLength": 0},
    "array": {"minItems": 1, "maxItems": 0},
    "object": {"minProperties": 1, "maxProperties": 0},
}


def definition() -> Json:
    """The whole object, the same bytes each time; for every version of Kubernetes from 1.20 on."""
    columns = [
        ("Ready", "string", ".status.ready", "Replicas that are ready, of those wished for.", 0),
        ("Revision", "integer", ".status.revision", "The revision in force.", 0),
        ("State", "string", ".status.state", "How it stands, in one word.", 0),
        ("Reason", "string", ".status.reason", "Why it stands so, where there is something to say.", 0),
        ("URL", "string", ".status.url", "Where clients reach it.", 0),
        ("Age", "date", ".metadata.creationTimestamp", "Since it was made.", 0),
        ("Message", "string", ".status.message", "The reason in words.", 1),
    ]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema()},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, "description": said, "priority": priority}
            for name, kind, path, said, priority in columns
        ],
    }
    names = {
        "plural": PLURAL, "singular": KIND.lower(), "kind": KIND, "listKind": f"{KIND}List",
        "shortNames": ["lsvc"], "categories": ["leptonai"],
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "labels": {"app.kubernetes.io/managed-by": MANAGER}},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def schema() -> Json:
    """Of one resource."""
    return {
        "type": "object",
        "description": "A service of leptonai: a model, how it is served, and what users are promised.",
        "required": ["spec"],
        "properties": {"spec": _spec(), "status": _status()},
    }


def _spec() -> Json:
    """As a text: what describes one model stands at the top, or in ``variants``."""
    made = _fields(Spec, "")
    alone = _fields(Variant, "")["properties"]
    made["properties"] |= {name: alone[name] for name in SUGAR}
    made["properties"]["replicas"] = _number(int, "scale.replicas")
    made["properties"]["name"]["description"] = "Of the service; the resource's own name when left out."
    made["description"] = "What docs/services.md explains line by line."
    del made["required"]
    beside = [{"required": [name]} for name in SUGAR]
    made["anyOf"] = [
        {"required": ["model"], "not": {"required": ["variants"]}},
        {"required": ["variants"], "not": {"anyOf": beside}},
    ]
    return made


def _fields(noun: type[Noun], path: str) -> Json:
    hints = typing.get_type_hints(noun)
    made: Json = {"type": "object", "description": " ".join((noun.__doc__ or "").split())}
    made["properties"] = {name: _of(hints[name], f"{path}.{name}" if path else name) for name in noun.__struct_fields__}
    if required := [f.name for f in msgspec.structs.fields(noun) if f.required]:
        made["required"] = required
    return made


def _of(hint: Any, path: str) -> Json:
    """The schema of one field, as ``serve.spec`` reads it."""
    origin, args, leaf = typing.get_origin(hint), typing.get_args(hint), path.rpartition(".")[2]
    if origin in (typing.Union, types.UnionType):
        kinds = [_of(kind, path) for kind in args if kind is not types.NoneType]
        made = kinds[0] if len(kinds) == 1 else _either(*kinds)
        return made | {"nullable": True} if types.NoneType in args else made
    if origin is typing.Literal:
        return {"type": "string", "enum": list(args)}
    if origin is tuple:
        return _several(args, path)
    if origin is dict:
        values = {OPEN: True} if args[1] is Any else {"additionalProperties": _either(_text("env"), {"type": "number"})}
        return {"type": "object"} | values
    if hint is Any:
        return {OPEN: True, "nullable": True}
    if hint is bool:
        return {"type": "boolean"}
    if hint in (int, float):
        return _number(hint, path)
    if isinstance(hint, type) and issubclass(hint, Noun):
        return _fields(hint, path)
    assert hint is str, f"{path}: no schema is known for {hint}"
    return _text(leaf)


def _text(leaf: str) -> Json:
    made: Json = {"type": "string"}
    if leaf in _PATTERNS:
        made["pattern"] = f"^({_PATTERNS[leaf]})$"
    if leaf == "question":
        made["maxLength"] = MAX_QUESTION
    return made


def _number(hint: Any, path: str) -> Json:
    """Within its bounds, which in a list are the door's; with a unit, where it may have one."""
    made: Json = {"type": "integer", "format": "int64"} if hint is int else {"type": "number"}
    if bound := BOUNDS.get(path):
        made |= {"minimum": hint(bound.low), "maximum": hint(bound.high)}
        made |= {"exclusiveMaximum": True} if bound.open_high else {}
    reads = UNITS.get(path.rpartition(".")[2])
    if reads is None:
        return made
    return _either(made, {"type": "string", "pattern": units.SIZE if reads is units.size else units.DURATION})


def _several(args: tuple[Any, ...], path: str) -> Json:
    name = path.rpartition(".")[2]
    if args[0] is Variant:
        item = _fields(Variant, "")
        item["properties"]["name"]["default"] = Variant(model="").name
        made: Json = {"items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    else:
        made = {"items": _of(args[0], path)}
    low, high = _ITEMS.get(name, (0, None)) if args[-1] is Ellipsis else (len(args), len(args))
    count = {} if high is None else {"minItems": low, "maxItems": high}
    return {"type": "array"} | count | made


def _either(*kinds: Json) -> Json:
    """A value of one of several kinds. A structural schema has no word for that, so the kind is left open; each that is
    meant keeps its own limits, each other one gets limits that nothing meets. Fields are left to the door: with them
    the node would be a map to server-side apply, whatever stands there."""
    made: Json = {OPEN: True, "not": {"enum": [True, False]}}
    never = dict(_NEVER)
    for kind in kinds:
        limits = {k: v for k, v in kind.items() if k not in ("type", "format", "enum", "properties", "description")}
        if "enum" in kind:  # an enum would be asked of every kind
            limits["pattern"] = f"^({'|'.join(kind['enum'])})$"
        if kind["type"] == "integer":
            limits["multipleOf"] = 1
        never.pop("number" if kind["type"] == "integer" else kind["type"])
        made |= limits
    for limits in never.values():
        made |= limits
    return made


def _status() -> Json:
    """What the platform says of it."""
    text: Json = {"type": "string"}
    count: Json = {"type": "integer", "format": "int64"}
    condition = {
        "type": "object",
        "required": ["type", "status", "reason"],
        "properties": {
            "type": text,
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": text,
            "message": text,
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": count,
        },
    }
    said: dict[str, tuple[Json, str]] = {
        "observedGeneration": (count, "The generation that all of this is about."),
        "admittedGeneration": (count, "The newest generation that the door admitted."),
        "service": (text, "The service that it declares, once admitted: NAME, or WORKSPACE/NAME."),
        "revision": (count, "The revision in force."),
        "ready": (text, "Ready of wished, as in 2/2."),
        "replicas": (count, "Replicas wished for: dials of the platform, which begin at scale.replicas."),
        "readyReplicas": (count, "Replicas that are ready."),
        "url": (text, "Where clients reach it."),
        "state": (text, "How it stands, in one word."),
        "reason": (text, "Why it stands so."),
        "message": (text, "The reason in words."),
        "incident": (
            {
                "type": "object",
                "nullable": True,
                "properties": {"id": count, "title": text, "cause": text, "since": text},
            },
            "What is wrong with it now, and its first cause.",
        ),
        "conditions": (
            {
                "type": "array",
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
            "Synced: it runs as this resource says. Ready: it serves.",
        ),
    }
    properties = {name: kind | {"description": words} for name, (kind, words) in said.items()}
    return {"type": "object", "description": "What the platform says of it.", "properties": properties}
