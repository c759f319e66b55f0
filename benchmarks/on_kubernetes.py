"""A service on the cluster that KUBECONFIG names: is a request lost while it is scaled, rolled, broken, cut off?

    python benchmarks/on_kubernetes.py --load 'cluster load' [--rate 20] [--silence 60] [--agent COMMAND]

The whole platform, brought up as a person does, its replicas real pods; everything is in a namespace of its own. One
request after another at a steady rate goes through the gateway, each told apart by the stage it was sent in. The API
server is cut off by a line of ours between it and the platform. ``--agent`` restarts the node's agent (kubelet), on a
cluster where that may be done. The exit code says whether no request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import yaml
from control_idle import cli

from leptonai.client import Client
from leptonai.drill import pods
from leptonai.types import Rollout, Scale, Spec, Variant

CODE = """
class Greeter:
    def predict(self, name: str) -> str:
        return f"hello {name}"
# VERSION
"""
PATIENCE = 300.0
STEPS = (0.01, 0.05, 0.25, 0.5, 1.0)  # the default's


class Users(threading.Thread):
    """Requests at ``rate`` a second until ``done``; ``counts``: (stage, outcome) -> how many."""

    def __init__(self, url: str, rate: float) -> None:
        super().__init__(daemon=True)
        self.url, self.rate = url, rate
        self.stage = ""
        self.done = threading.Event()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.slowest: dict[str, float] = {}

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=30.0, trust_env=False) as client:
            due, asked = time.monotonic(), set()
            while not self.done.is_set():
                task = asyncio.create_task(self._ask(client, self.stage))
                asked.add(task)
                task.add_done_callback(asked.discard)
                due += 1.0 / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*asked)

    async def _ask(self, client: httpx.AsyncClient, stage: str) -> None:
        began = time.monotonic()
        try:
            answer = await client.post(self.url, json={"name": "ana"})
            outcome = "answered" if answer.status_code == 200 else f"HTTP {answer.status_code}"
        except httpx.HTTPError as e:
            outcome = type(e).__name__
        self.counts[stage, outcome] += 1
        self.slowest[stage] = max(self.slowest.get(stage, 0.0), time.monotonic() - began)


class Line:
    """A TCP line to the API server, in a thread of its own, that can be cut and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self._up.wait()

    def _run(self) -> None:
        async def serve() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._up.set()
            await server.serve_forever()

        self._loop.run_until_complete(serve())

    def cut(self) -> None:
        self.open = False
        self._loop.call_soon_threadsafe(lambda: [w.transport.abort() for w in list(self._writers)])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
        self._writers -= {writer, back}

    @staticmethod
    async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


def wait(done: Callable[[], object], what: str) -> float:
    """Seconds until ``done()``; fails after PATIENCE."""
    began = time.monotonic()
    while True:
        try:
            if done():
                return time.monotonic() - began
        except Exception as e:  # control is away
            last = e
        else:
            last = None
        if time.monotonic() - began > PATIENCE:
            raise SystemExit(f"gave up waiting until {what}: {last or ''}")
        time.sleep(0.1)


