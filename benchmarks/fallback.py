"""Stale answers: how fast they are given when every replica is dead, and what keeping them costs while all is well.

    python benchmarks/fallback.py [--rounds 5] [--seconds 3] [--connections 64]

A local platform serves a class that computes next to nothing, the hardest case for a ratio to normal throughput. A
round: wrk asks the same 50 questions of: the service without fallback, with it, and with it after ``kill -9`` of its
replica (which the platform is not told to replace). Bodies: {"x": 1} and 784 floats. Medians over rounds are compared.
Wanted: dead / normal >= 0.5; with / without >= 0.95; every answer of the dead phase is marked, none of the others is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import tempfile
from pathlib import Path

import httpx
import msgspec

from leptonai.platforms.local import LocalPlatform
from leptonai.platforms.local.probe import UnixClient
from leptonai.settings import Gateway, Settings
from leptonai.store import Artifacts
from leptonai.types import Dials, Fallback, Service, Spec, Variant, VariantDials

NO_OP = """class NoOp:
    def predict(self, x) -> int:
        return 1
"""
QUESTIONS = 50
PHASES = ("without", "with", "dead")


def script(folder: Path, name: str, bodies: list[str]) -> Path:
    """wrk asks the bodies in turn."""
    path = folder / f"{name}.lua"
    quoted = ",\n".join(f"[==[{b}]==]" for b in bodies)
    path.write_text(
        f"local bodies = {{{quoted}}}\nlocal n = 0\nlocal made = {{}}\n"
        'wrk.headers["content-type"] = "application/json"\n'
        "init = function() for i, b in ipairs(bodies) do "
        "made[i] = wrk.format('POST', nil, nil, b) end end\n"
        f"request = function() n = n % {len(bodies)} + 1; return made[n] end\n"
    )
    return path


async def wrk(url: str, lua: Path, seconds: int, connections: int) -> float:
    """Good answers a second; any other answer ends the benchmark."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(lua), url]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    text = (await process.communicate())[0].decode()
    if "Non-2xx" in text:
        raise SystemExit(f"not every answer was good:\n{text}")
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0])


async def marked(url: str, bodies: list[str]) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        got = [await client.post(url, content=b) for b in bodies]
    assert all(g.status_code == 200 for g in got), [g.text for g in got if g.status_code != 200][:1]
    return sum("x-leptonai-stale" in g.headers for g in got)


async def edge_metric(platform: LocalPlatform, pattern: str) -> int:
    client = UnixClient(platform.describe()["edge"]["socket"])
    try:
        page = (await client.request("GET", "/metrics", 5.0)).body.decode()
    finally:
        client.close()
    return sum(int(n) for n in re.findall(pattern + r"[^}]*} (\d+)", page))


async def ready(platform: LocalPlatform, service: Service) -> None:
    async with asyncio.timeout(60):
        while True:
            await platform.apply(service)
            if any(r.state == "ready" for r in platform.observe()):
                break
            await asyncio.sleep(0.05)
        async with httpx.AsyncClient(trust_env=False) as client:
            while (await client.post(f"{platform.url(service.key)}/predict", content="{}")).status_code in (404, 503):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def compare(
    platform: LocalPlatform, service: Service, lua: Path, bodies: list[str], args: argparse.Namespace
) -> bool:
    url = f"{platform.url(service.key)}/predict"
    off = msgspec.structs.replace(service, dials=msgspec.structs.replace(service.dials, fallback=False))
    rates: dict[str, list[float]] = {p: [] for p in PHASES}
    wrong = 0
    for _ in range(args.rounds):
        for phase in PHASES:
            if phase == "dead":
                for replica in platform.observe():
                    os.kill(replica.pid or 0, signal.SIGKILL)
                await asyncio.sleep(1.0)
            else:
                await ready(platform, service if phase == "with" else off)
                await wrk(url, lua, 1, args.connections)
                if phase == "without":
                    await asyncio.sleep(6.0)  # a replica that nobody asks for answers keeps them for 5 s more
                else:
                    while await edge_metric(platform, "leptonai_edge_answers{") < QUESTIONS:
                        await marked(url, bodies)
                        await asyncio.sleep(0.5)
            before = await edge_metric(platform, 'outcome="stale"')
            rates[phase].append(await wrk(url, lua, args.seconds, args.connections))
            given = await edge_metric(platform, 'outcome="stale"') - before
            count = await marked(url, bodies)
            wrong += abs(count - (QUESTIONS if phase == "dead" else 0)) + (given if phase != "dead" else 0)
    medians = {p: statistics.median(r) for p, r in rates.items()}
    for phase in PHASES:
        print(f"  {phase:8} {medians[phase]:9.0f}/s   rounds {', '.join(f'{r:.0f}' for r in rates[phase])}")
    dead, cost = medians["dead"] / medians["with"], medians["with"] / medians["without"]
    print(
        f"  dead / normal {dead:.2f} (wanted >= 0.5); with / without {cost:.3f} (wanted >= 0.95); wrong marks {wrong}"
    )
    return dead >= 0.5 and cost >= 0.95 and wrong == 0


async def main(args: argparse.Namespace) -> int:
    rng = random.Random(0)
    loads = {
        "x": [json.dumps({"x": n}) for n in range(QUESTIONS)],
        "784": [json.dumps({"x": [round(rng.random(), 6) for _ in range(784)]}) for _ in range(QUESTIONS)],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        (folder / "source" / "model.py").write_text(NO_OP)
        artifacts = Artifacts(folder / "home" / "artifacts")
        platform = LocalPlatform(folder / "home", Settings(gateway=Gateway(port=0)), artifacts)
        variant = Variant(model=artifacts.put_tree(folder / "source"), idempotent=True)
        spec = Spec(name="noop", variants=(variant,), fallback=Fallback(), drain=1.0)
        service = Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=1)}), revision=1)
        await platform.start()
        good = True
        try:
            for load, bodies in loads.items():
                print(f"{load}: {len(bodies[0])} bytes, {args.connections} connections")
                good &= await compare(platform, service, script(folder, load, bodies), bodies, args)
        finally:
            await platform.shutdown()
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    raise SystemExit(asyncio.run(main(parser.parse_args())))
