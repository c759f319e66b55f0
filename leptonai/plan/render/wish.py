"""The wish for a service as an object of the cluster: what gateways in pods of their own route by. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.errors import SpecError
from leptonai.plan.render import names
from leptonai.types import Service, canonical

Json = dict[str, Any]

LABEL = f"{names.OWN}/wish"
FIELD = "service.json"
_BYTES = 1_000_000  # Kubernetes allows a ConfigMap 1 MiB, with everything around


def wish(service: Service, namespace: str) -> Json:
    """A ConfigMap named as the service's account. SpecError for a wish that is too large for one."""
    text = canonical(service).decode()
    if len(text.encode()) > _BYTES:
        raise SpecError(
            f"service {service.key}: its wish has over {_BYTES} bytes, the limit of a ConfigMap",
            hint="put what is large in options or env into the model's files",
        )
    labels = names.owner(service.key) | {LABEL: "yes"}
    meta: Json = {"name": names.account_name(service.key), "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {FIELD: text}}


def read(obj: Json) -> Service:
    """The service of such a ConfigMap. SpecError when there is none that this version can read, or under another name
    than ``wish`` gives it."""
    name = obj["metadata"].get("name")
    try:
        found = msgspec.json.decode((obj.get("data") or {})[FIELD], type=Service)
    except (KeyError, msgspec.DecodeError, msgspec.ValidationError) as e:
        raise SpecError(f"ConfigMap/{name} holds no wish: {e}", hint="is the gateway's image older?") from e
    if name != names.account_name(found.key):
        raise SpecError(
            f"ConfigMap/{name} is not where the wish for {found.key} stands: that is {names.account_name(found.key)}",
            hint="a copy of it? Delete it, or take its labels off",
        )
    return found
