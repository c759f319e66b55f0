"""The hand: follows the resources of a namespace, asks the door for what they declare, writes what is to be said."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from leptonai.client.wire import ServiceView
from leptonai.errors import Conflict, LeptonError, NotFound
from leptonai.platforms.kubernetes.cluster import Cluster, Of
from leptonai.platforms.kubernetes.mirror import Mirror
from leptonai.protocols import Record
from leptonai.serve.resource.decide import PENDING, Decision, Known, Refused, Word, decide, failed, rivals
from leptonai.serve.resource.form import FINALIZER, Declared, read
from leptonai.serve.resource.schema import API, KIND, PLURAL
from leptonai.serve.resource.status import HELD, patch, status
from leptonai.types import Change, DeleteChange, Incident, Key, Proposal, Revision

log = logging.getLogger(__name__)

Json = dict[str, Any]

PERIOD = 1.0  # seconds between two looks, where nothing wakes us
TOLD_EVERY = 2.0  # seconds between two words about one resource
MOST_TOLD = 50  # resources that are told of in one look: a cluster has others to serve
LOOK_AGAIN = 5.0  # seconds until what is not as declared is decided upon anew, though nothing of it changed
SERVED_AGAIN = 30.0  # seconds between questions whether the cluster has our definition by now


class Seen(NamedTuple):
    """How services stand: those that are asked for and exist."""

    views: Mapping[Key, ServiceView]
    running: Mapping[Key, int]  # what is left of each in the cluster, also of those that nobody wishes any more
    incidents: Mapping[Key, Incident]  # open ones, the worst of each


class Around(NamedTuple):
    """What a resource is judged and told by."""

    propose: Callable[[Change, str, str], Proposal]  # (change, why, by); raises as the door does
    history: Callable[[Key], Sequence[Revision]]
    pending: Callable[[Key], Sequence[Proposal]]
    look: Callable[[Iterable[Key]], Seen]
    record: Record


class Resources:
    """Follows every ``Service`` resource of the cluster's namespace, from when its definition is served on.

    What it decides goes to ``record``: ``resource.refused`` with reason and message, once for each different one.
    What one resource says or does never stops another, nor us.
    """

    def __init__(self, cluster: Cluster, around: Around, resync: float, clock: Callable[[], float] = time.time) -> None:
        self.trouble = f"{PLURAL} of {API} are not served here"  # why resources are not followed; "" while they are
        self._cluster, self._around, self._resync, self._clock = cluster, around, resync, clock
        self._mirror = self._fresh()
        self._declared: dict[str, Declared] = {}  # by name
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._words: dict[str, tuple[Word, float]] = {}  # by uid, with when it was decided
        self._refused: dict[str, Refused] = {}
        self._told: dict[str, float] = {}

    def changed(self, key: Key) -> None:
        """The wish of ``key`` is another. Call it from the loop's own thread."""
        for name, one in self._declared.items():
            if one.key == key:
                self._dirty.add(name)
                self._wake.set()

    async def run(self) -> None:
        """Follow until cancelled, and anew when called anew. Nothing that the cluster or the door does ends it."""
        await self._until_served()
        # What was known when we were cancelled may have been changed by people, and seen to by another copy.
        self._mirror = self._fresh()
        for memory in (self._declared, self._words, self._refused, self._told):
            memory.clear()
        following = asyncio.create_task(self._mirror.run())
        try:
            await self._mirror.listed.wait()
            while True:
                self._wake.clear()
                try:
                    await self.once()
                    self._say(self._mirror.trouble)
                except LeptonError as e:
                    self._say(e.message)
                    await asyncio.sleep(LOOK_AGAIN)
                try:
                    async with asyncio.timeout(PERIOD):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            following.cancel()

    async def once(self) -> None:
        """One look at everything: each resource is a step nearer to what it declares, and told how it stands."""
        now = self._clock()
        elders = rivals(self._declared.values())
        seen = self._around.look({one.key for one in self._declared.values()})
        dirty, self._dirty = self._dirty, set()
        for name, one in list(self._declared.items()):
            word, at = self._words.get(one.uid, (None, 0.0))
            stale = word is None or one.deleting or (not word.ok and now - at >= LOOK_AGAIN)
            if stale or name in dirty:
                word = await self._settle(one, elders.get(one.uid, ""), seen, now)
                self._words[one.uid] = word, now
        await self._tell(seen, now)

    # --- one resource ------------------------------------------------------------------------------------------------

    async def _settle(self, one: Declared, rival: str, seen: Seen, now: float) -> Word:
        try:
            return await self._step(one, rival, seen, now)
        except LeptonError as e:
            if isinstance(e, Conflict) and e.code == "conflict":  # its object was changed under our hands
                self._dirty.add(one.name)
                return PENDING
            return self._refuse(one, "Refused", f"{e.message} ({e.hint})" if e.hint else e.message, now)
        except Exception as e:  # whatever is wrong with one resource, the others and control must go on
            log.exception("%s/%s of %s could not be looked at", KIND, one.name, one.namespace)
            return self._refuse(one, "Internal", f"a mistake of ours: {e!r}", now)

    async def _step(self, one: Declared, rival: str, seen: Seen, now: float) -> Word:
        found = decide(one, self._known(one, rival, seen), now)
        if found.finalizer is not None:
            await self._finalize(one, found.finalizer)
            return found.word
        if found.change is not None:
            return self._propose(one, found, found.change, now)
        if found.word.ok:
            self._refused.pop(one.uid, None)
        return found.word

    def _known(self, one: Declared, rival: str, seen: Seen) -> Known:
        waiting = [
            p
            for p in self._around.pending(one.key)
            if p.by == one.by and isinstance(p.change, DeleteChange) == one.deleting
        ]
        return Known(
            history=self._around.history(one.key),
            rival=rival,
            pending=waiting[0] if waiting else None,
            refused=self._refused.get(one.uid),
            running=seen.running.get(one.key, 0),
        )

    def _propose(self, one: Declared, found: Decision, change: Change, now: float) -> Word:
        what = "was deleted" if one.deleting else f"generation {one.generation}"
        proposal = self._around.propose(change, f"{KIND}/{one.name} in {one.namespace}: {what}", one.by)
        self._dirty.add(one.name)
        self._wake.set()
        if proposal.status == "denied":
            return self._refuse(one, "Denied", "; ".join(proposal.reasons), now)
        return found.word

    def _refuse(self, one: Declared, reason: str, message: str, now: float) -> Word:
        before = self._refused.get(one.uid)
        refused = self._refused[one.uid] = failed(one, before, reason, message, now)
        if before is None or before.word.reason != reason or before.generation != one.generation:
            detail = {"resource": f"{one.namespace}/{one.name}", "generation": one.generation}
            self._around.record("resource.refused", one.key, detail | {"reason": reason, "message": message})
        return refused.word

    async def _finalize(self, one: Declared, on: bool) -> None:
        """The finalizer is there, or it is not. Conflict when the object is another by now."""
        obj = self._mirror.objects.get(one.name)
        if obj is None or obj["metadata"].get("uid") != one.uid:
            return
        others = [f for f in obj["metadata"].get("finalizers") or [] if f != FINALIZER]
        wanted = [*others, FINALIZER] if on else others
        meta = {"finalizers": wanted, "resourceVersion": obj["metadata"]["resourceVersion"]}
        try:
            self._mirror.told(await self._cluster.merge(API, KIND, one.name, {"metadata": meta}))
        except NotFound:
            self._mirror.forget(one.name)
        self._wake.set()

    # --- what is told ------------------------------------------------------------------------------------------------

    async def _tell(self, seen: Seen, now: float) -> None:
        """Every status that is not as it should be is written; those that waited longest first."""
        due = []
        for one in self._declared.values():
            word, _ = self._words.get(one.uid, (None, 0.0))
            last = self._told.get(one.uid, 0.0)
            if word is None or word.reason == PENDING.reason or now - last < TOLD_EVERY:
                continue
            whose = word.ok or word.reason in HELD or one.admitted > 0
            view = seen.views.get(one.key) if whose else None
            incident = seen.incidents.get(one.key) if whose else None
            after = status(one, word, view, incident, now)
            if after != one.status:
                due.append((last, one.name, one, after))
        for _, name, one, after in sorted(due, key=lambda d: d[:2])[:MOST_TOLD]:
            self._told[one.uid] = now
            try:
                made = await self._cluster.merge(API, KIND, name, patch(one.status, after), sub="status")
            except NotFound:
                continue  # it was deleted meanwhile
            self._mirror.told(made)

    def _fresh(self) -> Mirror:
        return Mirror(self._cluster, Of(API, KIND), self._resync, self._changed)

    def _changed(self, before: Json | None, after: Json | None) -> None:
        if after is None:
            assert before is not None
            one = self._declared.pop(str(before["metadata"]["name"]), None)
            if one is not None:
                for memory in (self._words, self._refused, self._told):
                    memory.pop(one.uid, None)
            self._dirty |= set(self._declared)  # who was second may be first now
            self._wake.set()
        else:
            one = read({"apiVersion": API, "kind": KIND} | after)
            was = self._declared.get(one.name)
            self._declared[one.name] = one
            if was is None or was._replace(status={}) != one._replace(status={}):
                self._dirty.add(one.name)
                self._wake.set()

    async def _until_served(self) -> None:
        while True:
            try:
                await self._cluster.call("GET", f"/apis/{API}", f"ask for {API}")
                return
            except LeptonError as e:
                if not isinstance(e, NotFound):
                    self._say(e.message)
            await asyncio.sleep(SERVED_AGAIN)

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            log.info("resources: %s", trouble or f"{PLURAL} of {API} are followed")
            if trouble:
                self._around.record("resource.trouble", "platform", {"message": trouble})
