"""The objects of a service in the cluster, brought to be as rendered: one move at a time, by fields of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from leptonai.errors import Conflict, SpecError
from leptonai.plan.render import Ground, render
from leptonai.platforms.kubernetes.cluster import Cluster
from leptonai.platforms.kubernetes.converge import Move, foreign, handed_over, moves, ours
from leptonai.platforms.kubernetes.fights import Fights
from leptonai.platforms.kubernetes.mirror import Mirror
from leptonai.platforms.kubernetes.names import Ref
from leptonai.protocols import Record
from leptonai.types import Key, Service, canonical

Json = dict[str, Any]

_GONE_WITHIN = 30.0  # seconds for an object that is made anew to be gone
_HANDOVER = "leptonai-handover"  # a field manager: keeps a value of ours as it is until somebody else sets it


class Objects:
    """Not for two calls about one service at a time: the caller holds a lock on that."""

    def __init__(
        self,
        cluster: Cluster,
        ground: Ground,
        mirrors: Mapping[str, Mirror],
        record: Record,
        clock: Callable[[], float],
    ) -> None:
        """``mirrors``: of every kind that is made, by kind, and of pods. They are told of what is done."""
        self.ground = ground
        self._cluster, self._mirrors, self._record = cluster, mirrors, record
        self._fights = Fights(record, clock)
        self._rendered: dict[Key, tuple[Service, list[Json]]] = {}
        self._as_good: dict[Ref, tuple[bytes, tuple[str, ...]]] = {}  # fields that the cluster does not keep as wished
        self._applied: dict[Ref, bytes] = {}

    def todo(self, service: Service) -> list[Move]:
        """What makes the cluster match, in the order to do it. SpecError, PlatformError: it cannot be rendered."""
        key = service.key
        known = self._rendered.get(key)
        if known is None or known[0] != service:
            self._rendered[key] = known = (service, render(service, self.ground).objects)
        pods = self._mirrors["Pod"].of(key).values()
        mounted = {v["configMap"]["name"] for p in pods for v in p["spec"].get("volumes") or [] if "configMap" in v}
        found = moves(key, known[1], self.live(key), mounted, service.rejected)
        return [m for m in found if m.verb != "change" or self._as_good.get(m.ref) != (canonical(m.object), m.fields)]

    async def remove(self, key: Key) -> None:
        """Nothing of the service's is left but its pods."""
        self._rendered.pop(key, None)
        for move in moves(key, [], self.live(key), ()):
            await self.do(key, move)
        for at, obj in self.live(key).items():  # ConfigMaps that pods read until now
            await self.do(key, Move("delete", at, obj))

    def live(self, key: Key) -> dict[Ref, Json]:
        found = {}
        for kind, mirror in self._mirrors.items():
            if kind != "Pod":
                for name, obj in mirror.of(key).items():
                    if ours(key, obj):
                        found[Ref(kind, name)] = obj
        return found

    async def do(self, key: Key, move: Move) -> None:
        """Conflict ``foreign_owner`` for an object of somebody else's; and what the cluster refuses, as it says it."""
        cluster, at, wish = self._cluster, move.ref, move.object
        if move.verb == "delete":
            await cluster.delete(wish["apiVersion"], at.kind, at.name, uid=wish["metadata"].get("uid", ""))
            self._mirrors[at.kind].forget(at.name)
            self._as_good.pop(at, None)
            self._applied.pop(at, None)
            return
        if move.verb == "create":
            here = await cluster.get(wish["apiVersion"], at.kind, at.name)
            if here is not None and not ours(key, here):
                raise foreign(key, {"kind": at.kind} | here, cluster.namespace)
        said = canonical(wish)
        try:
            made = await self._set(move, again=self._applied.get(at) == said)
        except SpecError as e:
            if e.code != "immutable":
                raise
            made = await self._anew(key, move)
        self._applied[at] = said
        self._mirrors[at.kind].told(made)
        left = next(iter(moves(key, [wish], {at: made}, ())), None)
        if left is not None and left.verb == "change":  # said otherwise by the cluster, or shared with others
            self._as_good[at] = (said, left.fields)

    async def _set(self, move: Move, again: bool) -> Json:
        """The fields of the object are ours. ``again``: we have set them so before."""
        here = self._mirrors[move.ref.kind].objects.get(move.ref.name)
        if kept := handed_over(move.object, here):
            try:
                await self._cluster.apply(kept, manager=_HANDOVER)
            except Conflict as e:  # somebody else has it already
                if e.code != "conflict":
                    raise
        try:
            made = await self._cluster.apply(move.object)
        except Conflict as e:
            if e.code != "conflict":
                raise
            managers = e.detail.get("managers") or ()
            others = e.detail["managers"] = tuple(m for m in managers if m != _HANDOVER)
            if others or not managers:
                self._fights.count(move, e)
            return await self._cluster.apply(move.object, force=True)
        if again and move.verb == "change":
            self._fights.count(move, None)
        return made

    async def _anew(self, key: Key, move: Move) -> Json:
        """A field that cannot be changed: the object is made again. What a Deployment runs stays, and is adopted."""
        cluster, at, api = self._cluster, move.ref, move.object["apiVersion"]
        self._record("object.replaced", str(at), {"service": key, "fields": list(move.fields)})
        await cluster.delete(api, at.kind, at.name, orphan=at.kind == "Deployment")
        async with asyncio.timeout(_GONE_WITHIN):
            while await cluster.get(api, at.kind, at.name) is not None:  # noqa: ASYNC110 - no event of ours
                await asyncio.sleep(0.1)
        return await cluster.apply(move.object)
