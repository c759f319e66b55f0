"""The gateway as a process of its own: it needs neither control nor, once it has seen it, the API server."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from gate_stage import Api, Backend, loopback
from msgspec.structs import replace
from waiting import until

from leptonai.plan.render import names
from leptonai.plan.render.gate import CHOSEN, NAME, PAGES
from leptonai.plan.render.pod import PORT
from leptonai.plan.render.wish import wish
from leptonai.platforms.kubernetes import doubt
from leptonai.platforms.kubernetes.cluster import Cluster, Of
from leptonai.platforms.kubernetes.doubt import FRESH, PERIOD, TIMEOUT, Doubts
from leptonai.platforms.kubernetes.gateways import Gateways
from leptonai.platforms.kubernetes.mirror import Mirror
from leptonai.platforms.kubernetes.pods import replica
from leptonai.platforms.local.port import free
from leptonai.settings import Kubernetes, Settings
from leptonai.types import Dials, RateLimit, Scale, Service, Spec, Variant, VariantDials

pytestmark = pytest.mark.world

SECRET = "known to control"
VARIANT = Variant(model="sha256:" + "0" * 64, idempotent=True)


def service(replicas: int = 1, **spec: Any) -> Service:
    made = Spec(name="greeter", variants=(VARIANT,), **spec)
    return Service(spec=made, dials=Dials(variants={"main": VariantDials(replicas=replicas)}), revision=1)


def pod(name: str, address: str, ready: bool = True) -> dict[str, Any]:
    at = "2026-11-21T20:00:00Z"
    labels = names.held("greeter", "main") | {"app.kubernetes.io/managed-by": names.MANAGER}
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-11-21T20:00:09Z"}
    state = {"running": {"startedAt": at}}
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": at,
            "labels": labels | {f"{names.OWN}/digest": VARIANT.digest},
            "annotations": {f"{names.OWN}/variant": "main"},
        },
        "spec": {"nodeName": "n"},
        "status": {
            "phase": "Running",
            "podIP": address,
            "conditions": [condition],
            "containerStatuses": [{"containerID": f"c-{name}", "state": state, "started": True, "restartCount": 0}],
        },
    }


Replicas = Callable[[str], Awaitable[Backend]]


class Gateway:
    """One process of it, as a pod runs it."""

    def __init__(self, home: Path, config: Path) -> None:
        self.home, self.config, self.address = home, config, loopback()
        home.mkdir()
        self.port = free(self.address)
        settings = {"gateway": {"host": self.address, "port": self.port}, "kubernetes": {"namespace": "models"}}
        (home / "settings.yaml").write_bytes(msgspec.yaml.encode(settings))
        self.url = f"http://{self.address}:{self.port}/services/greeter/predict"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "leptonai.daemon.gateway", "--home", str(self.home)]
        command += ["--control", "leptonai-control", "--host", self.address, "--pages", str(PAGES)]
        self.process = subprocess.Popen(
            command, env=os.environ | {"KUBECONFIG": str(self.config), "LEPTONAI_ORDERS": SECRET}
        )

    def end(self) -> None:
        """Its container ends: every process of it, at once."""
        if self.process is None:
            return
        pids = [self.process.pid]
        for file in (self.home / "envoy" / "envoy.json", self.home / "edge.json"):
            with contextlib.suppress(FileNotFoundError):
                pids.append(json.loads(file.read_bytes())["pid"])
        for pid in filter(None, pids):  # 0, which would be all of us, is one that has ended
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[Api, Gateway, httpx.AsyncClient, Replicas]]:
    """A cluster, a gateway that is not started yet, a user, and what makes replicas that run."""
    api, made = Api(), list[Backend]()

    async def run(name: str) -> Backend:
        made.append(Backend(name))
        await made[-1].start(PORT)
        return made[-1]

    await api.start()
    config = api.kubeconfig(folder / "config")
    gateway = Gateway(folder / "gateway", config)
    before, os.environ["KUBECONFIG"] = os.environ.get("KUBECONFIG"), str(config)
    async with httpx.AsyncClient(timeout=20.0, trust_env=False) as client:
        try:
            yield api, gateway, client, run
        finally:
            os.environ.pop("KUBECONFIG")
            if before is not None:
                os.environ["KUBECONFIG"] = before
            gateway.end()
            for backend in made:
                await backend.stop()
            await api.stop()


async def said(client: httpx.AsyncClient, url: str) -> str:
    try:
        answer = await client.post(url, json={})
    except httpx.HTTPError as e:
        return type(e).__name__
    return answer.text if answer.status_code == 200 else f"HTTP {answer.status_code}"


async def up(client: httpx.AsyncClient, gateway: Gateway) -> None:
    live = gateway.url.partition("/services")[0] + "/v2/health/live"
    end = asyncio.get_running_loop().time() + 60.0
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if (await client.get(live)).status_code == 200:
                return
        assert asyncio.get_running_loop().time() < end, "it does not come up"
        await asyncio.sleep(0.05)


async def answers(client: httpx.AsyncClient, url: str, name: str) -> None:
    """Until it is ``name`` who answers."""
    end = asyncio.get_running_loop().time() + 60.0
    while (found := await said(client, url)) != name:
        assert asyncio.get_running_loop().time() < end, found
        await asyncio.sleep(0.05)


def test_it_follows_the_cluster_outlives_it_and_leaves_without_losing_a_request(tmp_path: Path) -> None:
    """Routes and endpoints are the cluster's; while nobody tells of it, the last ones, also for one started anew."""

    async def story() -> None:
        async with world(tmp_path) as (api, gateway, client, run):
            one, two, three = await run("one"), await run("two"), await run("three")
            api.put("configmaps", wish(service(), "models"))
            api.put("pods", pod("one", one.address))
            gateway.start()
            await answers(client, gateway.url, "one")

            api.put("pods", pod("two", two.address))
            api.drop("pods", "one")
            await answers(client, gateway.url, "two")
            kept = gateway.home / "replicas.json"
            await until(lambda: kept.exists() and "two" in kept.read_text())
            await api.stop()
            assert {await said(client, gateway.url) for _ in range(5)} == {"two"}, "the API server is away"
            gateway.end()
            gateway.start()
            await answers(client, gateway.url, "two")

            await api.start()
            api.put("pods", pod("three", three.address))
            api.drop("pods", "two")
            await answers(client, gateway.url, "three")

            three.seconds, three.asked = 2.0, 0
            asked = asyncio.create_task(client.post(gateway.url, json={}))
            await until(lambda: three.asked)
            assert gateway.process is not None
            gateway.process.terminate()
            answer = await asked
            assert (answer.status_code, answer.text) == (200, "three"), "what was asked is answered"
            assert answer.headers["connection"] == "close", "and its client connects anew, to another one"
            await until(lambda: gateway.process is not None and gateway.process.poll() == 0)

    asyncio.run(story())


