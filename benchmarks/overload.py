"""Under overload: how many requests are answered in time, with hedging (``gateway.hedge_after``) and without it.

    python benchmarks/overload.py [--seconds 20] [--loads 0.5,1,1.5,2,4] [--after 2,0]

Two replicas of a class whose call takes 40 ms are asked at multiples of what they carry (50 a second), open loop: a
request leaves at its appointed time, whatever became of those before it. Each load is asked with each setting of
``--after`` (0, no hedging, is the peer) on a platform of its own, all in one run. Printed for each, a second: right
answers within the promise (0.25 s), within the timeout (5 s); calls computed and, of them, those whose answer nobody
got; what Envoy repeated (``upstream_rq_retry``), had no budget to repeat (``retry_overflow``), and how many tries ran
out of patience (``per_try_timeout``). Wanted: at every load, hedging answers in time >= 0.98 of what the peer answers.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import tempfile
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from leptonai.platforms.local import LocalPlatform
from leptonai.platforms.local.probe import UnixClient
from leptonai.settings import Gateway, Settings
from leptonai.store import Artifacts
from leptonai.types import Dials, Service, Slo, Spec, Variant, VariantDials

CALL = 0.04  # seconds
REPLICAS = 2
PROMISE, TIMEOUT = 0.25, 5.0
MODEL = f"""import time

class Slow:
    def predict(self, x: int) -> int:
        time.sleep({CALL})
        return x + 1
"""
COUNTED = {
    "retried": "envoy_cluster_upstream_rq_retry",
    "overflow": "envoy_cluster_upstream_rq_retry_overflow",
    "impatient": "envoy_cluster_upstream_rq_per_try_timeout",
}


async def ask(url: str, number: int, due: float, seen: Counter[str]) -> None:
    """One request on a connection of its own; ``due``: its appointed time on the loop's clock."""
    where = urlsplit(url)
    body = b'{"x": %d}' % number
    head = f"POST {where.path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            try:
                writer.write(head.encode() + body)
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        seen["unanswered"] += 1
        return
    status = int(answer[9:12] or b"0")
    if status == 200 and answer.rstrip().endswith(b"%d" % (number + 1)):
        took = asyncio.get_running_loop().time() - due
        seen["answered"] += 1
        seen["in_time"] += took <= TIMEOUT
        seen["as_promised"] += took <= PROMISE
    else:
        seen[str(status)] += 1


async def load(url: str, rate: float, seconds: float, seed: int) -> Counter[str]:
    """Poisson arrivals at ``rate`` for so long, and what became of them."""
    rng, clock, seen = random.Random(seed), asyncio.get_running_loop().time, Counter[str]()
    due, end, number = clock(), clock() + seconds, 0
    async with asyncio.TaskGroup() as asked:
        while (due := due + rng.expovariate(rate)) < end:
            await asyncio.sleep(due - clock())
            number += 1
            asked.create_task(ask(url, number, due, seen))
    seen["sent"] = number
    seen["seconds"] = round(clock() - end + seconds)  # until the last was answered or given up
    return seen


async def counters(platform: LocalPlatform) -> Counter[str]:
    """What Envoy and the replicas have counted so far."""
    found: Counter[str] = Counter()
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=platform.describe()["gateway"]["admin"])) as c:
        page = (await c.get("http://envoy/stats/prometheus")).text
    for name, metric in COUNTED.items():
        found[name] = sum(int(n) for n in re.findall(rf"^{metric}{{.*}} (\d+)$", page, re.MULTILINE))
    for replica in platform.observe():
        client = UnixClient(replica.address.removeprefix("unix:"))
        try:
            text = (await client.request("GET", "/metrics", 5.0)).body.decode()
        finally:
            client.close()
        runs = re.findall(r"^leptonai_batch_size_sum\S* (\S+)$", text, re.MULTILINE)
        found["computed"] += sum(int(float(n)) for n in runs)
    return found


async def quiet(platform: LocalPlatform) -> None:
    """Nothing is computed any more."""
    before = Counter[str]()
    async with asyncio.timeout(60):
        while (now := await counters(platform)) != before:
            before = now
            await asyncio.sleep(0.5)


async def measured(folder: Path, after: float, loads: list[float], seconds: float, seed: int) -> list[Counter[str]]:
    """A row for each load, on a platform that hedges ``after`` so many seconds."""
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "model.py").write_text(MODEL)
    artifacts = Artifacts(folder / "home" / "artifacts")
    settings = Settings(gateway=Gateway(port=0, hedge_after=after))
    platform = LocalPlatform(folder / "home", settings, artifacts)
    variant = Variant(model=artifacts.put_tree(folder / "source"), idempotent=True)
    spec = Spec(name="slow", variants=(variant,), slo=Slo(latency=PROMISE), timeout=TIMEOUT, drain=1.0)
    service = Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=REPLICAS)}), revision=1)
    await platform.start()
    try:
        async with asyncio.timeout(120):
            while sum(r.state == "ready" for r in platform.observe()) < REPLICAS:
                await platform.apply(service)
                await asyncio.sleep(0.1)
        url, carries = f"{platform.url(service.key)}/predict", REPLICAS / CALL
        await asyncio.sleep(2.0)
        await load(url, 0.5 * carries, 3.0, seed)  # replicas learn what a call costs
        rows = []
        for times in loads:
            await quiet(platform)
            before = await counters(platform)
            row = await load(url, times * carries, seconds, seed)
            await quiet(platform)
            row.update((await counters(platform)) - before)
            row["in_vain"] = row["computed"] - row["answered"]
            rows.append(row)
            print(f"    hedging after {after:g} s, {times:g} times the load: {dict(row)}", flush=True)
        return rows
    finally:
        await platform.shutdown()


async def main(args: argparse.Namespace) -> int:
    loads = [float(x) for x in args.loads.split(",")]
    rows: dict[float, list[Counter[str]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for after in [float(x) for x in args.after.split(",")]:
            rows[after] = await measured(Path(name) / f"{after:g}", after, loads, args.seconds, args.seed)
    print("| load | hedging | promised/s | in time/s | refused/s | unanswered/s | computed/s | in vain/s |", end="")
    print(" retried/s | overflow/s | impatient/s |\n|---|---|---|---|---|---|---|---|---|---|---|")
    good, peer = True, rows.get(0.0, [])
    for n, times in enumerate(loads):
        for after, found in rows.items():
            row = found[n]
            names = ("as_promised", "in_time", "429", "unanswered", "computed", "in_vain", *COUNTED)
            cells = " | ".join(f"{row[name] / row['seconds']:.1f}" for name in names)
            print(f"| {times:g} | {f'{after:g} s' if after else 'off'} | {cells} |")
            good &= not peer or row["in_time"] >= 0.98 * peer[n]["in_time"]
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--loads", default="0.5,1,1.5,2,4")
    parser.add_argument("--after", default="2,0")
    parser.add_argument("--seed", type=int, default=0)
    raise SystemExit(asyncio.run(main(parser.parse_args())))
