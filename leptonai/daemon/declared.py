"""Custom resources of a cluster, wired to the door and to what is known of services."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from leptonai.api.incidents import subject_key
from leptonai.api.world import World
from leptonai.ops.alert.message import RANK
from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.protocols import Platform, Record
from leptonai.serve.reconcile import Reconciler
from leptonai.serve.resource.loop import Around, Resources, Seen
from leptonai.types import Change, Incident, Key, Proposal, Replica

_OPEN = 1000  # open incidents that are looked at


def follow(platform: Platform, world: World, reconciler: Reconciler, record: Record) -> Resources | None:
    """What follows the resources of a started platform's cluster; None where services run on no cluster."""
    if not isinstance(platform, KubernetesPlatform):
        return None
    store = world.store

    def propose(change: Change, why: str, by: str) -> Proposal:
        actor = next(t for t in store.tokens() if t.name == "ops" and not t.revoked)
        return world.door.propose(change, actor, why, by=by)

    def pending(key: Key) -> Sequence[Proposal]:
        return store.proposals(status="pending", service=key)

    def look(keys: Iterable[Key]) -> Seen:
        wanted = set(keys)
        of: defaultdict[Key, list[Replica]] = defaultdict(list)
        for replica in platform.observe() if wanted else ():
            of[replica.service].append(replica)
        wishes = [w for w in world.wishes.all(world.clock()) if w.service.key in wanted]
        return Seen(
            views={w.service.key: world.view(w, of[w.service.key]) for w in wishes},
            running={key: len(of[key]) + reconciler.holds(key) for key in wanted},
            incidents=worst(store.incidents(open=True, limit=_OPEN)) if wanted else {},
        )

    around = Around(propose, store.revisions, pending, look, record)
    return Resources(platform.cluster, around, world.settings.kubernetes.resync, world.clock)


def worst(incidents: Iterable[Incident]) -> dict[Key, Incident]:
    """Of each service, or whatever else they are about, the open incident that is most severe, then the oldest."""
    found: dict[Key, Incident] = {}
    for one in sorted(incidents, key=lambda i: (RANK[i.severity], i.began)):
        found.setdefault(subject_key(one.subject), one)
    return found
