"""What users see, read from a real Envoy configured by the planner: counts, errors, slow answers, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest
from test_collect import ok, serving, values

from leptonai.ops.collect import Collector
from leptonai.plan import routes
from leptonai.platforms.local.envoy import Gateway
from leptonai.settings import Gateway as GatewaySettings
from leptonai.types import Dials, Replica, Service, Slo, Spec, Variant, VariantDials


@pytest.mark.world
def test_the_gateway_s_own_numbers(short: Path) -> None:
    async def story() -> None:
        async def answer(path: bytes) -> bytes:
            if path.endswith(b"/slow"):
                await asyncio.sleep(1.5)
            if path.endswith(b"/broken"):
                return b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n"
            return ok(b"{}")

        variant = Variant(model="sha256:" + "0" * 64)
        spec = Spec(name="digits", workspace="team", variants=(variant,), slo=Slo(latency=1.0))
        service = Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=1)}), revision=1)
        replica = Replica(
            id="r1", service="team/digits", variant="main", digest=variant.digest, state="ready", since=0.0,
            address=f"unix:{short / 'r1'}",
        )  # fmt: skip
        (short / "run").mkdir()
        settings = GatewaySettings(port=0)
        gateway = Gateway(short / "envoy", short / "run", short / "envoy.log", settings, lambda *event: None)
        gateway.prepare()
        collector = Collector(timeout=5.0)
        async with serving(short / "r1", answer):
            try:
                snapshot = routes([service], [replica], gateway.settings, folder=str(short / "envoy"))
                await gateway.start(snapshot)
                base = f"{gateway.url}/workspaces/team/services/digits"
                async with httpx.AsyncClient(trust_env=False, timeout=10.0) as http:
                    for _ in range(400):
                        with contextlib.suppress(httpx.ConnectError):
                            if (await http.get(f"{base}/fast")).status_code == 200:
                                break
                        await asyncio.sleep(0.05)
                    now = 0.0
                    for _ in range(5):  # histograms are a reading behind: what was before us is read out
                        now += 1.0
                        await collector.collect([service], [], [str(gateway.admin)], now)
                        await asyncio.sleep(0.05)
                    for name, count in (("fast", 15), ("slow", 5), ("broken", 5)):
                        await asyncio.gather(*(http.get(f"{base}/{name}") for _ in range(count)))
                found = await collector.collect([service], [], [str(gateway.admin)], now + 2.0)
                seen = values(found, service="team/digits")
                assert found.traffic["team/digits"].requests == 25 and found.traffic["team/digits"].errors == 5
                assert seen["request_rate_per_second"] == 12.5 and seen["error_ratio"] == 0.2
                slow, slowest = found.traffic["team/digits"].slow, seen.get("latency_p99_seconds", 0.0)
                for later in range(3, 100):
                    if slow > 4.5:
                        break
                    await asyncio.sleep(0.05)
                    found = await collector.collect([service], [], [str(gateway.admin)], now + later)
                    slow += found.traffic["team/digits"].slow
                    slowest = max(slowest, values(found, service="team/digits").get("latency_p99_seconds", 0.0))
                assert slow == pytest.approx(5.0, abs=0.5)
                assert 1.0 <= slowest <= 2.5
            finally:
                collector.close()
                await gateway.stop()
                await asyncio.sleep(0.05)

    asyncio.run(story())
