"""How a deploy stands, decided from one look at the service. Pure: the client looks, waits and reports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from leptonai.client.wire import ServiceView, Verdict
from leptonai.errors import LeptonError, ModelError, StartError
from leptonai.types import Revision

# Reasons that may pass by themselves. Every other one is a model's own: the same bytes are loaded the same way again.
PASSING = ("", "exited", "killed", "oom", "hung", "start_failed", "launch_failed", "disk_full")
PATIENCE = 2  # crashes in a row before the one looked at, for a passing reason, until it counts as permanent


class Progress(NamedTuple):
    """``ready`` of ``wanted`` replicas of the newest digests and epochs are up; ``text`` says it as one line."""

    ready: int
    wanted: int
    text: str

    @property
    def done(self) -> bool:
        return self.ready >= self.wanted


Report = Callable[[Progress], None]


def rollout(view: ServiceView, past: Collection[str] = ()) -> Progress:
    """Where the replacement by the revision of ``view`` stands.

    Done when every replica the dials ask for is ready in its new form; older ones may still be draining.
    Raises ModelError when a replica of the new form cannot load its model, StartError when it keeps dying; not for
    the replicas in ``past``, whose failure was there before what is being waited for.
    """
    ready = wanted = 0
    trouble = ""
    for variant in view.service.spec.variants:
        dials = view.service.dials.variants.get(variant.name)
        digest = variant.digest
        count, epoch = (dials.replicas, dials.epoch) if dials else (0, 0)
        if view.service.canary is not None:
            count = min(count, view.service.canary.replicas)  # the others follow when it has passed its steps
        up = 0
        failed: LeptonError | None = None
        for replica in view.replicas:
            if replica.variant != variant.name or replica.digest != digest or replica.epoch < epoch:
                continue  # of an earlier revision, or from before a restart
            if replica.state == "ready":
                up += 1
            elif replica.state == "failed" or replica.reason == "start_timeout":
                said = f"{replica.id} {replica.reason}" + (f": {replica.detail}" if replica.detail else "")
                trouble = trouble or said
                if replica.id in past:
                    continue
                if replica.reason not in PASSING or replica.attempt >= PATIENCE:
                    failed = failed or cannot_start(view, replica.reason, said)
        if failed is not None and up == 0:
            raise failed
        ready += min(up, count)
        wanted += count
    text = f"{view.key}: {ready} of {wanted} ready" + (f" ({trouble})" if trouble and ready < wanted else "")
    return Progress(ready, wanted, text)


def cannot_start(view: ServiceView, reason: str, said: str) -> LeptonError:
    kind = StartError if reason in (*PASSING, "start_timeout") else ModelError
    away = "undo" if view.service.revision > 1 else "delete"
    hint = f"read `leptonai logs {view.key}`, then deploy a repaired model, or `leptonai {away} {view.key}`"
    return kind(
        f"revision {view.service.revision} of {view.key} cannot start: {said}",
        hint=hint,
        code=None if kind is StartError else reason,
        service=view.key,
        revision=view.service.revision,
    )


def verdict(view: ServiceView, history: Sequence[Revision], watched: int) -> Verdict | None:
    """How the rollout of revision ``watched`` ended; None while it is under way. ``history``: all revisions."""
    if view.service.revision == watched:
        if view.service.canary is not None:
            return None
        return Verdict(revision=watched, outcome="promoted", why="")
    after = next(r for r in history if r.number > watched)
    return Verdict(revision=watched, outcome="rolled back", why=after.why)
