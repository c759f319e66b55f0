"""What the edge process does, read on the socket that ``<home>/edge.json`` names: what it holds, how requests ended."""

from __future__ import annotations

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


class Edge:
    """Nothing is held where no edge runs or it does not answer: a wake is then asked for by the edge itself."""

    def __init__(self, home: Path, timeout: float) -> None:
        self._note, self._timeout = home / "edge.json", timeout
        self._peer: Peer | None = None
        self._counters = Counters()
        self._asked = 0.0  # when the counters were read last
        self._told: set[tuple[Key, str]] = set()  # what was above zero then

    async def held(self) -> dict[Key, Held]:
        try:
            return msgspec.json.decode(await self._get("/held"), type=dict[str, Held])
        except (OSError, LeptonError, msgspec.MsgspecError, KeyError, TypeError):
            return {}

    async def signals(self, now: float) -> list[Signal]:
        """``held_count``, and since the call before ``stale_answers_per_second`` and ``held_refused_per_second`` (too
        many or too long held, nobody to wait for, lost under way), of each service of which one is above zero or was
        the last time; an edge has little to do, and most services none of it. [] when it does not answer."""
        try:
            page = (await self._get("/metrics")).decode()
        except (OSError, LeptonError, msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError):
            return []
        values: defaultdict[tuple[Key, str], float] = defaultdict(float)
        shown: dict[tuple[Key, str, str], float] = {}
        for name, labels, value in parse("\n".join(x for x in page.splitlines() if not x.endswith(" 0"))):
            service = labels.get("service", "")
            if name == "leptonai_edge_held":
                values[service, HELD] += value
            elif name == "leptonai_edge_requests_total" and labels.get("outcome") in _OUTCOMES:
                shown[service, labels["variant"], labels["outcome"]] = value
        seconds, self._asked = now - self._asked, now
        for key, rise in self._counters.rise(shown.items()).items():
            if rise > 0 and seconds > 0 and isinstance(key, tuple):
                values[key[0], _OUTCOMES[key[2]]] += rise / seconds
        told, self._told = self._told, set(values)
        return [
            Signal(name=name, labels={"service": service}, at=now, value=values.get((service, name), 0.0))
            for service, name in sorted(told | values.keys())
        ]

    async def _get(self, path: str) -> bytes:
        socket = str(msgspec.json.decode(self._note.read_bytes())["socket"])
        if self._peer is None or self._peer.address != f"unix:{socket}":
            self.close()
            self._peer = Peer(f"unix:{socket}")
        return await self._peer.get(path, self._timeout)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None
