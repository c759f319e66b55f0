"""How replicas ended, read from what the platform says; and which of them do not answer us."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence

import msgspec

from leptonai.types import Event, Noun, Replica

# Between the last question that was answered and the newest that was not. That one has waited for its own time-out too,
# so with a question a second this is the platform's own limit (local.hung_after, 2 s).
SILENT_SECONDS = 1.5

_SIGNAL = re.compile(r"\bSIG[A-Z0-9]+\b")
_CODE = re.compile(r"exit code (\d+)")


class Exit(Noun, frozen=True, kw_only=True):
    """A replica that ended without having been asked to. ``attempt``: crashes in a row before this one."""

    replica: str
    digest: str
    at: float
    signal: int | None = None
    code: int | None = None
    reason: str = ""
    detail: str = ""
    attempt: int = 0

    @property
    def out_of_memory(self) -> bool:
        return self.reason == "oom"

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL and not self.out_of_memory


def exit_of_event(event: Event) -> Exit | None:
    """The exit that an audit event tells of; None for any other event, and for replicas that hang."""
    detail = event.detail
    reason = str(detail.get("reason", ""))
    if event.kind != "replica.failed" or reason == "hung":
        return None
    replica = str(detail.get("replica") or event.subject)
    attempt = detail.get("attempt")
    return _exit(
        replica,
        str(detail.get("digest", "")),
        event.at,
        reason,
        str(detail.get("detail", "")),
        attempt if isinstance(attempt, int) else 0,
    )


def exit_of_replica(replica: Replica) -> Exit | None:
    """The exit that a replica's state tells of; None while something of it runs or it is being stopped."""
    if not replica.gone:
        return None
    return _exit(replica.id, replica.digest, replica.since, replica.reason, replica.detail, replica.attempt)


def _exit(replica: str, digest: str, at: float, reason: str, detail: str, attempt: int) -> Exit:
    number = code = None
    if (found := _SIGNAL.search(detail)) and hasattr(signal, found[0]):
        number = int(getattr(signal, found[0]))
    elif reason == "killed":
        number = int(signal.SIGKILL)
    if found := _CODE.search(detail):
        code = int(found[1])
    return Exit(
        replica=replica, digest=digest, at=at, signal=number, code=code, reason=reason, detail=detail, attempt=attempt
    )


def as_seen(replicas: Sequence[Replica], unanswered: Mapping[str, float], now: float) -> tuple[Replica, ...]:
    """The replicas as we find them: one that the platform calls ready and that did not answer us is hung.

    When more than half of the ready ones of a service (and not a single one) are silent, it is the machine or our own
    clock, and the platform's word stands.
    """
    ready = [r for r in replicas if r.state == "ready"]
    out = []
    for replica in replicas:
        seconds = unanswered.get(replica.id, 0.0)
        if replica.state == "ready" and seconds >= SILENT_SECONDS:
            siblings = [r for r in ready if r.service == replica.service]
            silent = [r for r in siblings if unanswered.get(r.id, 0.0) >= SILENT_SECONDS]
            if len(siblings) == 1 or 2 * len(silent) <= len(siblings):
                detail = f"no answer to us for {seconds:.1f} s"
                replica = msgspec.structs.replace(
                    replica, state="failed", reason="hung", detail=detail, since=now - seconds
                )
        out.append(replica)
    return tuple(out)
