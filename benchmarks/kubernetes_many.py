"""Many services on one cluster: what one change costs, and how soon a fresh platform knows that all is as wished.

    KUBECONFIG=... python benchmarks/kubernetes_many.py [--services 500]

The platform alone, against the real API server, in a namespace of its own; every service has the objects of one with
replicas, and wishes for none, because the node ends long before the API does. Bars: fewer than 10 API calls for a
change, a full resync in 30 s, 300 MB. The exit code says whether they hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from msgspec.structs import replace

from leptonai.drill import pods
from leptonai.errors import PlatformError
from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.settings import Gateway, Kubernetes, Settings
from leptonai.types import Dials, Service, Spec, Variant, VariantDials

AT_ONCE = 16  # services applied together, as a reconcile loop over many would


def wish(number: int) -> Service:
    variant = Variant(model="sha256:" + f"{number:064x}")
    dials = Dials(variants={"main": VariantDials(replicas=0)})
    return Service(spec=Spec(name=f"s{number:04d}", variants=(variant,)), dials=dials, revision=1)


async def settle(platform: KubernetesPlatform, services: list[Service]) -> float:
    """Seconds until no service needs a step."""
    began, gate = time.monotonic(), asyncio.Semaphore(AT_ONCE)

    async def one(service: Service) -> None:
        async with gate:
            while True:
                with suppress(PlatformError):  # a busy API server: tried again, as the reconcile loop does
                    if not await platform.apply(service):
                        return
                await asyncio.sleep(0.01)

    await asyncio.gather(*(one(s) for s in services))
    return time.monotonic() - began


async def measure(home: Path, space: str, count: int) -> bool:
    settings = Settings(kubernetes=Kubernetes(namespace=space), gateway=Gateway(port=0))
    services = [wish(n) for n in range(count)]
    first = KubernetesPlatform(home, settings)
    await first.start()
    made = await settle(first, services)
    calls = first.describe()["cluster"]["calls"]
    await first.close()
    began = time.monotonic()
    platform = KubernetesPlatform(home, settings)
    await platform.start()
    await settle(platform, services)
    resync = time.monotonic() - began
    known = platform.describe()["cluster"]["calls"]
    memory = psutil.Process().memory_info().rss / 1e6
    variant = replace(services[0].spec.variants[0], model="sha256:" + "f" * 64)
    changed = replace(services[0], spec=replace(services[0].spec, variants=(variant,)), revision=2)
    before = platform.describe()["cluster"]["calls"]
    await settle(platform, [changed])
    await asyncio.sleep(3.0)
    await settle(platform, [changed])
    change = platform.describe()["cluster"]["calls"] - before
    began = time.process_time()
    for service in services[1:]:
        assert await platform.apply(service) == []
    idle = time.process_time() - began
    print("| what | measured | bar |\n|---|---|---|")
    print(f"| {count} services made | {made:.1f} s, {calls} API calls | |")
    print(f"| a fresh platform: listed, compared, routed | {resync:.1f} s, {known} API calls | 30 s |")
    print(f"| another model for one service, the old ConfigMap gone | {change} API calls | < 10 |")
    print(f"| a pass over all when nothing changed | {1e3 * idle:.1f} ms of processor | |")
    print(f"| memory of the platform's process | {memory:.0f} MB | 300 MB |")
    await platform._front.stop()
    await platform.close()
    return resync < 30.0 and change < 10 and memory < 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leptonai-bench-") as name, pods.namespace() as space:
        return 0 if asyncio.run(measure(Path(name), space, asked.services)) else 1


if __name__ == "__main__":
    sys.exit(main())