@contextmanager
def platform(folder: Path, load: str) -> Iterator[tuple[Path, Line, dict[str, Path], str]]:
    """``(home, line, models, namespace)`` of a platform that reaches the API server by the line."""
    home = folder / "home"
    models = {}
    for version in ("one", "two", "three"):
        models[version] = folder / version
        models[version].mkdir()
        (models[version] / "model.py").write_text(CODE.replace("VERSION", version))
    with pods.namespace() as space:
        pods.images(folder, models, load, lambda *a, patience: cli(home, *a))
        config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        cluster = config["clusters"][0]["cluster"]
        host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
        line = Line(host, int(port))
        cluster["server"] = f"https://127.0.0.1:{line.port}"
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        direct = os.environ["KUBECONFIG"]
        home.mkdir(exist_ok=True)
        chosen = {"api": {"port": 0}, "gateway": {"port": 0}} | pods.settings(space)
        (home / "settings.yaml").write_bytes(msgspec.yaml.encode(chosen))
        os.environ["KUBECONFIG"] = str(folder / "kubeconfig")
        try:
            cli(home, "up")
            yield home, line, models, space
        finally:
            line.open = True
            cli(home, "down")
            os.environ["KUBECONFIG"] = direct


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", required=True, help="command that imports an OCI archive into the nodes")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--agent", help="command that restarts the node's agent; not given: that is left out")
    parser.add_argument("--silence", type=float, default=60.0, help="seconds without the API server")
    asked = parser.parse_args()
    took: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="leptonai-bench-") as name:
        folder = Path(name)
        with platform(folder, asked.load) as (home, line, models, space), Client(home=home) as client:

            def spec(version: str, rollout: Rollout = Rollout()) -> Spec:  # noqa: B008 - frozen
                variant = Variant(model=str(models[version]), idempotent=True)
                scale = Scale(replicas=2, max=4)
                return Spec(name="greeter", variants=(variant,), scale=scale, rollout=rollout, drain=3.0)

            def calls() -> int:
                return int(client.platform()["cluster"]["calls"])

            def ready(n: int, digest: str = "") -> bool:
                seen = client.replicas("greeter")
                fit = [r for r in seen if r.state == "ready" and r.digest.startswith(digest)]
                return len(seen) == len(fit) == n

            began = time.monotonic()
            url = client.deploy(spec("one"), why="first").url + "/predict"
            took["deploy"] = time.monotonic() - began
            wait(lambda: ready(2), "two replicas are ready")
            users = Users(url, asked.rate)
            users.start()

            def stage(name: str, act: Callable[[], object], done: Callable[[], object]) -> None:
                users.stage = name
                before = calls()
                act()
                took[name] = wait(done, name)
                wait(lambda: client.platform()["gateway"]["healthy"], "the gateway is healthy")
                print(f"{name}: {took[name]:.1f} s, {calls() - before} API calls", file=sys.stderr, flush=True)
                time.sleep(3.0)

            stage("scale 2 -> 4", lambda: client.scale("greeter", 4), lambda: ready(4))
            stage("scale 4 -> 1", lambda: client.scale("greeter", 1), lambda: ready(1))
            stage("scale 1 -> 2", lambda: client.scale("greeter", 2), lambda: ready(2))
            old = {r.id for r in client.replicas("greeter")}
            stage(
                "rolling deploy",
                lambda: client.deploy(spec("two"), why="second", wait=False),
                lambda: ready(2) and not old & {r.id for r in client.replicas("greeter")},
            )
            old = {r.id for r in client.replicas("greeter")}
            judged = Rollout(strategy="canary", steps=STEPS, step_seconds=5.0, min_samples=50, effect=0.2)
            stage(
                "canary 1 -> 100 %",
                lambda: client.deploy(spec("three", judged), why="third", wait=False),
                lambda: (
                    client.service("greeter").service.canary is None
                    and ready(2)
                    and not old & {r.id for r in client.replicas("greeter")}
                ),
            )
            if client.revisions("greeter")[-1].number != 3:
                raise SystemExit("the canary was taken back")
            if asked.agent:
                stage("agent restarted", lambda: subprocess.run(shlex.split(asked.agent), check=True), lambda: ready(2))
            victim = client.replicas("greeter")[0].id
            stage(
                "pod killed",
                lambda: pods.ask(space, "kill", victim, 1.0, 60.0),
                lambda: ready(2) and victim not in {r.id for r in client.replicas("greeter")},
            )
            victim = client.replicas("greeter")[0].id
            stage(
                "pod evicted",
                lambda: pods.kubectl("-n", space, "delete", "pod", victim, "--wait=false"),
                lambda: ready(2) and victim not in {r.id for r in client.replicas("greeter")},
            )
            pid = int(msgspec.json.decode((home / "control.json").read_bytes())["pid"])
            stage(
                "control killed",
                lambda: os.kill(pid, signal.SIGKILL),
                lambda: msgspec.json.decode((home / "control.json").read_bytes())["pid"] != pid and ready(2),
            )

            def silent() -> None:
                line.cut()
                time.sleep(asked.silence)
                client.scale("greeter", 3)
                line.open = True

            stage(f"API server away for {asked.silence:g} s", silent, lambda: ready(3))
            users.done.set()
            users.join()
            quiet = calls()
            time.sleep(10.0)
            print(f"API calls in 10 s when nothing changes: {calls() - quiet}", file=sys.stderr)
    print("| stage | seconds | requests | failed | slowest, s |\n|---|---|---|---|---|")
    failed = 0
    for name in dict.fromkeys(stage for stage, _ in users.counts):
        sent = sum(n for (stage, _), n in users.counts.items() if stage == name)
        bad = {outcome: n for (stage, outcome), n in users.counts.items() if stage == name and outcome != "answered"}
        failed += sum(bad.values())
        what = ", ".join(f"{n} {outcome}" for outcome, n in bad.items()) or "0"
        print(f"| {name or 'before'} | {took.get(name, 0):.1f} | {sent} | {what} | {users.slowest[name]:.2f} |")
    print(f"first deploy, image on the node: {took['deploy']:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
