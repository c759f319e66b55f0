"""What users notice when things die or change: requests sent and failed, seconds until all is well again.

    python benchmarks/availability.py                 # all scenarios, about two minutes and a half
    python benchmarks/availability.py kill stop       # some
    python benchmarks/availability.py --json

64 keep-alive connections from a process of its own go through Envoy to three replicas of a real Python model; each
answer is checked, not only its status. Goals are those the project set itself; the exit code says whether they hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from leptonai.platforms.local import LocalPlatform
from leptonai.platforms.local.probe import UnixClient
from leptonai.settings import Gateway, Settings
from leptonai.store import Artifacts
from leptonai.types import Dials, Fault, Replica, Service, Spec, Variant, VariantDials

CONNECTIONS = 64
HANDOVER_SECONDS = 20.0
MODEL = """
class Double:
    def predict(self, x: float) -> float:
        return 2 * x
"""

# --- load: runs in a process of its own -------------------------------------------------------------------------------


class User(asyncio.Protocol):
    """One keep-alive connection: asks, checks, asks again; connects again when it is cut off."""

    def __init__(self, load: Load, number: int) -> None:
        self.load, self.number = load, number
        self.transport: asyncio.Transport | None = None
        self.buffer = b""
        self.asked = 0.0
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        if self.load.stopping:
            self.asked = 0.0
            self.transport.close()
            return
        self.asked = time.time()
        self.load.sent += 1
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at < 0 or len(body) < (length := int(lower[at + 15 :].split(b"\r\n", 1)[0])):
            return
        self.buffer = b""
        status = int(head[9:12])
        if status == 200 and float(body[:length]) == 84.0:
            self.load.good(self.asked)
        else:
            self.load.failed(self.asked, f"{status} {body[:160].decode(errors='replace')}")
        if b"connection: close" in lower:  # the server wants to see another connection next
            self.asked = 0.0
            self.transport.close()
            return
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.asked:
            self.load.failed(self.asked, "connection lost")
        self.lost.set()


class Load:
    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self.host, self.port = at.hostname or "", at.port or 0
        body = b'{"x": 42}'
        self.request = (
            f"POST {at.path}/predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.sent = self.answered = 0
        self.failures: list[tuple[float, str]] = []
        self.slowest = 0.0
        self.last_good = time.time()
        self.longest_gap = 0.0
        self.stopping = False

    def good(self, asked: float) -> None:
        now = time.time()
        self.answered += 1
        self.slowest = max(self.slowest, now - asked)
        self.longest_gap = max(self.longest_gap, now - self.last_good)
        self.last_good = now

    def failed(self, asked: float, what: str) -> None:
        self.failures.append((time.time(), what))

    async def user(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping:
            try:
                _, user = await loop.create_connection(lambda: User(self, number), self.host, self.port)
            except OSError:
                self.sent += 1
                self.failures.append((time.time(), "connection refused"))
                await asyncio.sleep(0.05)
                continue
            await user.lost.wait()

    async def run(self) -> None:
        users = [asyncio.create_task(self.user(n)) for n in range(CONNECTIONS)]
        await asyncio.to_thread(sys.stdin.readline)  # whoever started us says when it is enough
        self.stopping = True
        _, pending = await asyncio.wait(users, timeout=35.0)
        for user in pending:
            user.cancel()
        stuck = len(pending)
        self.failures += [(time.time(), "never answered")] * stuck
        kinds: dict[str, int] = {}
        for _, what in self.failures:
            kinds[what] = kinds.get(what, 0) + 1
        print(
            json.dumps(
                {
                    "sent": self.sent,
                    "answered": self.answered,
                    "failed": len(self.failures),
                    "kinds": kinds,
                    "slowest": self.slowest,
                    "longest_gap": self.longest_gap,
                }
            )
        )


# --- the world --------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    scenario: str
    sent: int = 0
    failed: int = 0
    slowest_seconds: float = 0.0
    silence_seconds: float = 0.0  # the longest time in which no user got a good answer
    recover_seconds: float | None = None
    recovered: str = ""  # what "recovered" means here
    goal: str = ""
    held: bool = True
    failures: dict[str, int] = field(default_factory=dict)


class World:
    """One platform with one service, and the reconcile loop that the daemon would run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.artifacts = Artifacts(home / "artifacts")
        self.events: list[tuple[float, str, str, dict[str, Any]]] = []
        self.platform = self._platform()
        self.service: Service | None = None
        self._loop: asyncio.Task[None] | None = None

    def _platform(self, threads: int = 0) -> LocalPlatform:
        def record(kind: str, subject: str, detail: dict[str, Any]) -> None:
            self.events.append((time.time(), kind, subject, detail))

        return LocalPlatform(
            self.home, Settings(gateway=Gateway(port=0, threads=threads)), self.artifacts, record=record
        )

    def model(self, text: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.py").write_text(text)
            return self.artifacts.put_tree(folder)

    async def start(self) -> None:
        await self.platform.start()
        self._loop = asyncio.create_task(self._reconcile())

    async def stop(self) -> None:
        if self._loop:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        await self.platform.shutdown()

    async def _reconcile(self) -> None:
        while True:
            if self.service is not None:
                await self.platform.apply(self.service)
            await asyncio.sleep(0.1)

    def wish(self, replicas: int, *, tag: str = "", epoch: int = 0, idempotent: bool = True) -> None:
        variant = Variant(model=self.model(MODEL + f"# {tag}\n"), idempotent=idempotent)
        dials = Dials(variants={"main": VariantDials(replicas=replicas, epoch=epoch)})
        self.service = Service(spec=Spec(name="double", variants=(variant,)), dials=dials, revision=1)

    def ready(self) -> list[Replica]:
        """Those that serve the present wish."""
        assert self.service is not None
        digest, epoch = self.service.spec.variants[0].digest, self.service.dials.variants["main"].epoch
        return [r for r in self.platform.observe() if r.state == "ready" and (r.digest, r.epoch) == (digest, epoch)]

    async def settled(self, replicas: int) -> float:
        """Seconds until exactly so many replicas are there and all serve the wish."""
        began = time.time()
        while not (len(self.ready()) == len(self.platform.observe()) == replicas):
            if time.time() - began > 60:
                raise TimeoutError(f"not settled: {self.platform.observe()}")
            await asyncio.sleep(0.01)
        return time.time() - began

    async def unhealthy(self, replica: Replica) -> float:
        """Seconds until Envoy gives this replica no more requests."""
        began = time.time()
        client = UnixClient(self.platform.describe()["gateway"]["admin"])
        while True:
            answer = await client.request("GET", "/clusters?format=json", 5.0)
            hosts = [h for c in json.loads(answer.body)["cluster_statuses"] for h in c.get("host_statuses", [])]
            mine = [h for h in hosts if h.get("hostname") == replica.id]
            flags = mine[0]["health_status"] if mine else {}
            if not mine or flags.get("failed_active_health_check") or flags.get("eds_health_status") != "HEALTHY":
                client.close()
                return time.time() - began
            await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def load(self, result: Result) -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--generate", self.platform.url("double"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await asyncio.sleep(1.0)
        yield
        await asyncio.sleep(1.0)
        out, _ = await process.communicate(b"stop\n")
        seen = json.loads(out)
        result.sent, result.failed, result.failures = seen["sent"], seen["failed"], seen["kinds"]
        result.slowest_seconds, result.silence_seconds = seen["slowest"], seen["longest_gap"]


# --- the scenarios ----------------------------------------------------------------------------------------------------


async def kill(world: World, idempotent: bool = True) -> Result:
    name = "kill -9 a replica, " + ("idempotent" if idempotent else "not idempotent")
    goal = "0 failed" if idempotent else f"at most those in flight on it ({CONNECTIONS} at most)"
    result = Result(name, goal=goal + ", restored within 10 s", recovered="ready count restored")
    world.wish(3, tag="kill", idempotent=idempotent)
    await world.settled(3)
    async with world.load(result):
        await world.platform.inject(Fault(kind="kill", replica=world.ready()[0].id))
        while len(world.ready()) == 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        result.recover_seconds = await world.settled(3)
    result.held = result.failed <= (0 if idempotent else CONNECTIONS) and result.recover_seconds < 10
    return result


async def kill_unrepeatable(world: World) -> Result:
    return await kill(world, idempotent=False)


async def stop(world: World) -> Result:
    result = Result("SIGSTOP a replica", goal="0 failed, out of rotation within 2 s", recovered="out of rotation")
    world.wish(3, tag="stop")
    await world.settled(3)
    async with world.load(result):
        victim = world.ready()[0]
        fault = await world.platform.inject(Fault(kind="stop", replica=victim.id, heal_after=60.0))
        result.recover_seconds = await world.unhealthy(victim)
        await asyncio.sleep(2.0)
        await world.platform.heal(fault)
        await world.settled(3)
    result.held = result.failed == 0 and result.recover_seconds < 2
    return result


async def _change(
    world: World, result: Result, replicas: int, change: Callable[[int], tuple[int, dict[str, Any]]]
) -> Result:
    """Change the wish again and again until 50,000 requests were sent or so; 0 may fail."""
    world.wish(replicas, tag="0")
    await world.settled(replicas)
    took: list[float] = []
    async with world.load(result):
        began = time.time()
        while time.time() - began < 20.0:
            count, wish = change(len(took) + 1)
            world.wish(count, **wish)
            took.append(await world.settled(count))
    result.recover_seconds = sum(took) / len(took)
    result.recovered = f"mean of {len(took)} changes"
    result.goal = "0 failed"
    result.held = result.failed == 0
    return result


async def deploy(world: World) -> Result:
    return await _change(world, Result("rolling deploys"), 2, lambda n: (2, {"tag": str(n)}))


async def scale(world: World) -> Result:
    return await _change(world, Result("scale up and down"), 2, lambda n: (1 + n % 3, {"tag": "0"}))


async def restart(world: World) -> Result:
    return await _change(world, Result("restarts (epoch)"), 2, lambda n: (2, {"tag": "0", "epoch": n}))


async def adopt(world: World) -> Result:
    """A new platform object over the same home, as after a restart of control."""
    result = Result("platform closed, another adopts", goal="0 failed", recovered="adopted and settled")
    world.wish(2, tag="adopt")
    await world.settled(2)
    async with world.load(result):
        if world._loop:
            world._loop.cancel()
        began = time.time()
        await world.platform.close()
        world.platform = world._platform()
        await world.start()
        await world.settled(2)
        result.recover_seconds = time.time() - began
    result.held = result.failed == 0
    return result


async def envoy(world: World) -> Result:
    result = Result("kill -9 Envoy", goal="back within 2 s", recovered="longest silence")
    world.wish(2, tag="envoy")
    await world.settled(2)
    async with world.load(result):
        before = world.platform.describe()["gateway"]["pid"]
        os.kill(before, signal.SIGKILL)
        while not (g := world.platform.describe()["gateway"])["healthy"] or g["pid"] in (before, None):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
    result.recover_seconds = result.silence_seconds
    result.held = result.silence_seconds < 2
    return result


async def handover(world: World) -> Result:
    """A changed setting, as an upgrade: another Envoy takes over, until at least 20,000 requests were sent."""
    result = Result("planned handover of Envoy, again and again", goal="0 failed of 20,000", recovered="each")
    world.wish(2, tag="handover")
    await world.settled(2)
    taken: list[float] = []
    async with world.load(result):
        began = time.time()
        while time.time() - began < HANDOVER_SECONDS:
            if world._loop:
                world._loop.cancel()
            await world.platform.close()
            world.platform = world._platform(threads=3 + len(taken) % 2)
            once = time.time()
            await world.start()
            taken.append(time.time() - once)
            done = len(taken)
            while sum(kind == "gateway.left" for _, kind, _, _ in world.events) < done:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    result.recover_seconds = sum(taken) / len(taken)
    result.held = result.failed == 0 and result.sent >= 20_000
    return result


SCENARIOS: dict[str, Callable[[World], Awaitable[Result]]] = {
    "kill": kill,
    "kill_unrepeatable": kill_unrepeatable,
    "stop": stop,
    "deploy": deploy,
    "scale": scale,
    "restart": restart,
    "adopt": adopt,
    "envoy": envoy,
    "handover": handover,
}


async def main(names: list[str], as_json: bool) -> int:
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="leptonai-bench-") as home:
        world = World(Path(home))
        await world.start()
        try:
            for name in names:
                result = await SCENARIOS[name](world)
                results.append(result)
                if not as_json:
                    print(_line(result), flush=True)
        finally:
            await world.stop()
    if as_json:
        print(json.dumps([asdict(r) for r in results], indent=2))
    return 0 if all(r.held for r in results) else 1


def _line(r: Result) -> str:
    recover = "" if r.recover_seconds is None else f"{r.recover_seconds:.2f} s {r.recovered}"
    text = (
        f"{'ok ' if r.held else 'NOT'} {r.scenario:34} sent {r.sent:7,} failed {r.failed:4,}  "
        f"slowest {r.slowest_seconds:.2f} s  {recover}   (goal: {r.goal})"
    )
    return text + "".join(f"\n      {n} x {what}" for what, n in sorted(r.failures.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=[], help=f"of {', '.join(SCENARIOS)}; all when none is named")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--generate", metavar="URL", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.generate:
        asyncio.run(Load(asked.generate).run())
        sys.exit(0)
    unknown = [s for s in asked.scenarios if s not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    sys.exit(asyncio.run(main(asked.scenarios or list(SCENARIOS), asked.json)))
