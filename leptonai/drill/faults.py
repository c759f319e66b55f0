"""Breaking things, and mending them again. Everything is done from outside, with what any operator can learn.

The platform is asked through its public API; signals, resource limits and files need an account on its machine.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psutil

from leptonai.client import Client
from leptonai.drill import pods
from leptonai.drill.kinds import Fault
from leptonai.drill.outcome import Injection
from leptonai.drill.stage import NEIGHBOUR, Place, program
from leptonai.drill.traffic import Mood
from leptonai.errors import LeptonError, PlatformError
from leptonai.types import Key, Replica

PATIENCE = 30.0  # seconds that asking for a fault may take
HEALS_AFTER = 120.0  # seconds; should nobody notice, the machine must survive
# What is asked of a replica, by kind of drill: the fault of its own and how much of it.
IN_REPLICA: dict[str, tuple[str, float]] = {
    "leak": ("leak", 5e6),  # bytes per second
    "oom": ("leak", 250e6),
    "hog": ("hog", 2.0),  # cores
    "sick": ("error", 0.6),  # share of requests
    "sluggish": ("delay", 0.3),  # seconds a batch
    "neighbour": ("hog", 8.0 * (os.cpu_count() or 1)),
    "gpu-xid": ("error", 0.6),  # what a kernel that the driver ended looks like from above
    "gpu-ecc": ("error", 0.6),
    "gpu-lost": ("error", 1.0),
    "gpu-thermal": ("delay", 0.3),
}
BEHAVIOUR = {"crash": "crash", "slow": "slow", "errors": "errors", "nan": "nan"}
MOODS: dict[str, Mood] = {
    "surge": Mood(rate=4.0),
    "flash": Mood(rate=8.0),
    "poison": Mood(poison=0.15),
    "drift": Mood(drift=True),
    "retries": Mood(copies=4),
    "busy": Mood(rate=1.5),
}
NETWORK = {"latency": "far 0.08", "loss": "lossy 0.35"}  # seconds each way; share of pieces
COLD = 0.5  # seconds until the dependency is in its mood
CARDS: dict[str, dict[str, Any]] = {
    "gpu-xid": {"xid_errors": 1.0},
    "gpu-ecc": {"xid_errors": 1.0, "ecc_errors": 2.0},
    "gpu-thermal": {"hot": True, "celsius": 94.0},
    "gpu-lost": {"lost": True},
}


@dataclass
class Broken:
    """A fault in force. ``heal`` ends it, whatever became of it; it may be called more than once."""

    injection: Injection
    undo: list[Callable[[], object]] = field(default_factory=list)

    def heal(self) -> None:
        while self.undo:
            with contextlib.suppress(LeptonError, OSError, psutil.Error, subprocess.SubprocessError):
                self.undo.pop()()  # what is gone need not be healed


def inject(place: Place, fault: Fault, seed: int) -> Broken:
    """One thing is broken when this returns. PlatformError when it could not be."""
    kind = fault.kind
    if fault.breaks == "replica" or kind == "disk":
        return _replica(place, fault, choose(place.client, place.service, seed))
    if fault.breaks == "revision":
        return _release(place, fault, seed)
    match kind:
        case "deploy":
            return _good_release(place, kind, seed)
        case "scale":
            at = time.time()
            place.client.scale(place.service, place.wanted + 1, why="more of it for the evening")
            back = lambda: place.client.scale(place.service, place.wanted, why="the evening is over")  # noqa: E731
            return Broken(Injection(kind=kind, at=at, text=f"{place.wanted + 1} replicas"), [back])
        case "restart":
            at = time.time()
            place.client.restart(place.service, why="every Friday")
            return Broken(Injection(kind=kind, at=at, text="all replicas"))
        case "calm":
            return Broken(Injection(kind=kind, at=time.time(), text="nothing"))
        case "neighbour":
            return _replica(place, fault, choose(place.client, NEIGHBOUR, seed))
        case "starve":
            stack = contextlib.ExitStack()
            at = time.time()
            stack.enter_context(program("leptonai.drill.burn", str(8 * (os.cpu_count() or 1))))
            return Broken(Injection(kind=kind, at=at, text="the machine"), [stack.close])
    if place.props is None:
        raise PlatformError(f"{kind} needs users, a dependency or a card of ours", hint="run it without --live")
    props = place.props
    if kind in MOODS:
        at = time.time()
        props.ask(MOODS[kind])
        return Broken(Injection(kind=kind, at=at, text="users"), [lambda: props.ask(Mood())])
    if kind in CARDS:
        broken = _replica(place, fault, choose(place.client, place.service, seed))
        props.card(**CARDS[kind])
        broken.undo.append(props.card)
        return broken
    if kind in NETWORK:
        at = time.time()
        props.wire(NETWORK[kind])
        return Broken(Injection(kind=kind, at=at, text="the network"), [lambda: props.wire("ok")])
    if kind == "cold-start":
        props.depend("cold")
        time.sleep(COLD)  # from now on who starts is told so
        at = time.time()
        most = place.good.scale.max
        place.client.scale(place.service, most, why="many more of it at once")
        back = lambda: place.client.scale(place.service, place.wanted, why="no more of it")  # noqa: E731
        return Broken(Injection(kind=kind, at=at, text=f"{most} replicas"), [lambda: props.depend("ok"), back])
    at = time.time()
    props.depend({"slow-dependency": "slow", "dead-dependency": "dead", "credential": "denied"}[kind])  # type: ignore[arg-type]
    return Broken(Injection(kind=kind, at=at, text="features"), [lambda: props.depend("ok")])


def _replica(place: Place, fault: Fault, replica: Replica) -> Broken:
    kind = fault.kind
    if "/" not in replica.address:
        return _pod(place, fault, replica)
    match kind:
        case "kill":
            return Broken(signal_replica(kind, replica, signal.SIGKILL))
        case "stop":
            injection = signal_replica(kind, replica, signal.SIGSTOP)
            return Broken(injection, [lambda: os.kill(injection.pid or 0, signal.SIGCONT)])
        case "disk":
            pid = computing(replica)
            at = time.time()
            _ask(kind, "disk_full", "--pid", str(pid), "--heal-after", f"{fault.lasts:g}")
            return Broken(Injection(kind=kind, at=at, text="the disk", pid=pid))
    what, amount = IN_REPLICA[kind]
    socket = replica.address.removeprefix("unix:")
    at = time.time()
    healing = HEALS_AFTER if fault.breaks == "replica" else fault.lasts
    _ask(kind, what, "--socket", socket, "--amount", f"{amount:g}", "--heal-after", f"{healing:g}")
    heal = lambda: _ask(kind, what, "--socket", socket, "--amount", "0", "--heal-after", "0")  # noqa: E731
    return Broken(Injection(kind=kind, at=at, replica=replica.id, pid=replica.pid), [heal])


def _pod(place: Place, fault: Fault, replica: Replica) -> Broken:
    kind = fault.kind
    what, amount = IN_REPLICA.get(kind, (kind, 1.0))
    space = str(place.client.platform()["cluster"]["namespace"])
    healing = HEALS_AFTER if fault.breaks == "replica" else fault.lasts
    at = time.time()
    pods.ask(space, what, replica.id, amount, healing)
    heal = [] if kind == "kill" else [lambda: pods.ask(space, what, replica.id, 0.0, 0.0)]
    return Broken(Injection(kind=kind, at=at, replica=replica.id), [*heal])


def _ask(kind: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "leptonai.platforms.local.inject", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as e:
        raise PlatformError(f"could not inject {kind} within {PATIENCE:g} s", hint="is the machine overloaded?") from e
    if done.returncode != 0:
        raise PlatformError(f"could not inject {kind}: {done.stderr.strip()}", hint="see leptonai logs")


def signal_replica(kind: str, replica: Replica, number: signal.Signals) -> Injection:
    pid = computing(replica)
    at = time.time()
    os.kill(pid, number)
    return Injection(kind=kind, at=at, replica=replica.id, pid=pid)


def computing(replica: Replica) -> int:
    """The process that computes: the one that listens on the replica's socket, not some parent in front of it."""
    socket = replica.address.removeprefix("unix:")
    pids = {c.pid for c in psutil.net_connections("unix") if str(c.laddr) == socket} - {None} or {replica.pid} - {None}
    if len(pids) != 1:
        raise PlatformError(f"{replica.id} has no one process that listens on {socket}", hint="has it just ended?")
    return int(pids.pop() or 0)


