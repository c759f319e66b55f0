"""Everything that is followed of one pod while it is there: its log, what it says of itself, its predictions."""

from __future__ import annotations

import asyncio
import base64
import secrets
from pathlib import Path
from typing import Any

from leptonai.errors import Conflict
from leptonai.plan.render.names import MANAGER
from leptonai.plan.render.pod import SECRET_KEY
from leptonai.platforms.kubernetes.cluster import Cluster
from leptonai.platforms.kubernetes.follow import PodLog
from leptonai.platforms.kubernetes.orders import Orders
from leptonai.platforms.kubernetes.rights import SECRET
from leptonai.settings import Local

Json = dict[str, Any]


async def shared_secret(cluster: Cluster) -> str:
    """What pods take orders by: made once in a namespace, found by every platform after."""
    here = await cluster.get("v1", "Secret", SECRET)
    if here is None:
        fresh = base64.b64encode(secrets.token_hex(32).encode()).decode()
        labels = {"app.kubernetes.io/managed-by": MANAGER}
        meta = {"name": SECRET, "namespace": cluster.namespace, "labels": labels}
        wish = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {SECRET_KEY: fresh}}
        here = await cluster.apply(wish)
    found = (here.get("data") or {}).get(SECRET_KEY)
    if not found:
        raise Conflict(
            f"Secret/{SECRET} in namespace {cluster.namespace} has no {SECRET_KEY!r}",
            hint="somebody else made it: delete it, or use another namespace",
            code="foreign_owner",
        )
    return base64.b64decode(found).decode()


class Attendant:
    """``log`` and ``orders`` of one pod; ``orders`` is None until it has an address."""

    def __init__(self, cluster: Cluster, pod: str, home: Path, secret: str, local: Local) -> None:
        self.log = PodLog(cluster, pod, home, local.log_bytes, local.log_files)
        self.orders: Orders | None = None
        self._secret, self._predictions = secret, home / "run" / pod / "predictions"
        self._tasks = [asyncio.create_task(self.log.run())]

    def saw(self, pod: Json, address: str) -> None:
        """The pod is so now, and known to be reached there."""
        container: Json = next(iter((pod.get("status") or {}).get("containerStatuses") or []), {})
        self.log.has(str(container.get("containerID") or ""), "running" in (container.get("state") or {}))
        if address and (self.orders is None or self.orders.address != address):
            self.orders = Orders(address, self._secret, self._predictions)
            self._tasks.append(asyncio.create_task(self.orders.run()))

    async def end(self) -> None:
        """Nothing is followed any more; what was kept stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.orders:
            self.orders.close()

    async def bury(self) -> None:
        """As ``end``, for a pod that is gone."""
        await self.end()
        self.log.bury()
