"""Who may act in a namespace: what its Lease says, judged by the clock of who looks. Pure.

As in client-go's leader election, the times in the Lease are for people: clocks of copies disagree. A copy counts on
its own clock from when it first saw a state of the Lease; whoever holds it stops earlier, counted from before the
renewal was sent. So the first never acts any more when the second may begin, as long as no clock runs ``1 / SHARE``
times as fast as another.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from leptonai.plan.render.names import MANAGER, OWN

Json = dict[str, Any]

NAME = "leptonai"  # of the Lease, one in a namespace
API = "coordination.k8s.io/v1"
UNKNOWN = "whoever led before the lease was deleted"  # a holder that lets a Lease run out
SHARE = 2 / 3  # of the lease for which its holder acts on one renewal: client-go's 10 s of 15 s
TRIES = 7.5  # renewals tried in the time of a lease: client-go's one each 2 s of 15 s


class Me(NamedTuple):
    """One copy of a platform. ``store``: whose wishes it holds; copies that share them say the same."""

    identity: str
    store: str
    control: str = ""  # where its API answers


class Held(NamedTuple):
    """What the Lease says. ``holder`` "": it was let go. ``version``: another with every change."""

    holder: str
    store: str
    control: str
    duration: float
    renewed: str  # as its holder's clock says: for people
    transitions: int
    version: str


class Standing(NamedTuple):
    """What one copy knows, by its own clock. ``alive``: a renewal was seen to happen, not only found done."""

    seen: Held | None = None
    since: float = -math.inf  # when the state was first seen
    alive: bool = False
    until: float = -math.inf  # this copy acts until then

    def holds(self, now: float) -> bool:
        return now < self.until


def looked(me: Me, before: Standing, found: Held | None, now: float) -> Standing:
    """``found`` is what the API server answered at ``now``; None: no Lease. Who finds another's acts no more."""
    if found is None:
        return Standing()
    mine = found.holder == me.identity and found.store == me.store
    until = before.until if mine else -math.inf
    if before.seen is not None and before.seen.version == found.version:
        return before._replace(until=until)
    same = before.seen is not None and bool(found.holder) and before.seen.holder == found.holder
    return Standing(found, now, same, until)


def wrote(made: Held, sent: float, now: float) -> Standing:
    """The API server has taken what this copy sent at ``sent``: it acts from now on, for a share of the lease."""
    return Standing(made, now, True, sent + SHARE * made.duration)


def decide(
    me: Me, standing: Standing, now: float, occupied: bool
) -> Literal["take", "renew", "mark", "wait", "refuse"]:
    """What ``me`` does next. ``occupied``: services run in the namespace, by whosever wish.

    ``wait``: another may act. ``refuse``: the wishes of another store hold here, and this one's never will. ``mark``:
    services run and there is no Lease. Whoever deleted it, its holder may not know yet: one is made that runs out for
    everybody, its maker too.
    """
    seen = standing.seen
    if seen is None:
        return "mark" if occupied else "take"
    foreign = seen.store != me.store
    if seen.holder == me.identity and not foreign:
        return "renew"
    left = standing.since + seen.duration - now
    held = bool(seen.holder) and seen.holder != me.identity and left > 0
    if foreign and (occupied or (held and standing.alive)):
        return "refuse"
    return "wait" if held else "take"


def spelled(me: Me, namespace: str, duration: float, before: Held | None, at: float) -> Json:
    """The Lease as ``me`` wants it, at ``at`` in unix seconds; it is taken only if ``before`` is still what it says."""
    again = before is not None and before.holder == me.identity
    changes = 0 if before is None else before.transitions + (0 if again else 1)
    return _object(me.identity, me, namespace, duration, before, at, changes)


def mark(me: Me, namespace: str, duration: float, at: float) -> Json:
    """A Lease that nobody renews."""
    return _object(UNKNOWN, me, namespace, duration, None, at, 0)


def let_go(me: Me, namespace: str, before: Held, at: float) -> Json:
    """The Lease for whoever comes next. Whose wishes hold here stays said."""
    return _object("", me, namespace, before.duration, before, at, before.transitions)


def _object(
    holder: str, me: Me, namespace: str, duration: float, before: Held | None, at: float, transitions: int
) -> Json:
    meta: Json = {
        "name": NAME,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": MANAGER},
        "annotations": {f"{OWN}/store": me.store, f"{OWN}/control": me.control},
    }
    if before is not None:
        meta["resourceVersion"] = before.version
    moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": max(1, math.ceil(duration)),
        "renewTime": moment,
        "leaseTransitions": transitions,
    }
    return {"apiVersion": API, "kind": "Lease", "metadata": meta, "spec": spec}


def read(lease: Json) -> Held:
    """Whoever made it: what somebody else left out counts as not said."""
    meta, spec = lease["metadata"], lease.get("spec") or {}
    notes = meta.get("annotations") or {}
    return Held(
        holder=str(spec.get("holderIdentity") or ""),
        store=str(notes.get(f"{OWN}/store") or ""),
        control=str(notes.get(f"{OWN}/control") or ""),
        duration=float(spec.get("leaseDurationSeconds") or 1),
        renewed=str(spec.get("renewTime") or ""),
        transitions=int(spec.get("leaseTransitions") or 0),
        version=str(meta.get("resourceVersion") or ""),
    )
