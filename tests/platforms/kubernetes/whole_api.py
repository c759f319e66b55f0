"""An API server that takes what a whole platform does, refuses what it is told to, and runs no pods: no cluster."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gate_stage import Api, _chosen

Json = dict[str, Any]
SERVED = ("apps/v1", "networking.k8s.io/v1", "policy/v1", "autoscaling/v2", "coordination.k8s.io/v1")
REVIEWS = "selfsubjectaccessreviews"


class WholeApi(Api):
    """``denied``: plurals that the account has no rights to. ``kept``: names of what a webhook lets nobody delete."""

    def __init__(self, *more: str) -> None:
        super().__init__()
        self.served = (*SERVED, *more)
        self.denied = {"nodes", "events"}
        self.kept: set[str] = set()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-length:")), 0)
        body: Json = json.loads(await reader.readexactly(length) or b"{}")
        method, target = head.split(" ")[0], urlsplit(head.split(" ")[1])
        parts, asked = target.path.strip("/").split("/"), parse_qs(target.query)
        if parts == ["version"]:
            return self._answer(writer, 200, {"major": "1", "minor": "28"})
        if parts == ["apis"]:
            return self._answer(writer, 200, {"groups": [{"versions": [{"groupVersion": v} for v in self.served]}]})
        if parts[-1] == REVIEWS:
            allowed = body["spec"]["resourceAttributes"]["resource"] not in self.denied
            return self._answer(writer, 201, {"status": {"allowed": allowed}})
        kind, *names = parts[parts.index("namespaces") + 2 :]
        if method == "GET" and not names:
            wanted = [s.partition("=") for s in asked.get("labelSelector", [""])[0].split(",") if s]
            wanted = [(name, "", "") if "," in value else (name, eq, value) for name, eq, value in wanted]
            if "watch" in asked:
                await self._watch(writer, kind, wanted, int(asked["resourceVersion"][0]))
            items = [o for o in self.objects[kind].values() if _chosen(o, wanted)]
            return self._answer(
                writer, 200, {"metadata": {"resourceVersion": str(next(self._versions))}, "items": items}
            )
        name = names[0] if names else body["metadata"]["name"]
        if method in ("POST", "PUT", "PATCH"):
            self.put(kind, {"metadata": {}} | body)
        here = self.objects[kind].get(name)
        if here is None:
            return self._answer(writer, 404, {"kind": "Status", "message": "not found"})
        if method == "DELETE":
            if name in self.kept:
                return self._answer(writer, 403, {"kind": "Status", "message": "admission webhook says no"})
            self.drop(kind, name)
        self._answer(writer, 200, here)
