"""One gateway with a thousand services, ten of them with a replica: what a change of endpoints and doing nothing cost.

    python benchmarks/many_services.py                       # about two minutes
    python benchmarks/many_services.py --services 100 --json

The whole platform, brought up as a person does. A live service is scaled from one replica to two, and back, again and
again; what counts is the time from the moment control sees the replica ready until Envoy has it among its endpoints.
Then nothing is asked for a while, and the CPU of each process is read. The exit code says whether the goals, which the
project set itself, hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from control_idle import MODEL, cli, idle, wait

from leptonai.client import Client
from leptonai.client.home import Home
from leptonai.daemon.seats import Seats
from leptonai.serve import spec as texts
from leptonai.types import SpecChange

LIVE = 10
CHANGES = 9
GOALS = {"endpoint_seconds": 0.25, "control_cpu": 0.10}


def declare(client: Client, model: str, count: int) -> float:
    """Seconds until all are wished for."""
    began = time.monotonic()
    for n in range(count):
        spec = texts.parse({"name": f"s{n:04d}", "model": model, "idempotent": True, "replicas": int(n < LIVE)})
        client.wish(SpecChange(spec=spec, base=0), "declared")
    return time.monotonic() - began


def endpoints(admin: httpx.Client, cluster: str) -> int:
    """Hosts of a cluster beside the edge, as Envoy has them."""
    page = admin.get(f"/stats?filter=^cluster.{cluster}.membership_total$").text
    return int(page.rpartition(":")[2] or 0) - 1


def change(client: Client, admin: httpx.Client, name: str, replicas: int) -> float:
    """Seconds from the change of the replicas that control sees until Envoy has it."""
    client.scale(name, replicas)
    cluster = f"{name}@main"
    wait(lambda: endpoints(admin, cluster) == replicas, f"{name} has {replicas} endpoints")
    live = time.time()
    return live - max(r.since for r in client.service(name).replicas)


def measure(services: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="leptonai-bench-") as folder:
        home, model = Path(folder) / "home", Path(folder) / "double.py"
        model.write_text(MODEL)
        cli(home, "up", "--api-port", "0", "--gateway-port", "0")
        try:
            with Client(home=home) as client:
                digest = client.upload(model)
                found: dict[str, Any] = {"services": services, "declared_seconds": declare(client, digest, services)}
                wait(lambda: sum(v.ready for v in client.services()) >= LIVE, "the live ones are ready", 300.0)
                transport = httpx.HTTPTransport(uds=client.platform()["gateway"]["admin"])
                with httpx.Client(transport=transport, base_url="http://admin", timeout=30.0) as admin:
                    last = f"s{services - 1:04d}@main"
                    wait(lambda: admin.get(f"/stats?filter=^cluster.{last}.membership_total$").text, "all known", 300.0)
                    up = [change(client, admin, "s0003", 2 - n % 2) for n in range(CHANGES)]
                found["endpoint_seconds"] = {"median": statistics.median(up[::2]), "worst": max(up[::2])}
                time.sleep(10.0)
                found["idle"] = idle(Seats(Home(home)), client, seconds)
        finally:
            cli(home, "down")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of idling")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.services, asked.seconds)
    change, control = found["endpoint_seconds"], found["idle"]["control"]["cpu"]
    held = change["median"] < GOALS["endpoint_seconds"] and control < GOALS["control_cpu"]
    if asked.json:
        print(json.dumps(found | {"held": held}, indent=2))
        return 0 if held else 1
    print(
        f"{found['services']} services, {LIVE} with a replica; declared one by one in {found['declared_seconds']:.1f} s"
    )
    print(f"a new replica is among Envoy's endpoints {change['median'] * 1e3:.0f} ms after it was seen ready")
    print(f"(worst {change['worst'] * 1e3:.0f} ms; goal: < {GOALS['endpoint_seconds'] * 1e3:.0f} ms)")
    for name, seen in found["idle"].items():
        goal = f" (goal: < {GOALS['control_cpu']:.0%})" if name == "control" else ""
        print(f"{name}, idle: {seen['cpu']:.1%} of a core, {seen['rss'] / 1e6:.0f} MB{goal}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
