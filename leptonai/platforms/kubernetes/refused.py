"""What a cluster's refusal means, as an error of ours that names the verb, the object and the way out. Pure."""

from __future__ import annotations

import re
from typing import Any

from leptonai.errors import CapacityError, Conflict, Denied, LeptonError, NotFound, PlatformError, SpecError

Json = dict[str, Any]

_FORBIDDEN = re.compile(r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"')
_USER = re.compile(r'User "([^"]+)"')
_MANAGER = re.compile(r'conflict with "([^"]+)"')


def refusal(status: int, body: Json, what: str, server: str) -> LeptonError:
    """``what``: what was tried, as "apply Deployment/digits-main-9b6d8d2e". ``body``: a ``Status`` of Kubernetes."""
    message = str(body.get("message") or f"HTTP {status}")
    reason = str(body.get("reason") or "")
    if status == 401:
        return Denied(
            f"the cluster at {server} does not accept our credentials: {message}",
            hint="has the token expired? log in again, or write a new one into the kubeconfig",
            code="unauthorized",
        )
    if status == 403 and "exceeded quota" in message:
        return CapacityError(
            f"cannot {what}: {message}", hint="raise the ResourceQuota, or wish for less", code="quota"
        )
    if status == 403:
        found, user = _FORBIDDEN.search(message), _USER.search(message)
        if found is None:
            return Denied(f"cannot {what}: {message}", hint="an admission rule of the cluster says so", code="refused")
        verb, resource, group = found.groups()
        who = user[1] if user else "our account"
        named = f"{resource}.{group}" if group else resource
        return missing_right(verb, named, who, what)
    if status == 404:
        return NotFound(f"cannot {what}: {message}", hint="does the namespace exist? is the API served?")
    if status == 409:
        managers = tuple(sorted(set(_MANAGER.findall(message))))
        return Conflict(
            f"cannot {what}: {message}", hint="somebody else sets these fields", code="conflict", managers=managers
        )
    if status == 422 or reason == "Invalid" or status == 400:
        immutable = "immutable" in message
        hint = "it has to be made anew" if immutable else "the cluster says which field; is its version as old as told?"
        return SpecError(f"cannot {what}: {message}", hint=hint, code="immutable" if immutable else "invalid")
    return PlatformError(
        f"cannot {what}: the API server at {server} answers {status}: {message}",
        hint="it may be overloaded or coming up: it is tried again",
        code="api_server",
        retry=True,
    )


def missing_right(verb: str, resource: str, who: str, what: str) -> Denied:
    return Denied(
        f"{who} may not {verb} {resource}, which is needed to {what}",
        hint=f"grant it: a Role with verb {verb} on {resource}, bound to that account; docs/kubernetes.md lists all",
        code="rbac",
        verb=verb,
        resource=resource,
    )


def unreachable(server: str, error: Exception) -> PlatformError:
    return PlatformError(
        f"no answer of the cluster at {server}: {error or type(error).__name__}",
        hint="what runs there keeps serving; is the API server up, and the kubeconfig the right one?",
        code="unreachable",
        retry=True,
    )
