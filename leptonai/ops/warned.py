"""What a cluster warns of, as its platform tells it in the audit log: of replicas, of nodes, of the service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from leptonai.types import Event, Noun

WARNED, CLEARED = "cluster.warned", "cluster.cleared"
BEFORE = 120.0  # seconds before the onset from which a warning may belong to it: pods wait for room before users do
# Reasons said of a replica -> what rules know it as.
FLAGS = {"evicted": "put_out", "image_missing": "image_missing", "node_not_ready": "node_lost"}
LOST = frozenset({"node_not_ready", "node_gone"})  # reasons of a node for which all on it is silent


class Warned(Noun, frozen=True, kw_only=True):
    """``replica`` or ``node``: what it is about; neither: the service. ``replicas``: those on the node. ``over``: since
    when it does not hold any more."""

    at: float
    reason: str
    said: str
    times: int = 1
    replica: str = ""
    node: str = ""
    replicas: tuple[str, ...] = ()
    over: float | None = None

    @property
    def name(self) -> tuple[str, str]:
        """Of two with the same name the newer one stands."""
        return self.reason, self.replica or self.node

    def among(self, here: Iterable[str]) -> list[str]:
        """Those of its replicas that are here; all of them where none is."""
        return sorted(set(self.replicas).intersection(here)) or sorted(self.replicas)

    def text(self, now: float, here: Sequence[str] = ()) -> str:
        """One sentence in the words of the cluster; ``here``: the replicas on its node."""
        said = self.said if self.said.endswith((".", "!", "?")) else f"{self.said}."
        said += f" ({self.times} times)" if self.times > 1 else ""
        said += f" It was over {now - self.over:.0f} s ago." if self.over is not None else ""
        if self.replica:
            on = f" on node {self.node}" if self.node else ""
            return f"The cluster says of replica {self.replica}{on}: {said}"
        return (
            f"The cluster says of node {self.node}, which has {', '.join(here)}: {said}"
            if self.node
            else (f"The cluster says: {said}")
        )


def heard(event: Event, known: Iterable[Warned]) -> list[Warned] | None:
    """What holds after an event of the audit log, of what was ``known`` before; None: it tells of no cluster."""
    detail = event.detail
    if event.kind == CLEARED:
        gone = (str(detail.get("reason", "")), str(detail.get("node", "")))
        return [msgspec.structs.replace(w, over=event.at) if w.name == gone else w for w in known]
    if event.kind != WARNED:
        return None
    fresh = Warned(
        at=float(detail.get("at") or event.at),
        reason=str(detail.get("reason", "")),
        said=str(detail.get("said", "")),
        times=int(detail.get("times") or 1),
        replica=str(detail.get("replica") or ""),
        node=str(detail.get("node") or ""),
        replicas=tuple(str(r) for r in detail.get("replicas") or ()),
    )
    return [*(w for w in known if w.name != fresh.name), fresh]


def concerning(known: Iterable[Warned], onset: float) -> tuple[Warned, ...]:
    """Those that may have to do with a trouble that began at ``onset``: what a node suffers from, while it does."""
    return tuple(
        w for w in known
        if (w.over is None or w.over >= onset - BEFORE) and (w.at >= onset - BEFORE or (not w.replica and w.node))
    )  # fmt: skip
