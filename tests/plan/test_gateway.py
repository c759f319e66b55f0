"""A real Envoy does what the files say: who answers, what is repeated, what is refused, and how changes take effect."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from plan_stage import Stage, TinyReplica, stage, until

from leptonai.types import Balance, Dials, Policy, Service, Spec, Variant, VariantDials

pytestmark = pytest.mark.world


def service(
    name: str = "s",
    idempotent: bool = True,
    workspace: str = "default",
    balance: Policy | Balance = "least_request",
    **more: Any,
) -> Service:
    fields: dict[str, Any] = {"timeout": 20.0, **more}
    variant = Variant(model="m", idempotent=idempotent)
    spec = Spec(name=name, workspace=workspace, variants=(variant,), balance=balance, **fields)
    return Service(spec=spec, dials=Dials(), revision=1)


def play(
    folder: Path, story: Callable[[Stage], Awaitable[None]], *services: Service, names: str = "ab", **more: Any
) -> None:
    async def run() -> None:
        async with stage(folder, list(services) or [service()], list(names), **more) as made:
            await story(made)

    asyncio.run(run())


def test_requests_spread_over_the_ready_ones_and_follow_every_push(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        a, b = stage.replicas
        assert set(await stage.ask(times=40)) == {"a", "b"}
        await stage.push([service()], [a.noun()])
        assert await stage.ask(times=40) == {"a": 40}, "what was taken out gets nothing, though it is healthy"
        c = await stage.replica("c")
        await stage.push([service()], [b.noun(), c.noun()])
        await until(lambda: is_equal(stage.healthy(), 2), "new ones are healthy")
        assert set(await stage.ask(times=40)) == {"b", "c"}
        other = await stage.replica("o", service="other")
        await stage.push([service(), service("other")], [b.noun(), other.noun()])
        assert await stage.ask("/services/other/predict") == {"o": 1}
        await stage.push([service("other")], [other.noun()])
        assert await stage.ask() == {"not_found": 1}

    play(tmp_path, story)


def test_requests_in_flight_finish_on_a_replica_that_was_taken_out(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        a, b = stage.replicas
        for r in stage.replicas:
            r.delay = 0.5
        asking = asyncio.create_task(stage.ask(times=20))
        await until(lambda: len(a.asked) > 3, "requests are in flight")
        await stage.push([service()], [b.noun()])
        answers = await asking
        assert answers["a"] > 3 and answers.total() == 20 == answers["a"] + answers["b"]

    play(tmp_path, story)


@pytest.mark.parametrize("balance", ["ring_hash", "maglev"])
def test_a_session_stays_on_one_replica(tmp_path: Path, balance: Policy) -> None:
    async def story(stage: Stage) -> None:
        served = set()
        for session in range(60):  # which one is whose depends on the folder's name
            answers = await stage.ask(times=5, headers={"x-session-id": str(session)})
            assert len(answers) == 1
            served |= set(answers)
            if session >= 12 and served == {"a", "b"}:
                break
        assert served == {"a", "b"}

    play(tmp_path, story, service(balance=balance))


async def is_equal(value: Awaitable[Any], wanted: Any) -> bool:
    return bool(await value == wanted)


async def under_load(stage: Stage, event: Callable[[], Awaitable[None]], seconds: float = 1.5) -> Counter[str]:
    """Answers to 16 connections that ask without pause while ``event`` happens, and for ``seconds`` after it."""
    answers: Counter[str] = Counter()
    stop = False

    async def client() -> None:
        nonlocal answers
        while not stop:
            answers += await stage.ask()

    clients = [asyncio.create_task(client()) for _ in range(16)]
    await until(lambda: answers.total() > 200, "traffic flows")
    await event()
    so_far = answers.total()
    await until(lambda: answers.total() > so_far + 200, "traffic flows on")
    await asyncio.sleep(seconds)
    stop = True
    await asyncio.gather(*clients)
    return answers


def test_least_request_avoids_the_busy_one(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.replicas[0].delay = 1.0  # the other one must win by far, however busy this machine is

        async def nothing() -> None: ...

        answers = await under_load(stage, nothing)
        assert answers["b"] > 2 * answers["a"] > 0, answers

    play(tmp_path, story)


def test_a_replica_killed_under_load_fails_no_idempotent_request(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        a, b = stage.replicas

        async def kill() -> None:
            a.die()
            await asyncio.sleep(0.2)  # the platform needs a moment to notice
            await stage.push([service()], [b.noun()])

        answers = await under_load(stage, kill)
        assert set(answers) == {"a", "b"}, answers

    play(tmp_path, story)


def test_a_request_that_may_have_run_is_repeated_only_when_idempotent(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        a, b = stage.replicas
        for r in stage.replicas:
            r.delay = 0.6
        asking = asyncio.create_task(stage.ask(times=12))
        await until(lambda: len(a.asked) + len(b.asked) == 12, "all are in flight")
        lost = len(a.asked)
        assert lost > 0
        a.die()
        answers = await asking
        assert answers == {"b": 12 - lost, "replica_lost": lost}, "failed at once, and was not run twice"
        assert len(b.asked) == 12 - lost

    play(tmp_path, story, service(idempotent=False))


def test_a_refused_connection_is_repeated_for_every_kind(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.replicas[0].die()
        assert await stage.ask(times=40) == {"b": 40}

    play(tmp_path, story, service(idempotent=False))


def test_503_of_a_replica_is_repeated_on_another(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.replicas[0].status = 503
        assert await stage.ask(times=40) == {"b": 40}
        assert stage.replicas[0].asked, "it was tried"

    play(tmp_path, story)


@pytest.mark.parametrize("told", [False, True], ids=["only Envoy notices", "the platform says so too"])
def test_a_hung_replica_leaves_rotation_and_no_idempotent_request_waits_for_it(tmp_path: Path, told: bool) -> None:
    async def story(stage: Stage) -> None:
        a, b = stage.replicas
        a.hang()
        asking = asyncio.create_task(stage.ask(times=20))
        await until(lambda: b.asked, "requests are in flight")
        if told:
            await stage.push([service()], [a.noun("failed", "hung"), b.noun()])
        assert await asking == {"b": 20}
        await until(lambda: is_equal(stage.healthy(), 1), "it has left")
        a.running.set()
        await stage.push([service()], [a.noun(), b.noun()])
        await until(lambda: is_equal(stage.healthy(), 2), "it is back")

    play(tmp_path, story, hedge_after=1.0, health_timeout=1.0)


def test_a_replica_that_says_it_is_not_ready_gets_nothing(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.replicas[0].ready = False
        await until(lambda: is_equal(stage.healthy(), 1), "it is out")
        assert await stage.ask(times=20) == {"b": 20}
        for r in stage.replicas:
            r.ready = False
        await until(lambda: is_equal(stage.healthy(), 0), "both are out")
        answer = await stage.client.post("/services/s/predict")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
        body = answer.json()
        assert (body["code"], body["retry"]) == ("no_ready_replica", True) and body["error"] and body["hint"]
        stage.replicas[0].ready = True
        await until(lambda: is_equal(stage.healthy(), 1), "recovery does not wait for a minute of traffic")

    play(tmp_path, story)


def test_no_endpoint_is_a_503_that_may_be_retried(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        assert await stage.ask() == {"no_ready_replica": 1}

    play(tmp_path, story, names="")


def test_paths(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        a = stage.replicas[0]
        b = await stage.replica("b", service="team/s")
        wishes = [service(), service(workspace="team")]
        await stage.push(wishes, [a.noun(), b.noun()])

        async def path(asked: str) -> str:
            answer = (await stage.client.get(asked)).json()
            return f"{answer['by']} {answer['path']}" if "by" in answer else answer["code"]

        assert await path("/services/s/predict") == "a /predict"
        assert await path("/services/s/v1/deep?q=1") == "a /v1/deep?q=1"
        assert await path("/v2/models/s/infer") == "a /v2/models/s/infer"
        assert await path("/v2/models/s") == "a /v2/models/s"
        assert await path("/workspaces/team/services/s/predict") == "b /predict"
        assert await path("/workspaces/team/v2/models/s/infer") == "b /v2/models/s/infer"
        for hidden in ("/-/fault", "/%2d/fault", "//-/fault", "/x/../-/fault", "/./-/ready", "/-", "/%2D%2Fready"):
            assert await path(f"/services/s{hidden}") in ("not_found", "gateway"), hidden
        for unknown in ("/", "/services/none/predict", "/v2/models/s2/infer", "/services/s2/predict", "/-/ready"):
            assert await path(unknown) == "not_found", unknown
        assert not any(q["path"].startswith("/-") for r in stage.replicas for q in r.asked)
        live = await stage.client.get("/v2/health/live")
        assert (live.status_code, live.json()) == (200, {"live": True})

    play(tmp_path, story, names="a")


def test_request_ids_are_kept_or_made_and_told(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        [a] = stage.replicas
        for given in ("mine-1", "0b8c1d3e-8f6c-4a73-9d3c-2f1f5f3a7e11"):
            answer = await stage.client.get("/services/s/x", headers={"x-request-id": given})
            assert answer.headers.get_list("x-request-id") == [given] == [a.asked[-1]["headers"]["x-request-id"]]
        answer = await stage.client.get("/services/s/x")
        assert answer.headers.get_list("x-request-id") == [a.asked[-1]["headers"]["x-request-id"]]
        assert (await stage.client.get("/none")).headers["x-request-id"]

    play(tmp_path, story, names="a")


def test_clients_cannot_speak_to_envoy_through_its_own_headers(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.replicas[0].status = 503
        headers = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "9", "x-envoy-upstream-rq-timeout-ms": "1"}
        answer = await stage.client.post("/services/s/x", headers=headers)
        assert answer.status_code == 503
        assert len(stage.replicas[0].asked) == 1
        assert not headers.keys() & stage.replicas[0].asked[0]["headers"].keys()
        assert not any(k.startswith("x-envoy") for k in answer.headers)

    play(tmp_path, story, service(idempotent=False), names="a")


def test_time_and_size_have_limits_said_in_our_shape(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        [a] = stage.replicas
        ok = await stage.client.post("/services/s/x", content=b"x" * 1_900_000)
        assert ok.json()["size"] == 1_900_000

        async def chunks() -> Any:
            for _ in range(30):
                yield b"x" * 100_000

        for content in (b"x" * 2_200_000, chunks()):
            try:
                big = await stage.client.post("/services/s/x", content=content)
            except httpx.WriteError:  # refused while still being sent: the answer is lost with the connection
                continue
            assert (big.status_code, big.json()["code"], big.json()["retry"]) == (413, "too_large", False)
        assert len(a.asked) == 1
        a.delay = 30.0
        late = await stage.client.post("/services/s/x")
        assert (late.status_code, late.json()["code"]) == (504, "timeout")

    play(tmp_path, story, service(timeout=2.0), names="a", max_body=2_000_000)


def test_large_bodies_are_repeated_too(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.replicas[0].status = 503
        for _ in range(8):
            answer = await stage.client.post("/services/s/x", content=b"x" * 5_000_000)
            assert answer.json() == {"by": "b", "path": "/x", "size": 5_000_000}
        assert stage.replicas[0].asked

    play(tmp_path, story)


def test_feedback_reaches_control_and_waits_for_its_restart(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        control = await stage.replica("control")
        answer = await stage.client.post("/feedback", json={})
        assert answer.json()["path"] == "/api/v1/feedback"
        control.die()
        control.path.unlink()
        asking = asyncio.create_task(stage.client.post("/feedback", json={}))
        await asyncio.sleep(0.3)
        await control.start()
        assert (await asking).json()["by"] == "control"

    play(tmp_path, story, control=f"unix:{tmp_path / 'control.sock'}", names="a")


def test_a_mirror_gets_copies(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        [a] = stage.replicas
        shadow = await stage.replica("shadow", variant="shadow")
        wish = service()
        spec = msgspec.structs.replace(
            wish.spec, variants=(*wish.spec.variants, Variant(name="shadow", model="n", idempotent=True))
        )
        dials = Dials(variants={"main": VariantDials(), "shadow": VariantDials(weight=0.0, mirror=1.0)})
        await stage.push([Service(spec=spec, dials=dials, revision=2)], [a.noun(), shadow.noun()])
        await until(lambda: is_equal(stage.healthy("s@shadow"), 1), "the mirror is healthy")
        assert await stage.ask(times=10) == {"a": 10}
        await until(lambda: len(shadow.asked) == 10, "every request was copied")

    play(tmp_path, story, names="a")


def test_statistics_name_the_cluster_of_other_workspaces_whole(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        assert await stage.ask("/workspaces/team/services/s/x") == {"a": 1}
        text = (await stage.admin.get("/stats/prometheus?usedonly")).text
        assert 'envoy_cluster_upstream_rq_total{envoy_cluster_name="team.s@main"} 1' in text
        assert 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="team.s@main"} 1' in text

    async def run() -> None:
        async with stage(tmp_path, [service(workspace="team")], []) as made:
            r: TinyReplica = await made.replica("a", service="team/s")
            await made.push([service(workspace="team")], [r.noun()])
            await until(lambda: is_equal(made.healthy("team.s@main"), 1), "healthy")
            await story(made)

    asyncio.run(run())
