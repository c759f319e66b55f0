"""The one who breaks things: ``python -m leptonai.demo.faults KIND ...``, a process the platform cannot read.

It learns what any operator can learn, through the public API, breaks one thing, and prints what and when as JSON.
The platform is named by LEPTONAI_HOST and LEPTONAI_TOKEN.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import msgspec
import psutil

from leptonai.client import Client
from leptonai.demo.outcome import Injection, Kind
from leptonai.errors import LeptonError, PlatformError
from leptonai.types import Key, Replica

LEAK_BYTES_PER_SECOND = 5e6
LEAK_HEALS_AFTER = 120.0  # seconds; should nobody notice, the machine must survive


def signal_replica(kind: Kind, replica: Replica, number: signal.Signals) -> Injection:
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


def leak(replica: Replica) -> Injection:
    """Memory that is really allocated and touched inside the replica."""
    at = time.time()
    command = [
        *(sys.executable, "-m", "leptonai.platforms.local.inject", "leak"),
        *("--socket", replica.address.removeprefix("unix:")),
        *("--amount", f"{LEAK_BYTES_PER_SECOND:g}", "--heal-after", f"{LEAK_HEALS_AFTER:g}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise PlatformError(f"no leak in {replica.id}: {done.stderr.strip()}", hint="see leptonai logs")
    return Injection(kind="leak", at=at, replica=replica.id, pid=replica.pid)


def release(client: Client, service: Key, kind: Kind, model: Path, why: str) -> Injection:
    """Deploy a bad revision the ordinary way: the newest spec with another model."""
    spec = client.service(service).service.spec
    variant = msgspec.structs.replace(spec.variants[0], model=str(model))
    client.deploy(msgspec.structs.replace(spec, variants=(variant,)), why=why, wait=False)
    revision = client.revisions(service)[-1]
    return Injection(kind=kind, at=revision.at, revision=revision.number)


def choose(client: Client, service: Key, seed: int) -> Replica:
    """Any replica that is ready: the seed decides."""
    ready = sorted((r for r in client.replicas(service) if r.state == "ready"), key=lambda r: r.id)
    if not ready:
        raise PlatformError(f"{service} has no ready replica to break", hint=f"see leptonai status {service}")
    return random.Random(seed).choice(ready)


def inject(client: Client, kind: Kind, service: Key, models: Path, seed: int) -> Injection:
    """One thing is broken when this returns."""
    match kind:
        case "kill":
            return signal_replica(kind, choose(client, service, seed), signal.SIGKILL)
        case "stop":
            return signal_replica(kind, choose(client, service, seed), signal.SIGSTOP)
        case "leak":
            return leak(choose(client, service, seed))
        case "wrong":
            return release(client, service, kind, models / "wrong", "retrained on the new labels")
        case "slow":
            return release(client, service, kind, models / "slow", "look features up before each batch")


def main() -> None:
    parser = argparse.ArgumentParser(description="Break one thing of a running service.")
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("--service", required=True)
    parser.add_argument("--models", type=Path, required=True, help="the folder with the bad models")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    try:
        with Client() as client:
            injection = inject(client, asked.kind, asked.service, asked.models, asked.seed)
    except (LeptonError, psutil.Error, OSError, subprocess.TimeoutExpired) as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        raise SystemExit(1) from e
    print(msgspec.json.encode(injection).decode(), flush=True)


if __name__ == "__main__":
    main()
