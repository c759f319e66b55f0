"""Bringing a platform up on a home folder and taking it down, from outside: what ``leptonai up`` and ``down`` do."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from leptonai import settings as setting
from leptonai.client import Client
from leptonai.client.home import Home, read_json
from leptonai.daemon.seats import NAMES, Seats
from leptonai.daemon.spawn import SUPERVISED, spawn
from leptonai.errors import Conflict, LeptonError, PlatformError, SpecError, StartError, from_body
from leptonai.settings import Settings
from leptonai.yaml import decode

START_PATIENCE = 60.0  # seconds: a cold disk may take long to import numpy and to unpack Envoy
STOP_PATIENCE = 15.0  # seconds for control and ops to let go, before they are killed
POLL = 0.05
ROOM = 4 << 20  # bytes: store, gateway files and logs of a fresh home take under 1 MiB
Say = Callable[[str], None]


class Up(NamedTuple):
    url: str
    gateway: str
    pid: int
    standby: str = ""  # why it changes nothing: another copy leads


class Down(NamedTuple):
    """What was stopped: process names, replica ids, and whether a gateway ran."""

    processes: list[str]
    replicas: list[str]
    gateway: bool


def prepare(
    home: Home,
    api_port: int | None = None,
    gateway_port: int | None = None,
    orphans: bool = False,
    on: str | None = None,
) -> Settings:
    """The home exists, for its owner alone, and its settings say what was given; returns them.

    Raises Conflict when a platform runs there, SpecError for bad settings, PlatformError ``port_taken``, ``disk_full``.
    ``orphans``: control without a parent is no conflict, because the caller will be its parent. ``on``: where replicas
    run, ``local`` or ``kubernetes``; None: as before.
    """
    try:
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise PlatformError(f"{home.path} cannot be made: {e.strerror}", hint="name another folder with --home") from e
    if (free := shutil.disk_usage(home.path).free) < ROOM:
        raise PlatformError(
            f"the disk of {home.path} has {free >> 10} KiB free; a platform needs {ROOM >> 10} KiB to start",
            hint=f"free space under {home.path}, or name another folder with --home",
            code="disk_full",
            retry=True,
        )
    seats = Seats(home)
    for name in ("parent",) if orphans else ("parent", "control"):
        if (pid := seats.holder(name)) is not None:
            url = (read_json(home.control) or {}).get("url", "an address it has not told yet")
            raise Conflict(
                f"a platform runs on {home.path} already, at {url} ({name}, pid {pid})",
                hint="`leptonai status` shows it; `leptonai down` stops it; --home names another folder",
                code="running",
            )
    settings = change_settings(home, api_port, gateway_port, on)
    if settings.api.port and seats.holder("control") is None:
        check_port(settings.api.host, settings.api.port)
    home.failure.unlink(missing_ok=True)
    return settings


def change_settings(home: Home, api_port: int | None, gateway_port: int | None, on: str | None = None) -> Settings:
    given = {"api": api_port, "gateway": gateway_port}
    settings = setting.load(home.settings)
    if all(port is None for port in given.values()) and on is None:
        return settings
    content: dict[str, Any] = {}
    if home.settings.exists():
        content = decode(home.settings.read_bytes()) or {}
    for section, port in given.items():
        if port is not None:
            content[section] = {**(content.get(section) or {}), "port": port}
    if on is not None:
        content["kubernetes"] = {**(content.get("kubernetes") or {}), "enabled": on == "kubernetes"}
    home.settings.write_bytes(msgspec.yaml.encode(content))
    return setting.load(home.settings)


def check_port(host: str, port: int) -> None:
    """Raises PlatformError ``port_taken`` when the API could not listen there."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return
    except OSError as e:
        raise PlatformError(
            f"the API's address {host}:{port} cannot be used: {e.strerror}",
            hint="another platform or program listens there; --api-port 0 takes a free port",
            code="port_taken",
            port=port,
        ) from e


def up(home: Home, say: Say = lambda text: None) -> Up:
    """A platform runs on the prepared home: control answers and the gateway is live.

    Raises what kept control from starting, after the parent was stopped again.
    """
    spawn(home, "parent", detach=True)
    return wait_up(home, time.monotonic() + START_PATIENCE, say)


def wait_up(home: Home, deadline: float, say: Say = lambda text: None) -> Up:
    seats = Seats(home)
    said = ""
    while True:
        failure = read_json(home.failure)
        if failure is not None:
            stop_processes(home)
            raise from_body(int(failure.pop("status", 500)), failure)
        state, running = look(home, seats.holder("control"))
        if running is not None:
            return running
        if state != said:
            say(state)
            said = state
        if time.monotonic() > deadline:
            stop_processes(home)
            raise StartError(
                f"the platform on {home.path} did not come up within {START_PATIENCE:g} s: {state}",
                hint=f"see {home.logs / 'control.log'}",
            )
        time.sleep(POLL)


