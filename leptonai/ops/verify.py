"""When a revision counts as verified-good: healthy long enough, over enough requests, with no label against it."""

from __future__ import annotations

from typing import Any

from leptonai.types import Noun, Service


class Trial(Noun, frozen=True, kw_only=True):
    """How the head revision has done since it last became whole. ``requests``: answered by its own digests."""

    revision: int
    since: float
    requests: float = 0.0


def advance(
    trial: Trial | None, service: Service, converged: bool, troubled: bool, requests: float, now: float
) -> Trial | None:
    """The trial after one more look; None while the revision is not whole, or an incident is open, or an SLO burns.

    A new revision and any trouble start it afresh: the requests of unhealthy times prove nothing.
    """
    if not converged or troubled:
        return None
    if trial is None or trial.revision != service.revision:
        return Trial(revision=service.revision, since=now)
    return Trial(revision=trial.revision, since=trial.since, requests=trial.requests + requests)


def passed(trial: Trial | None, service: Service, convicted: bool, now: float) -> dict[str, Any] | None:
    """The terms of the decision when the trial is passed, else None. No requests are never a pass."""
    rollout = service.spec.rollout
    if trial is None or convicted or trial.requests <= 0:
        return None
    seconds = now - trial.since
    if seconds < rollout.verify_seconds or trial.requests < rollout.verify_requests:
        return None
    return {
        "healthy_seconds": round(seconds, 1),
        "needed_seconds": rollout.verify_seconds,
        "requests": round(trial.requests),
        "needed_requests": rollout.verify_requests,
    }
