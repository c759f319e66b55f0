"""The wishes in memory: read once, again after a change or when a dial expires. Idle callers cost no query."""

from __future__ import annotations

import math
from typing import NamedTuple

from leptonai.errors import NotFound
from leptonai.store import Store
from leptonai.types import Key, Service


class Wish(NamedTuple):
    service: Service
    verified: int | None  # the newest revision found good
    until: float  # when a dial expires and the wish must be read again


class Wishes:
    """``changed`` must be called after every change that the door admits or that marks a revision as verified.

    Any thread may call anything: the store's own lock is the only one, so that no two can wait for each other.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: dict[Key, Wish] = {}
        self._whole = False
        self._changed: set[Key] = set()
        self._until = math.inf

    def changed(self, key: Key) -> None:
        with self._store.alone():
            self._changed.add(key)

    def forget(self) -> None:
        """All is read anew when it is asked for next."""
        with self._store.alone():
            self._whole = False

    def all(self, now: float) -> list[Wish]:
        """Every live wish at ``now``, ordered by key."""
        with self._store.alone():
            return self._read(now)

    def _read(self, now: float) -> list[Wish]:
        if not self._whole or now >= self._until:
            self._cached = {s.key: self._wish(s, now) for s in self._store.services(now)}
            self._whole = True
        elif self._changed:
            for key in self._changed:
                service = self._store.service(key, now)
                if service is None:
                    self._cached.pop(key, None)
                else:
                    self._cached[key] = self._wish(service, now)
            self._cached = dict(sorted(self._cached.items()))
        else:
            return list(self._cached.values())
        self._changed.clear()
        self._until = min((w.until for w in self._cached.values()), default=math.inf)
        return list(self._cached.values())

    def services(self, now: float) -> list[Service]:
        return [wish.service for wish in self.all(now)]

    def get(self, key: Key, now: float) -> Wish:
        """Raises NotFound naming the services there are."""
        self.all(now)
        if key not in self._cached:
            known = ", ".join(self._cached) or "none"
            raise NotFound(f"no service {key!r}", hint=f"there are: {known}; `leptonai ls` shows them")
        return self._cached[key]

    def _wish(self, service: Service, now: float) -> Wish:
        verified = self._store.last_verified(service.key)
        expiries = [d.expires for d in self._store.dials(service.key) if d.expires is not None and d.expires > now]
        return Wish(service, verified.number if verified else None, min(expiries, default=math.inf))
