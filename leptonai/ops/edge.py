"""What edges do, read on the sockets that ``<home>/edge.json`` names: what they hold, how requests ended."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import msgspec

from leptonai.errors import LeptonError
from leptonai.ops.counters import Counters
from leptonai.ops.exposition import parse
from leptonai.ops.http import Peer
from leptonai.ops.scale.meter import Held
from leptonai.types import Key, Signal

HELD, STALE, REFUSED = "held_count", "stale_answers_per_second", "held_refused_per_second"
_OUTCOMES = {"stale": STALE, "full": REFUSED, "timed_out": REFUSED, "refused": REFUSED, "lost": REFUSED}


class _Note(msgspec.Struct):
    """``<home>/edge.json``: of the edge beside us, or of those in pods."""

    socket: str = ""
    sockets: tuple[str, ...] = ()


class Edge:
    """All edges together. Nothing is held where none runs or answers: a wake is then asked for by the edge itself."""

    def __init__(self, home: Path, timeout: float) -> None:
        self._note, self._timeout = home / "edge.json", timeout
        self._peers: dict[str, Peer] = {}
        self._counters: dict[str, Counters] = {}
        self._asked: dict[str, float] = {}  # when the counters of each were read last
        self._told: set[tuple[Key, str]] = set()  # what was above zero then

    async def held(self) -> dict[Key, Held]:
        found: dict[Key, Held] = {}
        for _, page in await self._pages("/held"):
            try:
                told = msgspec.json.decode(page, type=dict[str, Held])
            except msgspec.MsgspecError:
                continue
            for key, one in told.items():
                here = found.get(key)
                found[key] = one if here is None else _both(here, one)
        return found

    async def signals(self, now: float) -> list[Signal]:
        """``held_count``, and since the answer before ``stale_answers_per_second`` and ``held_refused_per_second`` (too
        many or too long held, nobody to wait for, lost under way), of each service of which one is above zero or was
        the last time; an edge has little to do, and most services none of it. [] when none answers."""
        values: defaultdict[tuple[Key, str], float] = defaultdict(float)
        pages = await self._pages("/metrics")
        if not pages:
            return []
        for address, page in pages:
            seconds, self._asked[address] = now - self._asked.get(address, now), now
            shown: dict[tuple[Key, str, str], float] = {}
            lines = page.decode("utf-8", "replace").splitlines()
            for name, labels, value in parse("\n".join(x for x in lines if not x.endswith(" 0"))):
                service = labels.get("service", "")
                if name == "leptonai_edge_held":
                    values[service, HELD] += value
                elif name == "leptonai_edge_requests_total" and labels.get("outcome") in _OUTCOMES:
                    shown[service, labels["variant"], labels["outcome"]] = value
            for key, rise in self._counters.setdefault(address, Counters()).rise(shown.items()).items():
                if rise > 0 and seconds > 0 and isinstance(key, tuple):
                    values[key[0], _OUTCOMES[key[2]]] += rise / seconds
        told, self._told = self._told, set(values)
        return [
            Signal(name=name, labels={"service": service}, at=now, value=values.get((service, name), 0.0))
            for service, name in sorted(told | values.keys())
        ]

    async def _pages(self, path: str) -> list[tuple[str, bytes]]:
        """Of each edge that answers, with where it is."""
        try:
            note = msgspec.json.decode(self._note.read_bytes(), type=_Note)
        except (OSError, msgspec.MsgspecError):
            return []
        wanted = [a for a in (*note.sockets, note.socket) if a]
        for gone in self._peers.keys() - set(wanted):
            self._peers.pop(gone).close()
            self._counters.pop(gone, None)
            self._asked.pop(gone, None)
        for new in [a for a in wanted if a not in self._peers]:
            self._peers[new] = Peer(new)
        pages = await asyncio.gather(*(self._get(peer, path) for peer in self._peers.values()))
        return [(address, page) for address, page in zip(self._peers, pages, strict=True) if page is not None]

    async def _get(self, peer: Peer, path: str) -> bytes | None:
        try:
            return await peer.get(path, self._timeout)
        except (OSError, LeptonError):
            return None

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()


def _both(a: Held, b: Held) -> Held:
    return Held(held=a.held + b.held, oldest=max(a.oldest, b.oldest))
