"""What the platform says to a running pod and hears from it: batching, faults, and the log of its predictions.

Over TCP, with the secret that pods and platform share. A platform that cannot reach pods (outside of the cluster's
network) goes without: nothing is tuned and no predictions are read, while pods serve as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import orjson

from leptonai.errors import PlatformError
from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.types import Tuning

PERIOD = 1.0  # seconds between two looks, as operations collects
TIMEOUT = 2.0
FRESH = 2.5  # seconds for which a good answer stands: two looks and a half
FILES = 2  # of predictions kept of each pod, as the replica keeps


class _Told(msgspec.Struct):
    """Of the answer to ``/-/ready``, what is wanted here."""

    tuning: Tuning | None = None
    cost: tuple[float, float] | None = None


class Orders:
    """``tuning``, ``cost``: as the replica said last; None before."""

    def __init__(self, address: str, secret: str, folder: Path) -> None:
        """``folder``: where files of predictions are kept, as a replica of this machine keeps them."""
        self.tuning: Tuning | None = None
        self.cost: tuple[float, float] | None = None
        self.address = address
        self._ready_at = float("-inf")
        self._client = UnixClient(address, f"authorization: Bearer {secret}")
        self._folder = folder
        self._place = self._known()

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            with contextlib.suppress(Unanswered, msgspec.DecodeError, OSError):
                answer = await self._client.request("GET", "/-/ready", TIMEOUT)
                told = msgspec.json.decode(answer.body, type=_Told)
                if answer.status == 200:
                    self._ready_at = time.monotonic()
                self.tuning, self.cost = told.tuning, told.cost
                while await self._fetch():
                    pass
            await asyncio.sleep(PERIOD)

    @property
    def answers(self) -> bool:
        """Whether it said of late that it is ready."""
        return time.monotonic() - self._ready_at <= FRESH

    def close(self) -> None:
        self._client.close()

    async def tune(self, tuning: Tuning) -> bool:
        """Whether the replica follows from now on."""
        with contextlib.suppress(Unanswered):
            answer = await self._client.request("PUT", "/-/batching", TIMEOUT, msgspec.json.encode(tuning))
            if answer.status == 200:
                self.tuning = tuning
                return True
        return False

    async def fault(self, kind: str, amount: float, heal_after: float) -> None:
        """In force when this returns. PlatformError when the replica refuses or does not answer."""
        body: dict[str, Any] = {"kind": kind, "amount": amount, "heal_after": heal_after}
        try:
            answer = await self._client.request("POST", "/-/fault", 5.0, orjson.dumps(body))
        except Unanswered as e:
            raise PlatformError(
                f"the pod at {self.address} does not take orders: {e}",
                hint="the platform must reach the addresses of pods: run it in the cluster",
            ) from e
        if answer.status >= 300:
            raise PlatformError(f"the replica refuses {body}: {answer.body.decode(errors='replace')[:300]}")

    async def _fetch(self) -> bool:
        """Take over what the log of predictions has got since; whether there may be more."""
        number, offset = self._place
        answer = await self._client.request("GET", f"/-/predictions?after={number}:{offset}", TIMEOUT)
        if answer.status != 200:
            return False
        head, _, content = answer.body.partition(b"\n")
        place = orjson.loads(head)
        if not content:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{int(place['file']):08d}.jsonl"
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(fd, content, int(place["offset"]) - len(content))
        finally:
            os.close(fd)
        self._place = int(place["file"]), int(place["offset"])
        for old in sorted(self._folder.glob("*.jsonl"))[:-FILES]:
            old.unlink(missing_ok=True)
        return True

    def _known(self) -> tuple[int, int]:
        """The place up to which an earlier platform has read."""
        files = sorted(self._folder.glob("*.jsonl"))
        return (int(files[-1].stem), files[-1].stat().st_size) if files else (0, 0)
