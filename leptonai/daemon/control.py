"""The control process: store, door, platform, reconcile loop and API in one event loop. The store's only writer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette

from leptonai import settings as setting
from leptonai.admit import Door, bootstrap
from leptonai.admit.switch import Switch
from leptonai.api import create_app
from leptonai.api.callers import secret_sha256
from leptonai.api.wishes import Wishes
from leptonai.client.home import Home, read_json, read_token
from leptonai.daemon import ground
from leptonai.daemon.declared import follow
from leptonai.daemon.led import led
from leptonai.daemon.seats import Seats
from leptonai.daemon.spawn import SUPERVISED, open_log, spawn
from leptonai.daemon.standby import PERIOD, Relay, stop_ops
from leptonai.errors import Conflict, LeptonError, PlatformError
from leptonai.ops.alert.route import compile_policy
from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.platforms.local import LocalPlatform
from leptonai.serve.idle import IdleLoop
from leptonai.serve.reconcile import Reconciler
from leptonai.settings import Settings
from leptonai.store import Artifacts, Store
from leptonai.types import DialChange, Key, Role, Service

log = logging.getLogger("leptonai.control")
SEAT_PATIENCE = 5.0  # seconds for a control that is ending to leave its seat
FOLLOW_PERIOD = 1.0  # seconds between two looks at the wishes while another copy leads
TIDY_PERIOD = 600.0  # seconds between two looks for what is past its time
TIDY_AGAIN = 1.0  # seconds, while there is more to drop than one look may
EXPIRE_PERIOD = 5.0  # seconds between looks at proposals that nobody approved
COLLECT_PERIOD = 3600.0  # seconds between looks for models that no revision and no pending proposal names
WATCH_PERIOD = 0.5  # seconds between looks whether the store is still ours
UPLOAD_GRACE = 86400.0  # seconds that an upload may wait for its proposal


class Server(uvicorn.Server):
    """Signals are ours: the platform must be let go of before the process ends."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(home: Home) -> int:
    """Serve until SIGTERM; 0 then, or when another control sits on this home. Why it could not start is in the home."""
    open_log(home, "control")
    try:
        uvloop.run(main(home))
    except Conflict as e:
        if e.code != "seat":
            return refuse(home, e)
        log.info("%s", e)
    except LeptonError as e:
        return refuse(home, e)
    except OSError as e:
        return refuse(home, unusable(home, e))
    return 0


def refuse(home: Home, error: LeptonError) -> int:
    log.error("cannot start: %s", error.body())
    with contextlib.suppress(PlatformError):  # there may be no room even for saying so; the log was tried too
        write(home, "failure.json", msgspec.json.encode(error.body() | {"status": error.status}))
    return error.exit_code


def unusable(home: Home, error: OSError) -> PlatformError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return PlatformError(
        f"{error.filename or home.path} cannot be written: {error.strerror or error}",
        hint=f"free space under {home.path}, then try again" if full else f"see {home.logs / 'control.log'}",
        code="disk_full" if full else "home",
    )


async def main(home: Home) -> None:
    seats = Seats(home)
    await sit(seats)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    settings = setting.load(home.settings)
    compile_policy(settings.alerts)  # wrong routes are told by `leptonai up`, not when somebody should be called
    with listen(home, settings) as listener:
        store = await store_of_ours(home, seats, settings, listener, told)
        if store is not None:
            with store:
                await serve(home, seats, settings, store, listener, told)


async def store_of_ours(
    home: Home, seats: Seats, settings: Settings, listener: socket.socket, told: asyncio.Event
) -> Store | None:
    """The store, held. On a cluster, while another copy holds it, whoever asks us is led to that one; None when
    ``told`` to end meanwhile."""
    try:
        return open_store(home, settings)
    except Conflict as e:
        if (
            e.code != "store_locked"
            or not settings.store.url
            or not settings.kubernetes.enabled
            or SUPERVISED not in os.environ
        ):
            raise
        log.warning("%s: this copy stands by", e)
    await asyncio.to_thread(stop_ops, home, seats)
    relay = Relay(listener, settings)
    await relay.start()
    try:
        while not told.is_set():
            await relay.look()
            try:
                store = await asyncio.to_thread(open_store, home, settings)
            except LeptonError as e:
                if e.code != "store_locked":
                    log.warning("the store is not to be had: %s", e)
            else:
                log.warning("the store is free: this copy goes on with it")
                return store
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), PERIOD)
        return None
    finally:
        await relay.close()


def open_store(home: Home, settings: Settings) -> Store:
    """The store that the settings name.

    Conflict when that is an empty database, and this home has had another store: what runs would be taken down.
    """
    store = Store(settings.store.url or home.store, audit_keep=settings.store.audit_keep)
    if settings.store.url and home.store.exists() and not store.events(limit=1):
        store.close()
        raise Conflict(
            f"the store {store.place} is empty, and {home.store} is not: services would be gone",
            hint=f"leptonai store copy {home.store} URL, or move the file away to begin anew",
            code="store_empty",
        )
    return store