def test_control_hears_what_they_hold_and_were_asked_and_who_is_not_control_does_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as (api, gateway, client, run):
            api.put("configmaps", wish(service(0, scale=Scale(replicas=1, idle=60.0)), "models"))
            gateway.start()
            woken: list[str] = []
            settings = Settings(kubernetes=Kubernetes(namespace="models", gateway_pods=True))
            seen = Gateways(tmp_path / "home", settings, woken.append)
            cluster = Cluster(namespace="models")
            wishes = Mirror(cluster, Of("v1", "ConfigMap", ""), 600.0, lambda before, after: None)
            await wishes.relist()
            seen.join(cluster, SECRET, wishes)
            seen.recall()
            assert list(seen.services) == ["greeter"]
            (tmp_path / "home").mkdir()
            await seen.start(tmp_path)
            try:
                assert await seen.asked() is None and not seen.describe()["gateway"]["healthy"]
                gate = pod(NAME, gateway.address)
                gate["metadata"]["labels"] = {"app.kubernetes.io/name": NAME} | CHOSEN
                namesake = pod("namesake", loopback())
                labels = namesake["metadata"]["labels"]
                namesake["metadata"]["labels"] = {k: NAME if v == "greeter" else v for k, v in labels.items()}
                api.put("pods", namesake)
                api.put("pods", gate)
                await until(lambda: seen.describe()["gateway"]["healthy"])
                pages = f"http://{gateway.address}:{PAGES}"
                assert seen.describe()["gateway"]["pages"] == [f"{gateway.address}:{PAGES}"]
                await up(client, gateway)
                held = asyncio.create_task(client.post(gateway.url, json={}, timeout=60.0))
                await until(lambda: seen.held)
                assert seen.held == {("greeter", "main"): 1} and woken == ["greeter"], "one waits at zero replicas"
                assert await seen.asked() == {("greeter", "main"): (1, 1)}

                one = await run("one")
                api.put("pods", pod("one", one.address))
                assert (await held).text == "one"
                await until(lambda: not seen.held)
                assert (await client.get(f"{pages}/-/ready")).json() == {"healthy": True, "trouble": ""}
                assert "leptonai_edge_requests_total" in (await client.get(f"{pages}/metrics")).text
                for token in ({}, {"authorization": "Bearer guessed"}):
                    assert (await client.get(f"{pages}/access", headers=token)).status_code == 403
                assert (await client.post(f"{pages}/stats?filter=x")).status_code == 404, "it is looked at only"
                assert (await client.get(f"{pages}/quitquitquit")).status_code == 404
                one.answers = False  # told of, since it fails
                await client.post(gateway.url, json={})
                told = tmp_path / "home" / "envoy" / "access.jsonl"
                await until(lambda: told.exists() and "greeter@main" in told.read_text())
            finally:
                seen.close()
                await cluster.close()

    asyncio.run(story())


