"""Sends notifications in the background: retries with back-off, rate limits, one at a time per receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from leptonai.ops.alert.group import Notification
from leptonai.ops.alert.message import Message, compose
from leptonai.settings import Alerts, Receiver
from leptonai.types import Noun

MOST_WAITING = 200  # messages of one receiver; past it the oldest goes, told as given up
Deliver = Callable[[Sequence[str], Message, float], Coroutine[Any, Any, dict[int, str]]]


class Outcome(Noun, frozen=True, kw_only=True):
    """What became of one try. ``error`` "": everybody has it. ``next`` None: it is not tried again."""

    notification: Notification
    attempt: int
    seconds: float
    error: str = ""
    next: float | None = None


@dataclass
class Waiting:
    notification: Notification
    urls: tuple[str, ...]  # that do not have it yet
    due: float
    attempt: int = 0
    begun: float = 0.0


class Sender:
    """``step`` never waits: it collects what has ended and starts what is due. ``mask`` goes over all that is sent."""

    def __init__(self, settings: Alerts, deliver: Deliver, mask: Callable[[str], str]) -> None:
        self._settings, self._deliver, self._mask = settings, deliver, mask
        self._receivers = {r.name: r for r in settings.receivers}
        self._waiting: dict[str, dict[str, Waiting]] = {r.name: {} for r in settings.receivers}
        self._running: dict[str, tuple[str, Waiting, asyncio.Task[dict[int, str]]]] = {}
        self._allowed = {r.name: (max(1.0, r.per_minute), float("-inf")) for r in settings.receivers}
        self._numbers = 0
        self._lost: list[Outcome] = []

    def __len__(self) -> int:
        """Messages that wait or are on their way."""
        return sum(map(len, self._waiting.values())) + len(self._running)

    def put(self, notification: Notification) -> None:
        """Take a message; one of the same group that still waits is replaced by it: it says all that one said."""
        receiver = self._receivers.get(notification.receiver)
        if receiver is None or not receiver.urls:
            return
        self._numbers += 1
        waiting = self._waiting[receiver.name]
        key = notification.group or f"#{self._numbers}"
        waiting.pop(key, None)
        while len(waiting) >= MOST_WAITING:
            old = waiting.pop(next(iter(waiting)))
            why = f"{MOST_WAITING} messages wait for {receiver.name}"
            self._lost.append(Outcome(notification=old.notification, attempt=old.attempt, seconds=0.0, error=why))
        waiting[key] = Waiting(notification, receiver.urls, due=notification.made)

    def step(self, now: float) -> list[Outcome]:
        """What has ended since the last step; what is due and allowed is on its way afterwards."""
        out, self._lost = self._lost, []
        for name, (key, item, task) in list(self._running.items()):
            if task.done():
                del self._running[name]
                out.append(self._ended(name, key, item, task.result(), now))
        for name, waiting in self._waiting.items():
            due = [(key, item) for key, item in waiting.items() if item.due <= now]
            if due and name not in self._running and self._may(self._receivers[name], now):
                key, item = due[0]
                del waiting[key]
                item.attempt += 1
                item.begun = now
                said = compose(item.notification)
                message = Message(title=self._mask(said.title), body=self._mask(said.body), severity=said.severity)
                task = asyncio.create_task(self._deliver(item.urls, message, self._settings.send_timeout))
                self._running[name] = key, item, task
        return out

    async def close(self) -> None:
        """Stop sending; what is on its way is broken off."""
        tasks = [task for _, _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, name: str, key: str, item: Waiting, failed: dict[int, str], now: float) -> Outcome:
        took, s = now - item.begun, self._settings
        if not failed:
            return Outcome(notification=item.notification, attempt=item.attempt, seconds=took)
        error = self._mask("; ".join(failed.values()))
        again = now + min(s.send_max, s.send_first * 2.0 ** min(item.attempt - 1, 30))
        # A newer message of the group says it all; one that is too old is news no more.
        keep = key not in self._waiting[name] and again - item.notification.made <= s.send_give_up
        if keep:
            item.urls, item.due = tuple(item.urls[n] for n in sorted(failed)), again
            self._waiting[name][key] = item
        return Outcome(
            notification=item.notification,
            attempt=item.attempt,
            seconds=took,
            error=error,
            next=again if keep else None,
        )

    def _may(self, receiver: Receiver, now: float) -> bool:
        """A token bucket: a minute's worth may come at once."""
        tokens, at = self._allowed[receiver.name]
        full = max(1.0, receiver.per_minute)
        tokens = full if at == float("-inf") else min(full, tokens + (now - at) * receiver.per_minute / 60.0)
        fine = tokens >= 1.0
        self._allowed[receiver.name] = (tokens - 1.0 if fine else tokens), now
        return fine
