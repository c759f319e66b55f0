"""Holding the Lease of a namespace: the hand of ``lease``. What is not the leader changes nothing in the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leptonai.errors import Conflict, LeptonError, NotFound, PlatformError
from leptonai.platforms.kubernetes import lease
from leptonai.platforms.kubernetes.cluster import Cluster
from leptonai.platforms.kubernetes.lease import API, NAME, Held, Me, Standing
from leptonai.platforms.local.process import boot_id
from leptonai.platforms.local.rundir import write_atomically
from leptonai.settings import Settings

log = logging.getLogger(__name__)
_RELEASE_WITHIN = 3.0  # seconds that ending may wait for the Lease to be let go
_PATIENCE = 2.5  # renewals' time that one call may take: two may fail before the lead is lost
_KIND = "Lease"
ADDRESS = "LEPTONAI_ADDRESS"  # in the environment of control's pod: the pod's own


def boot_clock() -> float:
    """Seconds that go on while the machine is suspended, which ``time.monotonic`` does not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identity(home: Path) -> str:
    """Who holds: ``<host>_<12 hex>``, the same for every control that this kernel has on ``home``.

    Only one process sits on a home (``<home>/lock`` is a lock of the kernel), so the next one may go on with the Lease
    of one that was killed without waiting for it to run out.
    """
    folder = home.stat()
    digits = hashlib.sha256(f"{boot_id()} {folder.st_dev} {folder.st_ino}".encode()).hexdigest()[:12]
    return f"{socket.gethostname()}_{digits}"


def own_store(home: Path) -> str:
    """Which store's wishes a home holds: as control wrote it to ``<home>/identity``, else made now."""
    path = home / "identity"
    with contextlib.suppress(FileNotFoundError):
        if known := path.read_text().strip():
            return known
    fresh = secrets.token_hex(16)
    write_atomically(path, f"{fresh}\n".encode())
    return fresh


async def led(cluster: Cluster, home: Path, settings: Settings, control: str, occupied: Callable[[], bool]) -> Leader:
    """Who leads, or stands by; from here on ``cluster`` changes something only while it leads. As ``Leader.start``.

    ``control``: where our API answers, ``host:port``. ``occupied``: whether services run in the namespace.
    """
    wanted = settings.kubernetes
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    me = Me(identity(home), own_store(home), _reached(control, settings))
    own = Cluster(wanted.context, wanted.namespace, timeout=_PATIENCE * wanted.lease / lease.TRIES)
    leader = Leader(own, me, wanted.lease, occupied)
    try:
        await leader.start()
    except BaseException:
        await own.close()
        raise
    cluster.fence = leader.left
    return leader


def _reached(control: str, settings: Settings) -> str:
    """Where other copies reach our API; "": by which address is not known."""
    if not control:
        return ""
    if address := os.environ.get(ADDRESS, ""):
        return f"http://{f'[{address}]' if ':' in address else address}:{control.rpartition(':')[2]}"
    return "" if settings.api.host in ("0.0.0.0", "::") else f"http://{control}"


