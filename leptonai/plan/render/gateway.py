"""Traffic by the Gateway API: one HTTPRoute with the paths that our own gateway has. No part of it is experimental."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonai.errors import PlatformError, SpecError
from leptonai.plan.lanes import Lane
from leptonai.plan.render import names, weights
from leptonai.plan.render.apis import Apis
from leptonai.plan.render.objects import metadata
from leptonai.types import DEFAULT_WORKSPACE, Service, parse_key

Json = dict[str, Any]

PARTS = 10_000


def route(service: Service, lanes: Sequence[Lane], namespace: str, parent: str, apis: Apis) -> Json:
    """``parent``: the Gateway it joins, as ``namespace/name`` or ``name``. PlatformError for what v1beta1 lacks."""
    version = apis.version("HTTPRoute")
    old = version.endswith("beta1")
    where, _, name = parent.rpartition("/")
    if not name:
        raise SpecError("traffic gateway needs the name of a Gateway", hint="as in --gateway infra/public")
    workspace, own = parse_key(service.key)
    if old and workspace != DEFAULT_WORKSPACE:
        raise PlatformError(
            f"{version} HTTPRoute may not rewrite paths, which a service of workspace {workspace} needs",
            hint="install Gateway API 1.2 or later, or choose traffic istio or service",
        )
    answers: Json = {
        "backendRefs": [
            {"name": names.lane_name(service.key, lane.name), "port": 80, "weight": part}
            for lane, part in weights.parts(weights.weighed(lanes, service.key), PARTS)
        ]
    }
    if not old:
        answers["timeouts"] = {"request": _duration(service.spec.timeout)}
    copies = [_mirror(service, lane, old) for lane in lanes if lane.mirror > 0]
    prefix = "" if workspace == DEFAULT_WORKSPACE else f"/workspaces/{workspace}"
    rules = [_rule(f"{prefix}/v2/models/{own}", f"/v2/models/{own}" if prefix else None, copies, answers)]
    if not old:
        rules.append(_rule(f"{prefix}/services/{own}", "/", copies, answers))
    gateway = {"name": name} | ({"namespace": where} if where else {})
    return {
        "apiVersion": version,
        "kind": "HTTPRoute",
        "metadata": metadata(names.account_name(service.key), namespace, service.key),
        "spec": {"parentRefs": [gateway], "rules": rules},
    }


def _rule(path: str, becomes: str | None, copies: list[Json], answers: Json) -> Json:
    rule: Json = {"matches": [{"path": {"type": "PathPrefix", "value": path}}]}
    filters = list(copies)
    if becomes is not None:
        rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": becomes}}
        filters.append({"type": "URLRewrite", "urlRewrite": rewrite})
    if filters:
        rule["filters"] = filters
    return rule | answers


def _mirror(service: Service, lane: Lane, old: bool) -> Json:
    mirror: Json = {"backendRef": {"name": names.lane_name(service.key, lane.name), "port": 80}}
    if lane.mirror < 1:
        if old:
            raise PlatformError(
                f"v1beta1 HTTPRoute mirrors all requests or none, and {lane.name} is to get {100 * lane.mirror:g} %",
                hint="set the mirror to 1, install Gateway API 1.3 or later, or choose traffic istio",
            )
        share = max(1, round(lane.mirror * 1_000_000))
        mirror["fraction"] = {"numerator": share, "denominator": 1_000_000}
    return {"type": "RequestMirror", "requestMirror": mirror}


def _duration(value: float) -> str:
    """Gateway API's duration: whole seconds and milliseconds, each of five digits at most."""
    whole, rest = divmod(max(1, round(1000 * value)), 1000)
    return (f"{whole}s" if whole else "") + (f"{rest}ms" if rest else "")
