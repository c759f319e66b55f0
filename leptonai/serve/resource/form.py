"""A Spec as a custom resource, and back. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from leptonai.errors import SpecError
from leptonai.plan.render.names import OWN
from leptonai.serve.resource.schema import API, KIND
from leptonai.serve.spec import parse
from leptonai.types import DEFAULT_WORKSPACE, DIGEST, GITOPS, Key, Noun, Spec, make_key, parse_key

Json = dict[str, Any]

FINALIZER = f"{OWN}/drain"  # a resource that is deleted is gone once its service is
ADOPT = f"{OWN}/adopt"  # annotation: "true" lets a resource take over a service that others made
KEEP = f"{OWN}/keep"  # annotation: "true" leaves the service to the platform when the resource is deleted


class Declared(NamedTuple):
    """One resource as the cluster holds it. ``spec`` None: it says none, and ``problem`` why."""

    namespace: str
    name: str
    uid: str
    generation: int
    made: str  # when, as Kubernetes writes times: they sort as they stand
    deleting: bool
    finalized: bool  # it does not go before we let it
    adopts: bool
    keeps: bool
    spec: Spec | None
    problem: str
    status: Json

    @property
    def owner(self) -> str:
        """What the names of all who proposed for this resource begin with."""
        return f"{GITOPS}{self.namespace}/{self.name}@"

    @property
    def by(self) -> str:
        return f"{self.owner}{self.generation}"

    @property
    def key(self) -> Key:
        """The service it was admitted as, else the one it asks for."""
        if self.status.get("service"):
            return str(self.status["service"])
        return self.spec.key if self.spec else make_key(self.name)

    @property
    def admitted(self) -> int:
        """The newest generation that the door admitted, as the status says; 0: none."""
        return int(self.status.get("admittedGeneration") or 0)


def read(obj: Json) -> Declared:
    """What ``obj``, a resource of any content, says. Never raises for what it says."""
    meta = obj["metadata"]
    name, said = str(meta["name"]), obj.get("spec")
    fields: Json = {"name": name} | said if isinstance(said, dict) else {"name": name}
    spec, problem = None, ""
    try:
        spec = parse(fields, f"{KIND}/{name}")
        for variant in spec.variants:
            if not DIGEST.fullmatch(variant.model):
                raise SpecError(
                    f"{KIND}/{name}: model: {variant.model!r} is no digest; a resource names sha256:<64 hex digits>",
                    hint="`leptonai export resource` writes it, the image of `leptonai build` holds the model",
                )
    except SpecError as e:
        spec, problem = None, f"{e.message} ({e.hint})" if e.hint else e.message
    return Declared(
        namespace=str(meta.get("namespace", "")),
        name=name,
        uid=str(meta.get("uid", "")),
        generation=int(meta.get("generation") or 0),
        made=str(meta.get("creationTimestamp", "")),
        deleting=bool(meta.get("deletionTimestamp")),
        finalized=FINALIZER in (meta.get("finalizers") or []),
        adopts=(meta.get("annotations") or {}).get(ADOPT) == "true",
        keeps=(meta.get("annotations") or {}).get(KEEP) == "true",
        spec=spec,
        problem=problem,
        status=obj.get("status") or {},
    )


def resource(spec: Spec, namespace: str = "") -> Json:
    """The resource that says ``spec``, which ``read`` reads as the same: what is not as by default, and no more."""
    fields = _said(spec)
    workspace, name = parse_key(spec.key)
    called = name if workspace == DEFAULT_WORKSPACE else f"{workspace}-{name}"
    if called == name:
        del fields["name"]
    if len(spec.variants) == 1 and "name" not in fields["variants"][0]:
        fields = fields.pop("variants")[0] | fields
    meta = {"name": called} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": API, "kind": KIND, "metadata": meta, "spec": fields}


def _said(noun: Noun) -> Json:
    out: Json = {}
    for field in msgspec.structs.fields(noun):
        value = getattr(noun, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value == default:
            continue
        if isinstance(value, Noun):
            out[field.name] = _said(value)
        elif isinstance(value, tuple):
            out[field.name] = [_said(v) if isinstance(v, Noun) else v for v in value]
        else:
            out[field.name] = value
    return out
