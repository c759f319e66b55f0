"""What the platform's account must be allowed to do, asked for before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from leptonai.plan.render import Apis, rbac
from leptonai.plan.render.control import ORDERS
from leptonai.plan.render.names import MANAGER, OWN
from leptonai.platforms.kubernetes import lease
from leptonai.platforms.kubernetes.cluster import Cluster, together
from leptonai.platforms.kubernetes.names import group, plural
from leptonai.platforms.kubernetes.refused import missing_right

Json = dict[str, Any]

SECRET = ORDERS
KINDS = {
    "ServiceAccount": "v1", "NetworkPolicy": "networking.k8s.io/v1", "ConfigMap": "v1", "Service": "v1",
    "Deployment": "apps/v1",
}  # fmt: skip
DISCOVERED = ("PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject", "HTTPRoute", "VirtualService")
OPTIONAL = ("ScaledObject",)  # a cluster may have it for others: whose wish needs it is refused without the rights
MAKE = ("get", "list", "watch", "create", "patch", "delete")


class Right(NamedTuple):
    verbs: tuple[str, ...]
    group: str  # "": the core's
    resource: str  # or resource/subresource
    name: str = ""  # of the one object that it is about; "": all of the namespace


# What a platform watches where it may, and does without where it may not: two verbs each.
LOOK = ("list", "watch")
EVENTS = Right(LOOK, "", "events")
NODES = Right(LOOK, "", "nodes")
EVERYBODY = Right(LOOK, "", "pods")  # of all namespaces
RESOURCES = (  # to follow custom resources and say how they stand; a platform without them serves all the same
    Right(("list", "watch", "patch"), OWN, "services"),
    Right(("patch",), OWN, "services/status"),
)


def kinds(apis: Apis) -> dict[str, str]:
    """Every kind that a platform follows on such a cluster, with its apiVersion."""
    found = KINDS | {kind: apis.versions[kind] for kind in DISCOVERED if kind in apis.versions}
    if "VirtualService" in found:
        found["DestinationRule"] = found["VirtualService"]
    return found


def needed(wanted: Mapping[str, str]) -> list[Right]:
    """Everything that a platform over ``wanted`` (kind -> apiVersion) does."""
    return [
        *(Right(MAKE, group(api), plural(kind)) for kind, api in wanted.items()),
        Right(("get", "list", "watch", "patch", "delete"), "", "pods"),
        Right(("get",), "", "pods/log"),
        Right(("get", "patch"), "", "secrets", SECRET),
        Right(("create",), "", "secrets"),  # what is to be made has no name to be granted by
        Right(("get", "update", "delete"), group(lease.API), "leases", lease.NAME),
        Right(("create",), group(lease.API), "leases"),
    ]


def role(apis: Apis, namespace: str, account: str, *, nodes: bool = False, room: bool = False) -> list[Json]:
    """An account with a Role that allows what a platform does in ``namespace``, and nothing else.

    ``nodes``: a ClusterRole besides, to watch nodes; ``room``: and what pods of all namespaces request of them.
    """
    rules = [_rule(right) for right in (*needed(kinds(apis)), EVENTS, *RESOURCES)]
    meta = {"name": account, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": MANAGER}}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return [*rbac.account(meta, rules), *(_of_the_cluster(account, namespace, subject, room) if nodes or room else ())]


def _rule(right: Right) -> Json:
    rule: Json = {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
    return rule | ({"resourceNames": [right.name]} if right.name else {})


def _of_the_cluster(account: str, namespace: str, subject: Json, room: bool) -> list[Json]:
    meta = {"name": f"{account}-{namespace}", "labels": {"app.kubernetes.io/managed-by": MANAGER}}
    rules = [_rule(right) for right in ((NODES, EVERYBODY) if room else (NODES,))]
    return rbac.grant("ClusterRole", meta, rules, subject)


async def usable(cluster: Cluster, apis: Apis) -> Apis:
    """``apis``, the optional kinds ``withheld`` that our account may not handle in full. Denied when it lacks other
    rights: the first, how many more, and all in ``missing``."""
    wanted = kinds(apis)
    asked = [(verb, right) for right in needed(wanted) for verb in right.verbs]
    granted = await together(cluster.allowed(v, r.group, r.resource, r.name) for v, r in asked)
    optional = {_named(group(api), plural(kind)): kind for kind, api in wanted.items() if kind in OPTIONAL}
    lacking: list[tuple[str, str]] = []
    withheld: dict[str, str] = {}
    for (verb, right), yes in zip(asked, granted, strict=True):
        name = _named(right.group, right.resource)
        if not yes and name in optional:
            withheld.setdefault(optional[name], f"{verb} {name}")
        elif not yes:
            lacking.append((verb, name))
    if not lacking:
        served = {kind: api for kind, api in apis.versions.items() if kind not in withheld}
        return apis._replace(versions=served, withheld=withheld)
    what = f"run services in namespace {cluster.namespace}"
    error = missing_right(*lacking[0], f"our account at {cluster.server}", what)
    error.detail["missing"] = [f"{verb} {resource}" for verb, resource in lacking]
    if len(lacking) > 1:
        error.message += f"; {len(lacking) - 1} other rights are missing too"
    error.hint = f"leptonai export rbac --namespace {cluster.namespace} writes a Role that has them all"
    raise error


def _named(group: str, resource: str) -> str:
    return f"{resource}.{group}" if group else resource
