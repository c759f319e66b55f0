"""What the answers of a replica and its exit mean. Pure: what was seen and when goes in, a state comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

from leptonai.platforms.local import launch
from leptonai.platforms.local.process import Ending
from leptonai.settings import Local
from leptonai.types import State

STARVED_AT_MOST = 10  # times hung_after: silent for longer it is of no use to anybody, whatever the reason
LOAD_FAILED = 8  # the runtime's exit code when a model does not load; failure.json says why


class Health(NamedTuple):
    state: State
    reason: str
    detail: str
    since: float  # of the state
    attempt: int  # consecutive crashes before this start; 0 once it has been ready for ``stable_after``
    answered: float  # when its last good answer came (or it started)
    misses: int = 0  # answers in a row that were bad or did not come


def starting(now: float, attempt: int) -> Health:
    return Health("starting", "loading", "", now, attempt, now)


def answered(health: Health, ok: bool, detail: str, now: float, local: Local, starved: float = 0.0) -> Health:
    """The health after one probe. ``starved``: seconds since its last good answer in which it, or we, had work to do
    and no processor to do it on.

    A replica is ready from its first good answer. A ready one is hung when for ``hung_after`` seconds, starved ones
    not counted, no good answer came and at least two probes missed: one late answer may be our own loop's fault. What
    a busy machine keeps from running is not hung: to end it would cost a healthy replica and help nobody. A hung one
    that answers is ready again. Starting and stopping are left by an answer and by an exit only.
    """
    if health.state == "stopping" or (health.state == "failed" and health.reason != "hung"):
        return health
    if ok:
        if health.state != "ready":
            return Health("ready", "", "", now, health.attempt, now)
        stable = now - health.since >= local.stable_after
        return health._replace(answered=now, misses=0, attempt=0 if stable else health.attempt)
    health = health._replace(misses=health.misses + 1)
    if health.state == "starting":
        return health._replace(detail=detail)
    silent = now - health.answered
    over = silent - starved >= local.hung_after or silent >= STARVED_AT_MOST * local.hung_after
    if health.state == "ready" and health.misses >= 2 and over:
        waited = f" ({starved:.1f} s of them without a processor)" if starved >= 0.1 else ""
        return health._replace(
            state="failed", reason="hung", detail=f"not ready for {silent:.1f} s{waited}: {detail}", since=now
        )
    return health


def ended(
    health: Health, ending: Ending, now: float, failure: dict[str, Any] | None, over: int, last_line: str
) -> Health:
    """The health of a replica whose process has ended. ``over``: its memory limit when it was killed for that."""
    reason, detail = "exited", f"the process ended by itself with {ending.text}"
    if over:
        reason, detail = "oom", f"killed for using more than its {over / (1 << 20):.0f} MiB of memory"
    elif failure is not None and ending.code in (LOAD_FAILED, None):
        reason, detail = str(failure.get("code", "load_failed")), str(failure.get("error", "the model does not load"))
    elif ending.signal is not None:
        reason, detail = "killed", f"killed by {ending.text}"
    elif ending.code == launch.FAILED:
        reason, detail = "launch_failed", last_line or "the launcher failed"
    elif ending.code and last_line:
        detail += f"; its last line: {last_line}"
    attempt = health.attempt
    return Health("failed", reason, detail[:500], now, attempt, health.answered, health.misses)


def hung_or_stopped(health: Health, stopped: bool) -> bool:
    """Whether waiting for it to finish its requests is pointless."""
    return stopped or health.reason == "hung"