async def serve(
    home: Home, seats: Seats, settings: Settings, store: Store, listener: socket.socket, told: asyncio.Event
) -> None:
    admin = tokens(home, store)
    write(home, "identity", store.identity().encode() + b"\n")
    artifacts = Artifacts(home.artifacts)
    wishes = Wishes(store)
    host, port = listener.getsockname()[:2]

    def record(kind: str, subject: str, detail: dict[str, Any]) -> None:
        store.record(kind, subject, detail, actor="control", at=time.time())

    listeners: list[Callable[[Key], None]] = []

    def changed(key: Key) -> None:
        wishes.changed(key)
        reconciler.wake(key)
        for listener in listeners:
            listener(key)

    def evicted(key: Key, replicas: list[str]) -> None:
        store.drop_evicts(key, replicas)
        wishes.changed(key)

    def scale(change: DialChange, why: str) -> bool:
        actor = next(t for t in store.tokens() if t.name == "ops" and not t.revoked)
        return door.propose(change, actor, why, by="scaler").status == "admitted"

    def woken(key: Key) -> None:
        idle.woken(key)

    def noted(kind: str, subject: str, detail: dict[str, Any]) -> None:
        try:
            record(kind, subject, detail)
        except LeptonError as e:  # what the platform does must not fail for want of a record
            log.error("not recorded: %s of %s: %s", kind, subject, e)

    def services(now: float) -> list[Service]:
        # Processes of this machine are ours whatever becomes of the store. In a cluster somebody else may hold it by
        # now and act; pods that end are started again by their kubelet meanwhile.
        if settings.kubernetes.enabled:
            store.held()
        return wishes.services(now)

    platform = ground.platform(home, settings, noted, f"{reachable(host)}:{port}", woken)
    idle = IdleLoop(platform, services, scale)
    reconciler = Reconciler(platform, services, record, drop_evictions=evicted)
    switch = Switch(home.frozen)
    if isinstance(platform, KubernetesPlatform):
        # Models are in images, and a replica whose image lacks its model says so.
        door = Door(store, settings, on_change=changed, frozen=switch.said, fits=platform.fits)
    else:
        door = Door(store, settings, on_change=changed, artifacts=artifacts, frozen=switch.said)
    app = create_app(
        door,
        store,
        artifacts,
        platform,
        settings,
        wishes=wishes,
        clock=time.time,
        secret=admin.encode(),
        ops_socket=lambda: str((read_json(home.ops) or {}).get("socket") or "") or None,
        vault=home.path / "logs-store" / "vault.json",
        switch=switch,
        closed=lambda: ground.lead(platform).closed(),
    )
    mount_console(app)

    def forget() -> None:
        wishes.forget()
        app.state.world.callers.forget()

    await platform.start()
    resources = follow(platform, app.state.world, reconciler, noted)
    if resources is not None:
        listeners.append(resources.changed)
    server = Server(
        uvicorn.Config(
            app, loop="none", http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_keep_alive=60, timeout_graceful_shutdown=3, server_header=False,
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    acting = (
        reconciler.run,
        idle.run,
        lambda: expire(door),
        lambda: collect(store, artifacts),
        lambda: tidy(store, settings),
        *([resources.run] if resources is not None else []),
    )
    work = [
        asyncio.create_task(led(ground.lead(platform), acting, lambda: stand_by(platform, wishes))),
        asyncio.create_task(keep_parent(home, seats)),
        asyncio.create_task(watch(store, forget)),
    ]
    try:
        await server.up.wait()
        url = f"http://{reachable(host)}:{port}"
        gateway = platform.describe()["gateway"]["url"]
        known = {"url": url, "pid": os.getpid(), "started": time.time(), "gateway": gateway}
        write(home, "control.json", msgspec.json.encode(known))
        home.failure.unlink(missing_ok=True)
        record("control.started", "platform", {"pid": os.getpid(), "url": url})
        log.info("control answers at %s, the gateway at %s", url, gateway)
        stop = asyncio.create_task(told.wait())
        done, _ = await asyncio.wait([serving, stop, *work], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stop}:
            log.critical("a loop of control ended", exc_info=task.exception())
    finally:
        server.should_exit = True
        for task in work:
            task.cancel()
        await asyncio.gather(serving, *work, return_exceptions=True)
        await app.state.world.signals.close()
        await platform.close()
        log.info("control ends")


async def sit(seats: Seats) -> None:
    deadline = time.monotonic() + SEAT_PATIENCE
    while not seats.take("control"):
        if time.monotonic() > deadline:
            pid = seats.holder("control")
            raise Conflict(f"control of {seats.home.path} runs already, pid {pid}", hint="leptonai status", code="seat")
        await asyncio.sleep(0.05)


def listen(home: Home, settings: Settings) -> socket.socket:
    """The API's socket. Port 0 is a free one, the same as last time when it is still free.

    Raises PlatformError ``port_taken`` naming the port.
    """
    host, port = settings.api.host, settings.api.port
    last = str((read_json(home.control) or {}).get("url", "")).rpartition(":")[2]
    wanted = [port] if port else [int(last), 0] if last.isdigit() else [0]
    for number in wanted:
        try:
            return socket.create_server((host, number), family=family(host), backlog=512)
        except OSError as e:
            if number == wanted[-1]:
                raise PlatformError(
                    f"the API's address {host}:{number} cannot be used: {e.strerror}",
                    hint="leptonai up --api-port 0 takes a free port; or set api.port in settings.yaml",
                    code="port_taken",
                    port=number,
                ) from e
    raise AssertionError("unreachable")


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def reachable(host: str) -> str:
    """An address that a process of this machine can connect to when we listen on ``host``."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{local}]" if ":" in local else local


def tokens(home: Home, store: Store) -> str:
    """The secret of the admin token; both token files of the home hold secrets that the store knows."""
    known = {t.secret_sha256 for t in store.tokens()}
    names: list[tuple[str, str, Role]] = [("token", "admin", "admin"), ("ops.token", "ops", "operator")]
    for file, name, role in names:
        secret = read_token(home.path / file)
        if secret is None or secret_sha256(secret) not in known:
            write(home, file, bootstrap(store, time.time(), name, role).encode() + b"\n")
    return read_token(home.token) or ""


def mount_console(app: Starlette) -> None:
    if importlib.util.find_spec("leptonai.console") is not None:
        from leptonai import console

        console.mount(app)


async def stand_by(platform: LocalPlatform | KubernetesPlatform, wishes: Wishes) -> None:
    """The gateway follows the wishes that another copy takes; nothing is done about them here."""
    while isinstance(platform, KubernetesPlatform):
        try:
            wishes.forget()
            platform.route(wishes.services(time.time()))
        except LeptonError as e:
            log.warning("wishes could not be read: %s", e)
        await asyncio.sleep(FOLLOW_PERIOD)
    await asyncio.Event().wait()


async def expire(door: Door) -> None:
    while True:
        await asyncio.sleep(EXPIRE_PERIOD)
        try:
            door.expire()
        except LeptonError as e:
            log.warning("proposals could not be looked at: %s", e)


async def collect(store: Store, artifacts: Artifacts) -> None:
    while True:
        await asyncio.sleep(COLLECT_PERIOD)
        try:
            gone = await asyncio.to_thread(artifacts.collect, store.models(), before=time.time() - UPLOAD_GRACE)
        except LeptonError as e:
            log.warning("models could not be collected: %s", e)
        else:
            log.info("%d models that nothing names were removed", len(gone))


async def tidy(store: Store, settings: Settings) -> None:
    """What is past its number or its age goes, a part at a time, so that nobody waits for it."""
    wanted = settings.store
    while True:
        try:
            gone = store.tidy(
                wanted.feedback_keep, wanted.proposal_keep, wanted.incident_keep, time.time() - wanted.keep
            )
        except LeptonError as e:
            log.warning("the store could not be tidied: %s", e)
            gone = {}
        await asyncio.sleep(TIDY_AGAIN if any(gone.values()) else TIDY_PERIOD)


async def watch(store: Store, forget: Callable[[], None]) -> None:
    """Ends when another platform has taken the store. ``forget`` is called when it was away: what was committed last
    may not be what was answered last. That it was full is an event once there is room.
    """
    session, full_since = store.session, 0.0
    while True:
        await asyncio.sleep(WATCH_PERIOD)
        if store.full is not None:
            full_since = relieve(store, full_since or time.time())
        try:
            store.held()
        except Conflict:
            raise
        except LeptonError:
            continue
        if store.session != session:
            session = store.session
            forget()


def relieve(store: Store, since: float) -> float:
    """0 once a store that was full since ``since`` has kept an event that says so, else ``since``."""
    now = time.time()
    with contextlib.suppress(LeptonError), store.relieved() as roomy:
        if roomy:
            store.record("store.full", "platform", {"since": since, "seconds": now - since}, actor="control", at=now)
            log.warning("there is room for the store again, after %.0f s", now - since)
            return 0.0
    return since


async def keep_parent(home: Home, seats: Seats) -> None:
    """When the parent is dead, a new one is started; it adopts us and ops. Nobody polls: the kernel tells."""
    loop = asyncio.get_running_loop()
    while SUPERVISED not in os.environ:
        pidfd = await asyncio.to_thread(seats.open_holder, "parent")
        if pidfd is None:
            log.warning("the parent is gone: starting a new one")
            await asyncio.to_thread(spawn, home, "parent", True)
            await asyncio.sleep(1.0)  # to sit down; a second one would leave again by itself
            continue
        gone = asyncio.Event()
        loop.add_reader(pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
    await asyncio.Event().wait()


def write(home: Home, name: str, content: bytes) -> None:
    """The file of the home is whole and readable by its owner alone, also after a crash in the middle.

    Raises PlatformError, ``disk_full`` when there is no room; what was there before stays.
    """
    target = home.path / name
    fresh = target.with_name(f".{name}.{os.getpid()}")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    except OSError as e:
        fresh.unlink(missing_ok=True)
        e.filename = str(target)
        raise unusable(home, e) from e