class Leader:
    """Whether this copy leads, kept true by ``run``."""

    def __init__(
        self,
        cluster: Cluster,
        me: Me,
        seconds: float,
        occupied: Callable[[], bool],
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        """``cluster``: its calls are for the Lease alone, so that no other can delay them. ``seconds``: of a lease."""
        self.me = me
        self._cluster, self._seconds, self._occupied, self._clock = cluster, seconds, occupied, clock
        self._standing = Standing()
        self._moved = asyncio.Event()
        self._trouble = ""

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        return self._standing.holds(self._clock())

    @property
    def holder(self) -> str:
        """Who the Lease names, as last seen; "" for nobody."""
        return self._standing.seen.holder if self._standing.seen else ""

    def left(self) -> float:
        """Seconds for which this copy may act without another renewal. Raises what ``refusal`` gives."""
        if not self.leads:
            raise self.refusal()
        return self._standing.until - self._clock()

    def closed(self) -> LeptonError | None:
        """Why no wish is taken here; None where one is.

        Another copy leads. While the API server is away nobody else writes our store: it takes wishes, and they are
        acted upon afterwards.
        """
        seen = self._standing.seen
        other = seen is not None and (seen.holder not in ("", self.me.identity) or seen.store != self.me.store)
        return self.refusal() if other and not self.leads else None

    def refusal(self) -> LeptonError:
        """Why this copy may not act, naming who leads."""
        seen, space = self._standing.seen, self._cluster.namespace
        if seen is not None and seen.holder and seen.holder != self.me.identity:
            where = f", at {seen.control}" if seen.control else ""
            if seen.store != self.me.store:
                return self._foreign(seen)
            return Conflict(
                f"{seen.holder} leads namespace {space}{where}; this copy ({self.me.identity}) stands by",
                hint="ask that one; this copy takes over when it ends or is not heard of any more",
                code="not_leading",
                holder=seen.holder,
                control=seen.control,
            )
        if seen is not None and seen.store != self.me.store and self._occupied():
            return self._foreign(seen)
        why = f": {self._trouble}" if self._trouble else ""
        return PlatformError(
            f"this copy ({self.me.identity}) does not lead namespace {space} now{why}",
            hint="it is tried again; what runs there keeps serving",
            code="not_leading",
            status=503,
            retry=True,
            retry_after=max(1.0, self._pause),
        )

    def _foreign(self, seen: Held) -> Conflict:
        space = self._cluster.namespace
        who = f"is led by {seen.holder}" if seen.holder else "holds the services of another platform"
        where = f" at {seen.control}" if seen.control else ""
        return Conflict(
            f"namespace {space} {who}{where}, whose wishes are others than this home's (last renewed {seen.renewed})",
            hint="use that platform (--host) or end it (leptonai down), or choose another kubernetes.namespace; "
            f"`kubectl -n {space} delete lease {NAME}` gives its services up, and this one removes them",
            code="other_platform",
            holder=seen.holder,
            control=seen.control,
        )

    def about(self) -> dict[str, Any]:
        """``standby``: another copy leads, or may; ``leads`` False without it: nobody is known to."""
        return {
            "identity": self.me.identity,
            "holder": self.holder,
            "leads": self.leads,
            "standby": self.closed() is not None,
            "trouble": "" if self.leads else self.refusal().message,
        }

    async def gained(self) -> None:
        """Returns when this copy leads."""
        while not self.leads:
            await self._until(None)

    async def lost(self) -> None:
        """Returns when it does not."""
        while self.leads:
            await self._until(self._standing.until)

    async def _until(self, moment: float | None) -> None:
        """Something may have changed, or it is ``moment``."""
        self._moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if moment is None else max(0.001, moment - self._clock())):
                await self._moved.wait()

    # --- what it does ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """This copy leads, or stands by for another of its store.

        Conflict ``other_platform`` when the wishes of another store hold in the namespace. Whether a holder lives is
        seen by its renewals, which may take a lease's time.
        """
        while True:
            act = await self._step()
            if act == "refuse":
                raise self.refusal()
            seen = self._standing.seen
            wait = act == "wait" and seen is not None and seen.holder != lease.UNKNOWN
            if self.leads or (wait and seen is not None and seen.store == self.me.store):
                return
            await asyncio.sleep(self._pause)

    async def run(self) -> None:
        """Renew, or try to take over, until cancelled. Nothing that the cluster does ends it."""
        led = self.leads
        while True:
            await asyncio.sleep(self._pause)
            try:
                await self._step()
                self._trouble = ""
            except LeptonError as e:
                self._trouble = e.message
            if led != self.leads:
                led = self.leads
                space = self._cluster.namespace
                log.warning("%s", f"this copy leads namespace {space}" if led else self.refusal().message)

    async def release(self, forget: bool = False) -> None:
        """Another copy may act at once. ``forget``: nothing of ours is left there, so that another store's may too."""
        seen, held = self._standing.seen, self.leads
        self._standing = self._standing._replace(until=-float("inf"))
        self._moved.set()
        if seen is None or not held:
            return
        with contextlib.suppress(LeptonError, TimeoutError):
            async with asyncio.timeout(_RELEASE_WITHIN):
                if forget:
                    await self._cluster.delete(API, _KIND, NAME)
                else:
                    wish = lease.let_go(self.me, self._cluster.namespace, seen, time.time())
                    await self._cluster.replace(wish)

    async def close(self) -> None:
        await self._cluster.close()

    @property
    def _pause(self) -> float:
        return self._seconds / lease.TRIES

    async def _step(self) -> str:
        """One look, unless the Lease is ours as last seen, and what follows from it."""
        if self._standing.seen is None or self.holder != self.me.identity:
            await self._look()
        act = lease.decide(self.me, self._standing, self._clock(), self._occupied())
        if act in ("take", "renew", "mark"):
            await self._write(act == "mark")
        self._moved.set()
        return act

    async def _look(self) -> None:
        found = await self._cluster.get(API, _KIND, NAME)
        held = None if found is None else lease.read(found)
        self._standing = lease.looked(self.me, self._standing, held, self._clock())

    async def _write(self, mark: bool) -> None:
        """The Lease is ours, or marked, if nobody changed it since it was seen; else it is looked at again."""
        before, space = self._standing.seen, self._cluster.namespace
        wish = (
            lease.mark(self.me, space, self._seconds, time.time())
            if mark
            else lease.spelled(self.me, space, self._seconds, before, time.time())
        )
        sent = self._clock()
        try:
            made = await (self._cluster.create(wish) if before is None else self._cluster.replace(wish))
        except (Conflict, NotFound):
            await self._look()
            return
        now, held = self._clock(), lease.read(made)
        self._standing = lease.looked(self.me, self._standing, held, now) if mark else lease.wrote(held, sent, now)
