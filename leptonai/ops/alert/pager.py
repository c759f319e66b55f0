"""Alerts in the loop of ops: what holds becomes alerts, who must know is told.

The order is Alertmanager's: inhibit, silence, wait, dedup, retry, log. Deciding is pure (``state``, ``inhibit``,
``match``, ``group``, ``escalate``); this is the hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from leptonai.client.wire import Desk
from leptonai.errors import LeptonError
from leptonai.ops.alert.escalate import escalate
from leptonai.ops.alert.export import Exporter
from leptonai.ops.alert.group import Group, Notification, audience, delivered, dispatch, given_up
from leptonai.ops.alert.inhibit import inhibited, upstreams
from leptonai.ops.alert.match import silenced, spent
from leptonai.ops.alert.route import compile_policy
from leptonai.ops.alert.send import deliver
from leptonai.ops.alert.sender import Deliver, Outcome, Sender
from leptonai.ops.alert.sources import all_conditions
from leptonai.ops.alert.state import Condition, advance
from leptonai.ops.control import Control
from leptonai.ops.slo import BurnState
from leptonai.settings import Settings
from leptonai.types import Alert, Incident, Key, Noun

log = logging.getLogger(__name__)
ASK = 2.0  # seconds between two questions for silences and acknowledgements
FORGET_HOST = 86400.0  # seconds a host is missed; after a day it is taken for gone
MOST_UNSAID = 1000  # events that wait for control


class Kept(Noun, frozen=True, kw_only=True):
    """What survives a restart of ops, in ``<home>/alerts.json``: nobody is told the same twice for it."""

    alerts: dict[str, Alert] = {}
    groups: dict[str, Group] = {}
    called: frozenset[str] = frozenset()  # escalation steps taken
    hosts: dict[str, float] = {}  # workspace/name -> when its agent was heard last
    muting: frozenset[int] = frozenset()  # silences that have muted something


class Pager:
    """``step`` once a round. SpecError at once when the settings of alerts are wrong."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        path: Path | None,
        mask: Callable[[str], str],
        host: str = "",
        deliver: Deliver = deliver,
    ) -> None:
        """``path`` None: nothing is kept. ``mask`` goes over all that is sent. ``host``: where all services run."""
        self.kept = _read(path)
        self.desk = Desk()
        self.exporter = Exporter(settings.alertmanager)
        self.sender = Sender(settings.alerts, deliver, mask)
        self._settings, self._control, self._path, self._host = settings.alerts, control, path, host
        self._policy = compile_policy(settings.alerts)
        self._asked = float("-inf")
        self._saved = self.kept
        self._unsaid: list[tuple[str, str, dict[str, Any]]] = []

    @property
    def alerts(self) -> list[Alert]:
        """Firing first, then pending, then what is over; the newest first."""
        order = {"firing": 0, "pending": 1, "resolved": 2}
        acks = {ack.incident: ack.by for ack in self.desk.acks}
        called: dict[str, int] = {}  # the last escalation step taken, by fingerprint
        for name, step in (mark.split(" ") for mark in self.kept.called):
            called[name] = max(called.get(name, -1), int(step))
        shown = [
            replace(
                audience(name, alert, self.kept.groups, self._policy, self._settings, called.get(name, -1)),
                acked=acks.get(alert.incident, ""),
            )
            for name, alert in self.kept.alerts.items()
        ]
        return sorted(shown, key=lambda a: (order[a.state], -a.since))

    async def step(
        self,
        now: float,
        incidents: Sequence[Incident],
        burns: Mapping[Key, tuple[Sequence[BurnState], bool]],
        calls: Callable[[], Sequence[tuple[str, str]]] = lambda: (),
        hosts: Mapping[str, float] | None = None,
    ) -> None:
        """One round. ``burns``: per service, and whether it is expected to answer. ``calls`` gives (caller, callee)
        pairs and is asked only while something critical fires. Waits for control only, never for a receiver."""
        if now - self._asked >= ASK:
            self.desk = await self._control.desk()
            self._asked = now
        known = {i.id: i for i in (*self.desk.external, *incidents)}
        heard = {**self.kept.hosts, **(hosts or {})}
        heard = {name: at for name, at in heard.items() if now - at < FORGET_HOST}
        s = self._settings
        holding = all_conditions(list(known.values()), burns, heard, now, s.hold, s.host_silent, self._host)
        self.decide(now, holding, calls, heard)
        self.exporter.step(self.kept.alerts, now)
        for outcome in self.sender.step(now):
            self._tell(outcome)
        self._save()
        await self._end_silences(now)
        await self._say()

    def decide(
        self,
        now: float,
        holding: Sequence[Condition],
        calls: Callable[[], Sequence[tuple[str, str]]],
        hosts: Mapping[str, float],
    ) -> list[Notification]:
        """Alerts, groups and escalations at ``now``; the messages that are due are handed to the sender."""
        s, before = self._settings, self.kept
        alerts = advance(before.alerts, holding, now, s)
        worst = any(a.state == "firing" and a.labels.get("severity") == "critical" for a in alerts.values())
        why = inhibited(alerts, self._policy.rules, upstreams(calls()) if worst else {})
        muting = {*before.muting} & {silence.id for silence in self.desk.silences}
        for name, alert in alerts.items():
            quiet = silenced(alert, self.desk.silences, now)
            if quiet is not None:
                muting.add(quiet.id)
            muted = why.get(name) or (f"silence {quiet.id}" if quiet else "")
            # Who was not told of an alert is not told of its end, either.
            alerts[name] = replace(alert, muted=alert.muted or muted if alert.state == "resolved" else muted)
        groups, messages = dispatch(before.groups, alerts, self._policy, s, now)
        called, calls_out = escalate(before.called, alerts, self.desk.acks, s, now)
        self.kept = Kept(alerts=alerts, groups=groups, called=called, hosts=dict(hosts), muting=frozenset(muting))
        for message in (*messages, *calls_out):
            self.sender.put(message)
        return [*messages, *calls_out]

    async def close(self) -> None:
        self._save()
        await self.sender.close()
        await self.exporter.close()

    def _tell(self, outcome: Outcome) -> None:
        sent = outcome.notification
        if sent.group and (not outcome.error or outcome.next is None):
            after = given_up if outcome.error else delivered
            self.kept = replace(self.kept, groups=after(self.kept.groups, sent))
        workspace, service = sent.labels.get("workspace", ""), sent.labels.get("service", "")
        subject = (service if workspace in ("", "default") else f"{workspace}/{service}") if service else "alerts"
        detail = {
            "receiver": sent.receiver,
            "why": sent.why,
            "labels": sent.labels,
            "firing": [a.labels.get("alertname", "") for a in sent.firing],
            "resolved": [a.labels.get("alertname", "") for a in sent.resolved],
            "attempt": outcome.attempt,
            "seconds": round(outcome.seconds, 3),
        }
        kind = "notification.sent"
        if outcome.error:
            kind = "notification.failed" if outcome.next is not None else "notification.given_up"
            detail |= {"error": outcome.error, "next": outcome.next}
            log.warning("%s could not be told (try %d): %s", sent.receiver, outcome.attempt, outcome.error)
        self._unsaid = [*self._unsaid[-MOST_UNSAID:], (kind, subject, detail)]

    async def _end_silences(self, now: float) -> None:
        for silence in self.desk.silences:
            if spent(silence, self.kept.alerts.values(), silence.id in self.kept.muting, now):
                await self._control.end_silence(silence.id)
                self._asked = float("-inf")

    async def _say(self) -> None:
        while self._unsaid:
            kind, subject, detail = self._unsaid[0]
            try:
                await self._control.record(kind, subject, detail)
            except LeptonError as e:
                if e.retry:
                    return  # control is back within seconds
                log.warning("%s of %s could not be recorded: %s", kind, subject, e.message)
            del self._unsaid[0]

    def _save(self) -> None:
        if self._path is None or _gist(self.kept) == _gist(self._saved):
            return
        fresh = self._path.with_suffix(".json.new")
        try:
            fresh.write_bytes(msgspec.json.encode(self.kept))
            fresh.replace(self._path)
            self._saved = self.kept
        except OSError as e:
            log.warning("%s cannot be written: %s", self._path, e)


def _gist(kept: Kept) -> object:
    """What is worth a write: not that a condition still holds, nor each sign of life of a host."""
    return (
        {name: (a.state, a.labels, a.muted, a.fired) for name, a in kept.alerts.items()},
        {name: (g.told, g.members) for name, g in kept.groups.items()},
        kept.called,
        sorted(kept.hosts),
        kept.muting,
    )


def _read(path: Path | None) -> Kept:
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept) if path else Kept()
        return replace(kept, groups={name: replace(g, sending=None) for name, g in kept.groups.items()})
    except FileNotFoundError:
        return Kept()
    except (OSError, msgspec.MsgspecError) as e:
        log.warning("%s cannot be read, alerts begin anew: %s", path, e)
        return Kept()
