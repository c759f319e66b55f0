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
from leptonai.types import Replica

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
        self._ready: tuple[str, Replica | None] = ("", None)  # its container and what it was, when it was ready last
        self._tasks = [asyncio.create_task(self.log.run())]

    def saw(self, pod: Json, replica: Replica) -> None:
        """The pod is so now, which is that as a replica."""
        container: Json = next(iter((pod.get("status") or {}).get("containerStatuses") or []), {})
        state, id = container.get("state") or {}, str(container.get("containerID") or "")
        begun = "running" in state or "terminated" in state or "terminated" in (container.get("lastState") or {})
        self.log.has(id if begun else "", "running" in state)
        if replica.state == "ready":
            self._ready = id, replica
        elif id != self._ready[0]:
            self._ready = "", None
        if replica.address and (self.orders is None or self.orders.address != replica.address):
            self.orders = Orders(replica.address, self._secret, self._predictions)
            self._tasks.append(asyncio.create_task(self.orders.run()))

    def as_it_answers(self, replica: Replica) -> Replica:
        """Ready, where it is so by all but the word of the kubelet: it was, the same container runs, and it answers us.

        A kubelet that is started again, and a node that is not heard of, call pods unready that serve.
        """
        was, orders = self._ready[1], self.orders
        unsaid = replica.reason in ("hung", "loading") and orders is not None and orders.answers
        return was if unsaid and was is not None else replica

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
