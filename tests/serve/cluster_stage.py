"""What a cluster's API server does with custom resources, as its documentation has it: generations, finalizers,
resource versions, merge patches, the status by itself, watches that end and forget. It knows nothing of our code."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]

API = "/apis/leptonai.dev/v1alpha1"


class Refusal(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        self.answer = JSONResponse(
            {"kind": "Status", "code": code, "reason": reason, "message": message}, status_code=code
        )


class ApiServer:
    """One namespace. ``served``: whether the definition is there. ``down``: every answer is 503. ``denied``: verbs that
    our account may not use. ``calls``: what was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.version = 100
        self.forgotten = 0  # watches from before are told 410
        self.events: list[tuple[int, str, Json]] = []
        self.served, self.down = True, False
        self.denied: set[str] = set()
        self.calls: list[str] = []
        self._uid = 0

    # --- what people do ----------------------------------------------------------------------------------------------

    def apply(self, name: str, spec: Json, **meta: Any) -> None:
        here = self.objects.get(name)
        if here is None:
            self._uid += 1
            meta = {"name": name, "namespace": "models", "uid": f"u{self._uid}", "generation": 1} | meta
            meta["creationTimestamp"] = f"2026-01-01T00:00:{self._uid:02d}Z"
            self._put("ADDED", {"metadata": meta, "spec": spec})
            return
        fresh = copy.deepcopy(here)
        fresh["metadata"] |= meta
        if fresh["spec"] != spec:
            fresh["spec"] = spec
            fresh["metadata"]["generation"] += 1
        self._put("MODIFIED", fresh)

    def delete(self, name: str) -> None:
        fresh = copy.deepcopy(self.objects[name])
        fresh["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
        fresh["metadata"]["generation"] += 1
        self._put("MODIFIED", fresh)

    def forget(self) -> None:
        """Old versions are compacted away: every watch has to begin anew."""
        self.version += 1
        self.forgotten = self.version

    def _put(self, kind: str, obj: Json) -> None:
        self.version += 1
        meta = obj["metadata"]
        meta["resourceVersion"] = str(self.version)
        name = meta["name"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            kind = "DELETED"
            self.objects.pop(name, None)
        else:
            self.objects[name] = obj
        self.events.append((self.version, kind, copy.deepcopy(obj)))

    # --- what is answered --------------------------------------------------------------------------------------------

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route(API, self._discover),
                Route(f"{API}/namespaces/models/services", self._list),
                Route(f"{API}/namespaces/models/services/{{name}}", self._patch, methods=["PATCH"]),
                Route(f"{API}/namespaces/models/services/{{name}}/status", self._patch, methods=["PATCH"]),
            ],
            exception_handlers={Refusal: lambda request, refusal: refusal.answer},
        )

    def _check(self, verb: str) -> None:
        self.calls.append(verb)
        if self.down:
            raise Refusal(503, "ServiceUnavailable", "the server is currently unable to handle the request")
        if not self.served:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        if verb in self.denied:
            plain, _, of = verb.partition(" ")
            said = f'forbidden: User "poor" cannot {plain} resource "{of or "services"}" in API group "leptonai.dev"'
            raise Refusal(403, "Forbidden", f'{said} in the namespace "models"')

    async def _discover(self, request: Request) -> Response:
        self._check("discover")
        return JSONResponse({"kind": "APIResourceList", "groupVersion": "leptonai.dev/v1alpha1"})

    async def _list(self, request: Request) -> Response:
        if request.query_params.get("watch"):
            self._check("watch")
            return StreamingResponse(self._watch(int(request.query_params["resourceVersion"])))
        self._check("list")
        return JSONResponse({"metadata": {"resourceVersion": str(self.version)}, "items": list(self.objects.values())})

    async def _watch(self, since: int) -> Any:
        while not self.down:
            if since < self.forgotten:
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                yield json.dumps({"type": "ERROR", "object": gone}) + "\n"
                return
            for version, kind, obj in list(self.events):
                if version > since:
                    since = version
                    yield json.dumps({"type": kind, "object": obj}) + "\n"
            mark = {"metadata": {"resourceVersion": str(since)}}
            yield json.dumps({"type": "BOOKMARK", "object": mark}) + "\n"
            await asyncio.sleep(0.02)

    async def _patch(self, request: Request) -> Response:
        status = request.url.path.endswith("/status")
        self._check("patch services/status" if status else "patch")
        here = self.objects.get(request.path_params["name"])
        if here is None:
            raise Refusal(404, "NotFound", "not found")
        said = await request.json()
        version = here["metadata"]["resourceVersion"]
        if said.get("metadata", {}).get("resourceVersion", version) != version:
            raise Refusal(409, "Conflict", "the object has been modified; please apply your changes")
        fresh = copy.deepcopy(here)
        if status:
            _merge(fresh, {"status": said["status"]})
        else:
            _merge(fresh, {k: v for k, v in said.items() if k != "status"})
            if fresh["spec"] != here["spec"]:
                fresh["metadata"]["generation"] += 1
        if fresh != here:
            self._put("MODIFIED", fresh)
        return JSONResponse(fresh)


def _merge(target: Json, patch: Json) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


class Running:
    """The server in a thread of its own, on a free port of loopback."""

    def __init__(self, api: ApiServer) -> None:
        config = uvicorn.Config(
            api.app(), host="127.0.0.1", port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> str:
        """Its URL."""
        import time

        self._thread.start()
        while not self._server.started:  # uvicorn has no event of it
            time.sleep(0.01)
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(timeout=10)