def look(home: Home, holder: int | None) -> tuple[str, Up | None]:
    """How far a start is, in words, and where the platform answers once it does. ``holder``: control's pid."""
    known = read_json(home.control)
    if holder is None:
        return "starting control", None
    if known is None or known.get("pid") != holder:
        return "control starts the gateway", None
    try:
        with Client(str(known["url"]), home=home.path, timeout=2.0) as client:
            found = client.platform()
            gateway, leader = found["gateway"], found.get("leader") or {}
    except LeptonError:
        return "waiting for control to answer", None
    if not gateway.get("healthy"):
        return "waiting for the gateway", None
    standby = str(leader["trouble"]) if leader.get("standby") else ""
    return "up", Up(str(known["url"]), str(gateway["url"]), holder, standby)


def foreground(home: Home) -> int:
    """Be the parent of the prepared home until told to stop; replicas and gateway keep serving then."""
    from leptonai.daemon import parent

    home.logs.mkdir(mode=0o700, exist_ok=True)
    os.environ[SUPERVISED] = "1"  # whoever runs us in the foreground starts us again, control must not
    return parent.run(home)


def stop_processes(home: Home) -> list[str]:
    """Neither parent, control nor ops runs; returns the names of those that did. Replicas and gateway keep serving."""
    seats = Seats(home)
    stopped = [n for n in NAMES if seats.holder(n) is not None]
    deadline = time.monotonic() + STOP_PATIENCE
    while living := [n for n in NAMES if seats.holder(n) is not None]:
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        for name in living:  # the parent first, so that it starts nothing again; those it stops may be gone by then
            seats.end_holder(name, number, max(1.0, deadline - time.monotonic()))
    return stopped


def down(home: Home, say: Say = lambda text: None) -> Down:
    """Nothing of the platform on ``home`` runs and no socket or control group of it is left; its records are kept.

    Works whichever of its processes are dead. Services serve again after the next ``up``. PlatformError
    ``left_running`` when a cluster that does not answer still has services of it; another call goes on with them.
    """
    if not home.path.is_dir():
        raise PlatformError(f"{home.path} is no home of a platform", hint="name it with --home or LEPTONAI_HOME")
    say("stopping control and ops")
    processes = stop_processes(home)
    seats = Seats(home)
    if not (seats.take("parent") and seats.take("control")):  # until we end: nothing may start in between
        raise Conflict(f"somebody starts the platform on {home.path} again", hint="is it run by systemd?")
    try:
        replicas, gateway = asyncio.run(shut_down(home, say))
    finally:
        for file in (home.control, home.ops, home.failure):
            file.unlink(missing_ok=True)
    return Down(processes, replicas, gateway)


async def shut_down(home: Home, say: Say) -> tuple[list[str], bool]:
    from leptonai.daemon import ground
    from leptonai.platforms.kubernetes import KubernetesPlatform

    if not (home.path / "run").is_dir():  # made before anything is started, removed after all of it was stopped
        return [], False
    try:
        settings = setting.load(home.settings)
    except SpecError:  # edited badly since: no reason to leave anything running
        settings = Settings()
    adopted: list[str] = []

    def record(kind: str, subject: str, detail: dict[str, Any]) -> None:
        if kind == "gateway.adopted":
            adopted.append(kind)

    platform = ground.platform(home, settings, record)
    try:
        await platform.start()
    except StartError:  # no gateway could be started: replicas were adopted all the same
        pass
    except LeptonError as e:
        if not isinstance(platform, KubernetesPlatform):
            raise
        # Another platform's namespace: what runs there is no concern of ours.
        await platform.shutdown(None if e.code == "other_platform" else e)
        return [], bool(adopted)
    replicas = [r.id for r in platform.observe() if not r.gone]
    if not ground.lead(platform).leads:
        replicas = []
    say(f"stopping {len(replicas)} replicas and the gateway")
    await platform.shutdown()
    return replicas, bool(adopted)


def unit(home: Home) -> str:
    """A systemd unit that keeps a platform up on ``home`` and leaves replicas serving while it is restarted."""
    user = Path("~").expanduser().owner()
    return f"""\
[Unit]
Description=leptonai platform on {home.path}
After=network.target

[Service]
User={user}
ExecStart={sys.executable} -m leptonai.cli --home {home.path} up --foreground
Restart=always
RestartSec=1
# Replicas and the gateway outlive a restart of the platform and are adopted by the next one.
KillMode=process
Delegate=yes

[Install]
WantedBy=multi-user.target
"""
