"""What befalls pods beside what they say themselves: Events and nodes, told to the audit log as far as we may see them.

``cluster.warned`` and ``cluster.cleared`` are what ops makes evidence of; see ARCHITECTURE.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from leptonai.platforms.kubernetes.cluster import Cluster, Of, together
from leptonai.platforms.kubernetes.mirror import Mirror, key_of
from leptonai.platforms.kubernetes.rights import EVENTS, EVERYBODY, NODES, Right
from leptonai.platforms.kubernetes.room import room, slim
from leptonai.platforms.kubernetes.warned import Warned, maker, of_event, of_node
from leptonai.protocols import Record
from leptonai.types import Key, Replica, Resources

Json = dict[str, Any]

AGAIN = 60.0  # seconds until the same is told again of the same object
FRESH = 60.0  # seconds: what the cluster said before is no news at our start
MOST = 20  # of one service and reason told in AGAIN seconds: a thousand pods say the same


class Around:
    """``mirrors``: of pods and of what makes them. ``blind``: what our account may not watch, in words."""

    def __init__(
        self,
        cluster: Cluster,
        mirrors: Mapping[str, Mirror],
        resync: float,
        record: Record,
        clock: Callable[[], float],
    ) -> None:
        self.blind: tuple[str, ...] = ()
        self.mirrors: list[Mirror] = []
        self._cluster, self._known, self._resync = cluster, mirrors, resync
        self._record, self._clock = record, clock
        self._nodes: Mirror | None = None
        self._everybody: Mirror | None = None
        self._rooms: dict[Resources, int] = {}  # until a node or a pod is another
        self._told: dict[tuple[Key, str, str], float] = {}
        self._counts: defaultdict[tuple[Key, str], list[float]] = defaultdict(list)

    async def start(self) -> None:
        """``mirrors`` are those that can be followed, each listed once. Call it once pods are listed."""
        events, nodes, everybody = await together(self._may(right) for right in (EVENTS, NODES, EVERYBODY))
        said = (
            (events, "Events (no pod's warnings are evidence)"),
            (nodes, "nodes (their pressure and loss are no evidence)"),
            (nodes and everybody, "pods of all namespaces (room is not known)"),
        )
        self.blind = tuple(what for may, what in said if not may)
        if events:
            self.mirrors.append(self._mirror(Of("v1", "Event", fields="type=Warning"), self._event))
        if nodes:
            self._nodes = self._mirror(Of("v1", "Node", everywhere=True), self._node)
            self.mirrors.append(self._nodes)
        if nodes and everybody:
            which = Of("v1", "Pod", everywhere=True)
            self._everybody = Mirror(self._cluster, which, self._resync, self._elsewhere, slim)
            self.mirrors.append(self._everybody)
        await together(m.relist() for m in self.mirrors)

    def room(self, wanted: Resources) -> int | None:
        """How many more replicas fit; None: not known, or nothing is counted of them."""
        if self._nodes is None or self._everybody is None:
            return None
        if wanted not in self._rooms:
            self._rooms[wanted] = room(wanted, self._nodes.objects.values(), self._everybody.objects.values())
        return self._rooms[wanted]

    def ended(self, replica: Replica, node: str) -> None:
        """A container was killed for want of memory, which no Event tells."""
        said = f"OOMKilled: its container was {replica.detail}"
        self._tell(replica.service, replica.id, Warned("oom", said, replica.since), replica=replica.id, node=node)

    async def _may(self, right: Right) -> bool:
        where = right is not EVENTS
        return all(
            await together(self._cluster.allowed(v, right.group, right.resource, everywhere=where) for v in right.verbs)
        )

    def _mirror(self, of: Of, changed: Callable[[Json | None, Json | None], None]) -> Mirror:
        return Mirror(self._cluster, of, self._resync, changed)

    def _event(self, before: Json | None, after: Json | None) -> None:
        warned = of_event(after) if after is not None else None
        if after is None or warned is None or self._clock() - warned.at > FRESH:
            return
        about = after.get("involvedObject") or {}
        kind, name = str(about.get("kind") or ""), str(about.get("name") or "")
        pod = self._known["Pod"].objects.get(name) if kind == "Pod" else None
        ending = pod is None or bool(pod["metadata"].get("deletionTimestamp"))
        if warned.reason == "unhealthy" and ending:
            return  # as whoever is told to end is
        made_by = self._known["Deployment"].objects.get(maker(kind, name) or "")
        owner = pod or made_by
        if owner is not None:
            replica = name if kind == "Pod" else ""
            self._tell(key_of(owner), name, warned, replica=replica, node=_node_of(pod))

    def _elsewhere(self, before: Json | None, after: Json | None) -> None:
        self._rooms.clear()

    def _node(self, before: Json | None, after: Json | None) -> None:
        self._rooms.clear()
        known = after or before
        assert known is not None
        name, here = str(known["metadata"]["name"]), of_node(after)
        was = of_node(before) if before is not None else {}
        on: defaultdict[Key, list[str]] = defaultdict(list)
        for pod_name, pod in self._known["Pod"].objects.items():
            if _node_of(pod) == name:
                on[key_of(pod)].append(pod_name)
        for key, replicas in on.items():
            for reason in here.keys() - was.keys():
                self._tell(key, name, here[reason], node=name, replicas=sorted(replicas))
            for reason in was.keys() - here.keys():
                self._told.pop((key, name, reason), None)
                self._record("cluster.cleared", key, {"service": key, "node": name, "reason": reason})

    def _tell(self, key: Key, name: str, warned: Warned, **about: Any) -> None:
        """Once in AGAIN seconds for each object and reason."""
        now = self._clock()
        self._told = {which: at for which, at in self._told.items() if now - at < AGAIN}
        recent = self._counts[key, warned.reason] = [t for t in self._counts[key, warned.reason] if now - t < AGAIN]
        if (key, name, warned.reason) in self._told or len(recent) >= MOST:
            return
        self._told[key, name, warned.reason] = now
        recent.append(now)
        detail = {"service": key, "reason": warned.reason, "said": warned.said, "times": warned.times}
        detail["at"] = warned.at or now
        self._record("cluster.warned", key, detail | {k: v for k, v in about.items() if v})


def _node_of(pod: Json | None) -> str:
    return "" if pod is None else str((pod.get("spec") or {}).get("nodeName") or "")
