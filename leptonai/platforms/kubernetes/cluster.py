"""The API of one cluster: objects as plain dicts, errors as ours. lightkube reads the configuration and logs in."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.request import getproxies

import orjson

from leptonai.errors import NotFound, PlatformError
from leptonai.platforms.kubernetes.names import path, ref
from leptonai.platforms.kubernetes.refused import refusal, unreachable

Json = dict[str, Any]
T = TypeVar("T")

MANAGER = "leptonai"  # the field manager: whose every field is that we apply
TIMEOUT = 10.0  # seconds for one call; a healthy API server answers within 1 s (its own objective)
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
# A watch may be silent for minutes: a peer that is gone is noticed after 30 s, as client-go's pings have it.
_ALIVE = [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
] + [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Expired(Exception):
    """A watch asked for changes since a version that the cluster has forgotten: list again. Stays in this room."""


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All answers, in order; or the first failure, once none of the others is on its way any more."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class Of(NamedTuple):
    """Which objects are meant: those with ``labels`` and ``fields``, selectors as kubectl takes them; "": all."""

    version: str
    kind: str
    labels: str = ""
    fields: str = ""
    everywhere: bool = False  # of all namespaces, or of none

    def selected(self) -> dict[str, str]:
        return {k: v for k, v in (("labelSelector", self.labels), ("fieldSelector", self.fields)) if v}


class Cluster:
    """``calls`` counts every request made, for whoever must know what a change costs.

    ``fence`` is asked before each call that changes something: for how many seconds that is allowed, or it raises.
    """

    def __init__(self, context: str = "", namespace: str = "", timeout: float = TIMEOUT) -> None:
        """From ``$KUBECONFIG``, else the pod's own account, else ``~/.kube/config``. ``context``, ``namespace``: "" is
        the current one. ``timeout``: seconds of one call.

        PlatformError ``no_cluster`` when nothing names a cluster or lightkube is not installed.
        """
        try:
            import httpx2
            from lightkube import KubeConfig
            from lightkube.config import client_adapter
            from lightkube.config.models import User
            from lightkube.core.exceptions import ConfigError
        except ImportError as e:
            raise PlatformError(
                "the Kubernetes platform needs lightkube, which is not installed",
                hint="pip install 'leptonai-platform[kubernetes]'",
                code="no_cluster",
            ) from e
        try:
            inside = not os.environ.get("KUBECONFIG") and _TOKEN.exists()
            file = os.environ.get("KUBECONFIG") or "~/.kube/config"
            config = (KubeConfig.from_service_account() if inside else KubeConfig.from_file(file)).get(context or None)
            if config is None:
                raise ConfigError("no context is chosen")
            user = config.user or User()
            verify = client_adapter.verify_cluster(config.cluster, user, config.abs_file)
            auth = client_adapter.user_auth(user)
        except (ConfigError, KeyError, OSError, ValueError, ssl.SSLError) as e:
            raise PlatformError(
                f"no cluster is configured: {e}",
                hint="set KUBECONFIG, or run in a pod; `kubectl config get-contexts` lists contexts",
                code="no_cluster",
            ) from e
        self._transport = httpx2
        self.server = str(config.cluster.server)
        self.namespace = namespace or config.namespace
        limits = self._transport.Limits(max_connections=None, max_keepalive_connections=32)
        direct = None  # a proxy of the environment is asked as it is
        if not getproxies().get(self.server.partition(":")[0]):
            direct = httpx2.AsyncHTTPTransport(verify=verify, limits=limits, socket_options=_ALIVE)
        self._http = httpx2.AsyncClient(
            base_url=self.server, verify=verify, auth=auth, timeout=timeout, limits=limits, transport=direct
        )
        self._timeout = timeout
        self.fence: Callable[[], float] = lambda: timeout
        self.calls = 0

    async def close(self) -> None:
        await self._http.aclose()

    async def call(
        self, method: str, where: str, what: str, *, params: dict[str, Any] | None = None, body: Any = None,
        kind: str = "application/json",
    ) -> Json:  # fmt: skip
        """The decoded answer. ``what`` is said in errors: Denied, NotFound, Conflict, SpecError, PlatformError."""
        asks = method == "GET" or where == _REVIEWS
        allowed = self._timeout if asks else min(self._timeout, self.fence())
        self.calls += 1
        content = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"content-type": kind}
        try:
            async with asyncio.timeout(allowed):
                answer = await self._http.request(method, where, params=params, content=content, headers=headers)
        except (self._transport.HTTPError, TimeoutError) as e:
            raise unreachable(self.server, e) from e
        if answer.status_code >= 300:
            raise refusal(answer.status_code, _decoded(answer.content), what, self.server)
        return _decoded(answer.content)

    async def version(self) -> tuple[str, list[str]]:
        """``("1.20", ["policy/v1beta1", "apps/v1", ...])``: what is served."""
        about = await self.call("GET", "/version", "ask for the version")
        listed = await self.call("GET", "/apis", "list what the cluster serves")
        groups = [v["groupVersion"] for g in listed.get("groups", []) for v in g.get("versions", [])]
        minor = "".join(c for c in str(about.get("minor", "")) if c.isdigit())
        return f"{about.get('major', '1')}.{minor}", ["v1", *groups]

    async def allowed(self, verb: str, group: str, resource: str, name: str = "", *, everywhere: bool = False) -> bool:
        """Whether our account may do so in the namespace, or in all. ``resource``: "pods/log"; ``name``: only that one
        of them."""
        kind, _, sub = resource.partition("/")
        asked = {
            "namespace": "" if everywhere else self.namespace,
            "verb": verb,
            "group": group,
            "resource": kind,
            "subresource": sub,
        }
        asked |= {"name": name} if name else {}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = await self.call("POST", _REVIEWS, "ask for our rights", body=review)
        return bool(answer.get("status", {}).get("allowed"))

    async def get(self, version: str, kind: str, name: str) -> Json | None:
        try:
            return await self.call("GET", path(version, kind, self.namespace, name), f"read {kind}/{name}")
        except NotFound:
            return None

    async def apply(self, obj: Json, *, force: bool = False, manager: str = MANAGER) -> Json:
        """Server-side apply as ``manager``; the object as it is then. Conflict when others set its fields."""
        where = path(obj["apiVersion"], obj["kind"], self.namespace, obj["metadata"]["name"])
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self.call("PATCH", where, f"apply {ref(obj)}", params=params, body=obj, kind=_APPLY)

    async def create(self, obj: Json) -> Json:
        """The object as it is then. Conflict when there is one of that name."""
        where = path(obj["apiVersion"], obj["kind"], self.namespace)
        return await self.call("POST", where, f"create {ref(obj)}", body=obj)

    async def replace(self, obj: Json) -> Json:
        """The object as it is then. Conflict unless it was as of ``metadata.resourceVersion``, NotFound when gone."""
        where = path(obj["apiVersion"], obj["kind"], self.namespace, obj["metadata"]["name"])
        return await self.call("PUT", where, f"replace {ref(obj)}", body=obj)

    async def merge(self, version: str, kind: str, name: str, patch: Json, sub: str = "") -> Json:
        """The object as it is then. ``sub``: its "status" alone is changed."""
        where = path(version, kind, self.namespace, f"{name}/{sub}" if sub else name)
        return await self.call("PATCH", where, f"change {kind}/{name}", body=patch, kind=_MERGE)

    async def delete(
        self, version: str, kind: str, name: str, *, grace: int | None = None, orphan: bool = False, uid: str = ""
    ) -> bool:
        """Whether it was there. ``uid``: only that very object. ``orphan``: what it owns stays."""
        options: Json = {"propagationPolicy": "Orphan" if orphan else "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self.call("DELETE", path(version, kind, self.namespace, name), f"delete {kind}/{name}", body=options)
        except NotFound:
            return False
        return True

    async def list(self, of: Of) -> tuple[list[Json], str]:
        """All these objects, and the version to watch from."""
        version, kind = of.version, of.kind
        page = await self.call("GET", self._where(of), f"list {kind}s", params=of.selected())
        made = [{"apiVersion": version, "kind": kind} | item for item in page.get("items") or []]
        return made, str(page["metadata"].get("resourceVersion", ""))

    async def watch(self, of: Of, since: str, seconds: int) -> AsyncIterator[tuple[str, Json]]:
        """``("ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK", object)`` for ``seconds``. Expired: list again."""
        version, kind = of.version, of.kind
        params = of.selected() | {
            "watch": "true", "resourceVersion": since, "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds),
        }  # fmt: skip
        async for line in self.lines(self._where(of), f"watch {kind}s", params, seconds + TIMEOUT):
            event = orjson.loads(line)
            if event["type"] == "ERROR":
                if event["object"].get("code") == 410:
                    raise Expired
                raise refusal(int(event["object"].get("code") or 500), event["object"], f"watch {kind}s", self.server)
            yield event["type"], {"apiVersion": version, "kind": kind} | event["object"]

    def _where(self, of: Of) -> str:
        return path(of.version, of.kind, "" if of.everywhere else self.namespace)

    async def lines(self, where: str, what: str, params: dict[str, Any], silence: float) -> AsyncIterator[str]:
        """The lines of a long answer as they come; PlatformError after ``silence`` seconds without one."""
        self.calls += 1
        timeout = self._transport.Timeout(TIMEOUT, read=silence)
        try:
            async with self._http.stream("GET", where, params=params, timeout=timeout) as answer:
                if answer.status_code == 410:
                    raise Expired
                if answer.status_code >= 300:
                    raise refusal(answer.status_code, _decoded(await answer.aread()), what, self.server)
                async for line in answer.aiter_lines():
                    if line:
                        yield line
        except self._transport.HTTPError as e:
            raise unreachable(self.server, e) from e


def _decoded(content: bytes) -> Json:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {"message": content[:300].decode(errors="replace")}
    return found if isinstance(found, dict) else {"message": str(found)[:300]}