def _release(place: Place, fault: Fault, seed: int) -> Broken:
    """Deploy a bad revision the ordinary way: the newest spec with another model or other options."""
    if place.trained is None:
        raise PlatformError(f"{fault.kind} needs a bad model of ours", hint="run it without --live")
    variant = place.good.variants[0]
    application = "features" in variant.options
    options = {**variant.options, "release": seed} if application else variant.options
    model = variant.model
    if fault.kind == "wrong":
        model = str(place.trained.whole_wrong if application else place.trained.wrong)
    elif fault.kind == "config":
        options = {**options, "class": "Digit"}
    elif application:
        options = {**options, "behave": BEHAVIOUR[fault.kind]}
    else:
        model = str(place.trained.slow)
    why = {"wrong": "retrained on the new labels", "slow": "look features up before each batch"}
    return _deploy(place, fault.kind, msgspec.structs.replace(variant, model=model, options=options), why)


def _good_release(place: Place, kind: str, seed: int) -> Broken:
    """Something new that is as good as what was before; it is what is to run from now on."""
    variant = place.good.variants[0]
    fresh = msgspec.structs.replace(variant, env={**variant.env, "RELEASE": f"{seed}-{time.time():.0f}"})
    broken = _deploy(place, kind, fresh, {})
    place.good = place.client.service(place.service).service.spec
    broken.undo.clear()
    return broken


def _deploy(place: Place, kind: str, variant: Any, why: dict[str, str]) -> Broken:
    good = place.good
    spec = msgspec.structs.replace(good, variants=(variant,))
    place.client.deploy(spec, why=why.get(kind, "the release of the week"), wait=False)
    revision = place.client.revisions(place.service)[-1]
    back = lambda: place.client.deploy(good, why="taken back by hand", wait=False)  # noqa: E731
    return Broken(Injection(kind=kind, at=revision.at, revision=revision.number), [back])


def choose(client: Client, service: Key, seed: int) -> Replica:
    """Any replica that is ready: the seed decides."""
    ready = sorted((r for r in client.replicas(service) if r.state == "ready"), key=lambda r: r.id)
    if not ready:
        raise PlatformError(f"{service} has no ready replica to break", hint=f"see leptonai status {service}")
    return random.Random(seed).choice(ready)
