"""What the edge process holds: ``GET /held`` on the socket that ``<home>/edge.json`` names."""

from __future__ import annotations

from pathlib import Path

import msgspec

from leptonai.errors import LeptonError
from leptonai.ops.http import Peer
from leptonai.ops.scale.meter import Held
from leptonai.types import Key


class Edge:
    """Nothing is held where no edge runs or it does not answer: a wake is then asked for by the edge itself."""

    def __init__(self, home: Path, timeout: float) -> None:
        self._note, self._timeout = home / "edge.json", timeout
        self._peer: Peer | None = None

    async def held(self) -> dict[Key, Held]:
        try:
            socket = str(msgspec.json.decode(self._note.read_bytes())["socket"])
            if self._peer is None or self._peer.address != f"unix:{socket}":
                self.close()
                self._peer = Peer(f"unix:{socket}")
            return msgspec.json.decode(await self._peer.get("/held", self._timeout), type=dict[str, Held])
        except (OSError, LeptonError, msgspec.MsgspecError, KeyError, TypeError):
            return {}

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None
