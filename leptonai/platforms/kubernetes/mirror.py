"""A copy in memory of all objects of one kind, kept by list and watch, and listed anew now and then."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from leptonai.errors import LeptonError
from leptonai.plan.render.names import OWN
from leptonai.platforms.kubernetes.cluster import Cluster, Expired, Of
from leptonai.types import DEFAULT_WORKSPACE, Key, make_key

Json = dict[str, Any]
Changed = Callable[[Json | None, Json | None], None]  # (before, after); None: there is none

WATCH = (300, 600)  # seconds of one watch, by chance, so that those of all kinds do not end together: as client-go's
AGAIN = (0.5, 15.0)  # seconds until a failed look is tried again: first, at most


class Mirror:
    """``objects`` by name. ``trouble``: why it may be out of date; "" while it is not. ``fresh``: while what nobody saw
    go is told, what nobody saw come; else None.

    A change is in ``objects`` before ``changed`` is called. What happened while nobody watched is seen as one change
    for each object.
    """

    def __init__(
        self,
        cluster: Cluster,
        of: Of,
        resync: float,
        changed: Changed,
        shrink: Callable[[Json], Json] = lambda obj: obj,
    ) -> None:
        """``shrink``: what of an object is kept. Objects of all namespaces are named ``namespace/name``."""
        self.objects: dict[str, Json] = {}
        self.trouble = f"{of.kind}s were not listed yet"
        self.listed = asyncio.Event()
        self.fresh: list[Json] | None = None
        self._cluster, self._which, self._resync, self._changed = cluster, of, resync, changed
        self._shrink = shrink
        self._since = ""
        self._of: defaultdict[Key, dict[str, Json]] = defaultdict(dict)

    def of(self, key: Key) -> dict[str, Json]:
        """Those that say to be of this service, by name. Not to be changed."""
        return self._of.get(key, {})

    async def relist(self) -> None:
        """``objects`` is what the cluster lists now. Raises what the cluster says."""
        found, self._since = await self._cluster.list(self._which)
        here = {self._name(obj): self._shrink(obj) for obj in found}
        self.fresh = [obj for name, obj in here.items() if name not in self.objects]
        for name in [n for n in self.objects if n not in here]:
            self._put(name, None)
        self.fresh = None
        for name, obj in here.items():
            if _version(self.objects.get(name)) != _version(obj):
                self._put(name, obj)
        self.trouble = ""
        self.listed.set()

    async def run(self) -> None:
        """Follow until cancelled. Nothing that the cluster does ends it."""
        pause, due = AGAIN[0], 0.0
        while True:
            try:
                if not self._since or time.monotonic() >= due:
                    await self.relist()
                    due = time.monotonic() + self._resync
                await self._follow()
                pause = AGAIN[0]
            except Expired:
                self._since = ""
            except LeptonError as e:
                self.trouble = e.message
                self._since = ""
                await asyncio.sleep(pause)
                pause = min(2 * pause, AGAIN[1])

    def told(self, obj: Json) -> None:
        """Our own call was answered with this object: known at once, not when the watch comes to it."""
        name = self._name(obj)
        if _newer(obj, self.objects.get(name)):
            self._put(name, obj)

    def forget(self, name: str) -> None:
        """Our own call has deleted it. What is deleted in the background comes back by the watch, and goes with it."""
        self._put(name, None)

    async def _follow(self) -> None:
        lasts = min(random.randint(*WATCH), max(1, int(self._resync)))
        async for event, obj in self._cluster.watch(self._which, self._since, lasts):
            self._since = str(obj["metadata"]["resourceVersion"])
            name = self._name(obj)
            if event == "DELETED":
                here = self.objects.get(name)
                if here is not None and here["metadata"].get("uid") == obj["metadata"].get("uid"):
                    self._put(name, None)
            elif event != "BOOKMARK" and _newer(obj, self.objects.get(name)):
                self._put(name, self._shrink(obj))

    def _name(self, obj: Json) -> str:
        meta = obj["metadata"]
        name = str(meta.get("name", ""))  # a bookmark has none
        return f"{meta['namespace']}/{name}" if self._which.everywhere and "namespace" in meta else name

    def _put(self, name: str, obj: Json | None) -> None:
        before = self.objects.pop(name, None)
        if before is not None:
            self._of[key_of(before)].pop(name, None)
        if obj is not None:
            self.objects[name] = obj
            self._of[key_of(obj)][name] = obj
        if before is not None or obj is not None:
            self._changed(before, obj)


def key_of(obj: Json) -> Key:
    """Whose an object says it is."""
    labels = obj["metadata"].get("labels") or {}
    return make_key(labels.get(f"{OWN}/service", ""), labels.get(f"{OWN}/workspace", DEFAULT_WORKSPACE))


def _version(obj: Json | None) -> str:
    return "" if obj is None else str(obj["metadata"].get("resourceVersion", ""))


def _newer(obj: Json, before: Json | None) -> bool:
    """Whether ``obj`` is a later state than ``before``. Versions are numbers in every cluster there is."""
    if before is None or before["metadata"].get("uid") != obj["metadata"].get("uid"):
        return True
    old, new = _version(before), _version(obj)
    return int(new) > int(old) if old.isdigit() and new.isdigit() else new != old
