"""Claim: a bad version on probation is rolled back before it has 25 % of the requests and has answered under 2 % of
them, with the healthy version untouched; a good one is promoted.

    python benchmarks/rollout.py [--seeds 10] [--rate 20] [--step 15] [--kinds wrong,slow,errors,leak,good]

One real platform (control, ops, Envoy, replicas as processes) in a temporary home, one service for each seed, all of
them rolled out at once under load. The stable version answers in 10 ms. Bad: answers wrongly (users label 30 % of the
answers), takes 20 ms, fails 5 %, or leaks 5 MB/s. Users are open-loop (Poisson arrivals from the seed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from leptonai.client import Client
from leptonai.client.rollout import verdict
from leptonai.client.wire import FeedbackRequest, ServiceView, Verdict
from leptonai.serve import spec as texts
from leptonai.types import Event

Views = dict[str, ServiceView]
LABELLED = 0.3
PATIENCE = 1200.0  # seconds for one rollout
MODEL = """
import random, threading, time

KEPT = []

def leak():
    while True:
        KEPT.append(bytearray(b"x") * 500_000)
        time.sleep(0.1)

class Digits:
    def __init__(self):
        if {leak}:
            threading.Thread(target=leak, daemon=True).start()

    def predict(self, x: int):
        time.sleep({seconds})
        if random.random() < {errors}:
            raise ValueError("broken")
        return {{"digit": (x + {add}) % 10, "version": "{version}"}}
