"""Accounts and what they may. Pure."""

from __future__ import annotations

from typing import Any, Literal

Json = dict[str, Any]

GROUP = "rbac.authorization.k8s.io"


def account(meta: Json, rules: list[Json]) -> list[Json]:
    """A ServiceAccount, and a Role bound to it, all named as ``meta`` says."""
    subject = {"kind": "ServiceAccount", "name": meta["name"], "namespace": meta["namespace"]}
    return [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}, *grant("Role", meta, rules, subject)]


def grant(kind: Literal["Role", "ClusterRole"], meta: Json, rules: list[Json], subject: Json) -> list[Json]:
    """A role, and what binds it to ``subject``."""
    return [
        {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": meta["name"]},
            "subjects": [subject],
        },
    ]