def test_what_a_service_states_is_shared_by_as_many_gateways_as_serve(tmp_path: Path) -> None:
    """Four requests at once of one caller: all by one gateway, two by each of two, four again when the other goes."""

    async def story() -> None:
        async with world(tmp_path) as (api, gateway, client, run):
            one = await run("one")
            api.put("configmaps", wish(service(rate_limit=RateLimit(rate=0.01, burst=4)), "models"))
            api.put("pods", pod("one", one.address))
            gateway.start()

            async def granted() -> int:
                """Of a caller who was not seen yet."""
                headers = {"authorization": f"Bearer {secrets.token_hex(8)}"}
                codes = [(await client.post(gateway.url, json={}, headers=headers)).status_code for _ in range(6)]
                return codes.count(200)

            await answers(client, gateway.url, "one")
            assert await granted() == 4
            for name, ready in (("a", True), ("b", True), ("c", False)):
                gate = pod(name, loopback(), ready)
                gate["metadata"]["labels"] = {"app.kubernetes.io/name": NAME} | CHOSEN
                api.put("pods", gate)
            await reached(granted, 2)
            api.drop("pods", "a")
            await reached(granted, 4)

    asyncio.run(story())


async def reached(count: Callable[[], Awaitable[int]], wanted: int) -> None:
    end = asyncio.get_running_loop().time() + 60.0
    while (found := await count()) != wanted:
        assert asyncio.get_running_loop().time() < end, found
        await asyncio.sleep(0.1)


def test_a_copy_of_a_wish_does_nothing_one_that_cannot_be_read_goes_with_its_object_and_what_broke_is_started_again(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as (api, gateway, client, run):
            one = await run("one")
            real = wish(service(), "models")
            copied = copy.deepcopy(real)
            copied["metadata"]["name"] = "backup"
            api.put("configmaps", real)
            api.put("pods", pod("one", one.address))
            gateway.start()
            await answers(client, gateway.url, "one")
            pages = f"http://{gateway.address}:{PAGES}"
            other = wish(
                Service(spec=replace(service().spec, name="other"), dials=service().dials, revision=1), "models"
            )
            api.put("configmaps", copied)
            api.drop("configmaps", "backup")
            api.put("configmaps", other)  # once it is routed, what came before it was seen
            await answers(client, gateway.url.replace("greeter", "other"), "HTTP 503")
            assert await said(client, gateway.url) == "one"

            unreadable = copy.deepcopy(real)
            unreadable["data"] = {"service.json": "{"}
            api.put("configmaps", unreadable)
            api.drop("configmaps", other["metadata"]["name"])
            await answers(client, gateway.url.replace("greeter", "other"), "HTTP 404")
            assert await said(client, gateway.url) == "one", "what it was stands"
            api.drop("configmaps", real["metadata"]["name"])
            await answers(client, gateway.url, "HTTP 404")

            assert (await client.get(f"{pages}/-/ready")).status_code == 200
            broken = pod("two", one.address)
            broken["metadata"]["creationTimestamp"] = "yesterday"
            api.put("pods", broken)
            await until(lambda: gateway.process is not None and gateway.process.poll() is not None)
            assert gateway.process is not None and gateway.process.poll() == 1

    asyncio.run(story())


def test_a_pod_that_is_silent_keeps_no_other_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers is asked again and again while the question to the other is still open."""

    async def story() -> None:
        monkeypatch.setattr(doubt, "PERIOD", 0.01)
        monkeypatch.setattr(doubt, "TIMEOUT", 60.0)
        doubts = doubt.Doubts()
        silence = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await silence.wait()
            writer.close()

        one, other = Backend("one"), loopback()
        await one.start(PORT)
        server = await asyncio.start_server(silent, other, PORT)
        for name, address in (("silent", other), ("one", one.address)):
            for ready in (True, False):
                made = pod(name, address, ready)
                doubts.saw(made, replica(made, 10.0, 0.0))
        running = asyncio.create_task(doubts.run(lambda: None))
        await until(lambda: one.probed >= 3)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        silence.set()
        server.close()
        await one.stop()

    asyncio.run(story())
    assert FRESH > PERIOD + TIMEOUT, "one that answers in time is never without a good answer"


def test_a_pod_that_the_cluster_calls_unready_is_asked_and_believed_while_it_answers() -> None:
    """Ready by its own word: only who was ready, in the same container, and answered of late."""

    async def story() -> None:
        now = 0.0
        doubts = Doubts(lambda: now)
        one = Backend("one")
        await one.start(PORT)
        ready, unready = pod("one", one.address), pod("one", one.address, ready=False)
        as_told = replica(unready, 10.0, 0.0)
        doubts.saw(unready, as_told)
        assert doubts.judged(as_told) == as_told, "never ready: nothing to go back to"
        doubts.saw(ready, replica(ready, 10.0, 0.0))
        doubts.saw(unready, as_told)
        assert doubts.judged(as_told).state == "ready", "the kubelet's last good word stands for a moment"
        now = FRESH + 1.0
        assert doubts.judged(as_told) == as_told
        asked = asyncio.Event()
        running = asyncio.create_task(doubts.run(asked.set))
        await asked.wait()
        assert doubts.judged(as_told).state == "ready"
        anew = pod("one", one.address, ready=False)
        anew["status"]["containerStatuses"][0]["containerID"] = "another"
        doubts.saw(anew, as_told)
        assert doubts.judged(as_told) == as_told, "another container has to become ready itself"
        running.cancel()
        await one.stop()

    asyncio.run(story())