"""
GOOD = {"leak": False, "seconds": 0.01, "errors": 0.0, "add": 0}
KINDS: dict[str, dict[str, Any]] = {
    "wrong": {"add": 1},
    "slow": {"seconds": 0.02},
    "errors": {"errors": 0.05},
    "leak": {"leak": True},
    "good": {},
}


class Users:
    """Of one service: counts answers by version and code since ``reset``."""

    def __init__(self, url: str, rate: float, seed: int, client: Client) -> None:
        self.url, self.rate, self.random, self.client = url, rate, random.Random(seed), client
        self.seen: Counter[tuple[str, int]] = Counter()
        self.labels: list[FeedbackRequest] = []

    async def run(self, http: httpx.AsyncClient) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(self.random.expovariate(self.rate))
            task = asyncio.create_task(self._ask(http))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    async def _ask(self, http: httpx.AsyncClient) -> None:
        x = self.random.randrange(1000)
        try:
            answer = await http.post(f"{self.url}/predict", json={"x": x})
        except httpx.HTTPError:
            self.seen["?", 0] += 1
            return
        said = answer.json() if answer.status_code == 200 else {}
        version = said.get("outputs", said).get("version", "?") if isinstance(said, dict) else "?"
        self.seen[version, answer.status_code] += 1
        if self.random.random() < LABELLED and answer.status_code == 200:
            self.labels.append(FeedbackRequest(about=answer.headers["x-request-id"], label=x % 10))


async def send_labels(users: list[Users], client: Client) -> None:
    while True:
        await asyncio.sleep(0.5)
        items = [item for u in users for item in u.labels]
        for u in users:
            u.labels.clear()
        if items:
            await asyncio.to_thread(client.send_feedback, items)


def highest(events: list[Event], revision: int) -> float:
    """The greatest share of the requests that the revision was given."""
    path = f"rollout.{revision}.weight"
    return max((e.detail["set"].get(path, 0.0) for e in events if e.kind == "proposal.admitted" and "set" in e.detail),
               default=0.0)  # fmt: skip


async def judged(client: Client, key: str, revision: int, views: Views, until: float) -> Verdict:
    while time.time() < until:
        view = views.get(key)
        over = view is not None and (view.service.revision > revision or view.service.canary is None)
        if view is not None and view.service.revision >= revision and over:
            found = verdict(view, await asyncio.to_thread(client.revisions, key), revision)
            if found is not None:
                return found
        await asyncio.sleep(0.5)
    return Verdict(revision=revision, outcome="not enough evidence", why="")


async def look(client: Client, views: Views) -> None:
    """One thread looks for all: the load must not wait for lookers."""
    while True:
        views.update({v.key: v for v in await asyncio.to_thread(client.services)})
        await asyncio.sleep(0.5)


async def one(
    client: Client, work: Path, kind: str, name: str, users: Users, step: float, views: Views
) -> dict[str, Any]:
    key, before = name, await asyncio.to_thread(client.service, name)
    pids = {r.pid for r in before.replicas if r.state == "ready"}
    spec = write(work, name, f"{kind}", KINDS[kind], step)
    users.seen.clear()
    began = time.time()
    await asyncio.to_thread(client.deploy, client.as_canary(spec, whole=True), why=kind, wait=False)
    revision = (await asyncio.to_thread(client.service, key)).service.revision
    end = await judged(client, key, revision, views, began + PATIENCE)
    seconds = time.time() - began
    seen = Counter(users.seen)
    events = await asyncio.to_thread(client.why, key, None, 2000)
    total = sum(seen.values())
    # A failed answer names no version: it is counted as the new one's.
    touched = sum(n for (version, code), n in seen.items() if version in (kind, "?"))
    after = (await asyncio.to_thread(client.service, key)).replicas
    now = {r.pid for r in after if r.state in ("ready", "failed")}  # the same process; a probe it missed is not its end
    return {
        "kind": kind, "outcome": end.outcome, "why": end.why, "seconds": seconds, "revision": revision,
        "weight": highest(events, revision), "touched": touched / max(1, total), "requests": total,
        "failed": sum(n for (_, code), n in seen.items() if code != 200),
        "stable_kept": pids <= now,
    }  # fmt: skip


def write(work: Path, name: str, version: str, change: dict[str, Any], step: float) -> Any:
    folder = work / f"{name}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODEL.format(**(GOOD | change | {"version": version})))
    text = f"name: {name}\nmodel: ./model.py\nidempotent: true\nreplicas: 1\nrollout: {{step_seconds: {step:g}s}}\n"
    (folder / "service.yaml").write_text(text)
    return texts.load(folder / "service.yaml")[0]


async def measure(client: Client, work: Path, kinds: list[str], seeds: int, rate: float, step: float) -> list[Any]:
    rows: list[Any] = []
    views: Views = {}
    names = [f"s{i}" for i in range(seeds)]
    for name in names:
        await asyncio.to_thread(client.deploy, write(work, name, "stable", {}, step))
    users = [Users(client.service(n).url, rate, i, client) for i, n in enumerate(names)]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with httpx.AsyncClient(trust_env=False, timeout=30.0, limits=limits) as http:
        background = [asyncio.create_task(u.run(http)) for u in users]
        background += [asyncio.create_task(send_labels(users, client)), asyncio.create_task(look(client, views))]
        await asyncio.sleep(10)
        for kind in kinds:
            found = await asyncio.gather(
                *(one(client, work, kind, n, u, step, views) for n, u in zip(names, users, strict=True))
            )
            rows += found
            show(kind, found)
            await asyncio.sleep(5)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
    return rows


def show(kind: str, rows: list[dict[str, Any]]) -> None:
    outcomes = Counter(r["outcome"] for r in rows)
    seconds = sorted(r["seconds"] for r in rows)
    print(
        f"{kind:<7} {dict(outcomes)}  seconds {seconds[len(seconds) // 2]:.0f} (max {seconds[-1]:.0f})  "
        f"highest weight {max(r['weight'] for r in rows):.0%}  touched max {max(r['touched'] for r in rows):.2%}  "
        f"stable replicas kept {sum(r['stable_kept'] for r in rows)}/{len(rows)}  "
        f"failed {sum(r['failed'] for r in rows)} of {sum(r['requests'] for r in rows)}",
        flush=True,
    )
    for r in rows:
        print(
            f"    {r['outcome']:<12} {r['seconds']:5.0f} s  {r['weight']:4.0%}  {r['touched']:6.2%}  {r['why'][:150]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--step", type=float, default=15.0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        command = [sys.executable, "-m", "leptonai.cli", "--home", str(home)]
        subprocess.run([*command, "up", "--api-port", "0", "--gateway-port", "0"], check=True, capture_output=True)
        try:
            with Client(home=home) as client:
                kinds = given.kinds.split(",")
                rows = asyncio.run(measure(client, Path(folder), kinds, given.seeds, given.rate, given.step))
        finally:
            subprocess.run([*command, "down"], check=False, capture_output=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
