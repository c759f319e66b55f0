"""Where objects live in the API: paths by apiVersion and kind, and short names to speak of them."""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]

_PLURAL = {"NetworkPolicy": "networkpolicies"}  # every other kind that we make adds an s


class Ref(NamedTuple):
    """One object of the namespace. Said as ``Deployment/digits-main-9b6d8d2e``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def ref(obj: Json) -> Ref:
    return Ref(str(obj["kind"]), str(obj["metadata"]["name"]))


def plural(kind: str) -> str:
    return _PLURAL.get(kind, f"{kind.lower()}s")


def group(version: str) -> str:
    """The API group of an apiVersion; "" is that of ``v1``."""
    return version.rpartition("/")[0]


def path(version: str, kind: str, namespace: str, name: str = "") -> str:
    """``namespace`` "": of the whole cluster."""
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{within}/{plural(kind)}" + (f"/{name}" if name else "")
