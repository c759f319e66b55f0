"""Every field of a spec that says where requests go, seen in a real Envoy: who answers, what is shed, what stays."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from plan_stage import Stage, TinyReplica, until
from test_gateway import is_equal, play, service, under_load

from leptonai.types import Balance, Dials, Limits, Outlier, Policy, RateLimit, Retry, Service, Variant, VariantDials

pytestmark = pytest.mark.world


def with_variant(wish: Service, name: str, dials: VariantDials, **main: Any) -> Service:
    """The service with a second variant beside the one it has."""
    variants = (*wish.spec.variants, Variant(name=name, model="n", idempotent=True))
    spec = msgspec.structs.replace(wish.spec, variants=variants)
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(**main), name: dials}), revision=2)


async def who(stage: Stage, times: int = 6, **more: Any) -> str:
    """Who answers all of ``times`` equal requests; "" when they were several."""
    answers = await stage.ask(times=times, **more)
    return next(iter(answers)) if len(answers) == 1 else ""


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_equal_keys_stay_on_one_replica_and_different_ones_use_all(tmp_path: Path, policy: Policy) -> None:
    """A header (a session, a prefix), a parameter of the query, a cookie; the first that is there decides."""
    balance = Balance(policy=policy, hash_on=("header:x-prefix", "query:user", "cookie:who"))

    async def story(stage: Stage) -> None:
        kinds = {
            "header": lambda n: {"headers": {"x-prefix": f"p{n}"}},
            "query": lambda n: {"path": f"/services/s/predict?user={n}"},
            "cookie": lambda n: {"headers": {"cookie": f"who={n}"}},
        }
        for kind, key in kinds.items():
            seen: set[str] = set()
            for n in range(90):  # which one is whose depends on the folder's name
                seen.add(await who(stage, times=3, **key(n)))
                if n >= 16 and seen == {"a", "b", "c"}:
                    break
            assert seen == {"a", "b", "c"}, kind
        first = await who(stage, headers={"x-prefix": "p1"})
        for n in range(8):
            asked = {"path": f"/services/s/predict?user={n}", "headers": {"x-prefix": "p1", "cookie": f"who={n}"}}
            assert await who(stage, times=1, **asked) == first

    play(tmp_path, story, service(balance=balance), names="abc")


def test_a_cookie_is_given_with_its_time_and_keeps_a_client_on_one_replica(tmp_path: Path) -> None:
    balance = Balance(policy="ring_hash", hash_on=("cookie:who",), cookie_ttl=3600.0)

    async def story(stage: Stage) -> None:
        owners = set()
        for _ in range(12):
            stage.client.cookies.clear()
            first = await stage.client.post("/services/s/predict")
            given = first.headers["set-cookie"]
            assert given.startswith("who=") and "Max-Age=3600" in given and "Path=/" in given
            owners.add(first.json()["by"])
            again = await stage.client.post("/services/s/predict")
            assert again.json()["by"] == first.json()["by"] and "set-cookie" not in again.headers
        assert owners <= {"a", "b"}

    play(tmp_path, story, service(balance=balance))


def test_the_address_of_a_client_keeps_it_on_one_replica(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        assert await who(stage, times=30)

    play(tmp_path, story, service(balance=Balance(policy="maglev", hash_on=("source",))))


def test_a_session_stays_with_one_variant_while_weights_share_the_others(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        a = stage.replicas[0]
        canary = await stage.replica("canary", variant="canary")
        wish = with_variant(service(balance="maglev"), "canary", VariantDials(weight=1.0))
        await stage.push([wish], [a.noun(), canary.noun()])
        await until(lambda: is_equal(stage.healthy("s@canary"), 1), "the canary is healthy")
        owners = Counter([await who(stage, headers={"x-session-id": str(n)}) for n in range(24)])
        assert set(owners) == {"a", "canary"} and min(owners.values()) > 2, owners

    play(tmp_path, story, names="a")


def test_a_hot_key_spills_over_when_its_load_is_bounded(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        for r in stage.replicas:
            r.delay = 0.3
        same = {"x-session-id": "hot"}
        await until(lambda: spread(stage, same), "what is in flight on one moves the others")
        await stage.push([service(balance="maglev")], [r.noun() for r in stage.replicas])
        assert len(await stage.ask(times=30, headers=same)) == 1, "unbounded, one replica gets them all"

    play(tmp_path, story, service(balance=Balance(policy="maglev", load_factor=1.0)))


def test_round_robin_takes_turns(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        answers: Counter[str] = Counter()
        for _ in range(40):
            answers += await stage.ask()
        assert min(answers.values()) >= 17, answers  # each of two workers takes its own turns

    play(tmp_path, story, service(balance="round_robin"))


@pytest.mark.parametrize("policy", ["round_robin", "least_request"])
def test_a_new_replica_gets_little_at_first(tmp_path: Path, policy: Policy) -> None:
    wish = service(balance=Balance(policy=policy, slow_start=5.0))

    async def story(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await until(lambda: loop.time() - began > 5.5, "the first one is warm")
        shares = []
        for n in range(5):  # the machine may be too busy to look at once
            await stage.replica(f"new{n}")
            await stage.push([wish], [stage.replicas[0].noun(), stage.replicas[-1].noun()])
            await until(lambda: is_equal(stage.healthy(), 2), "the new one is healthy")
            seen: Counter[str] = Counter()
            for _ in range(40):
                seen += await stage.ask()
            shares.append(seen[f"new{n}"] / 40)
            if 0.0 < shares[-1] < 0.4:
                break
        assert min(shares) < 0.4, shares

    play(tmp_path, story, wish, names="a")


def test_one_that_answers_only_errors_is_left_out_but_never_all(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        a, b = stage.replicas
        a.status = 500
        assert (await stage.ask(times=60))["a"], "its probe passes, so it is asked"
        await until(lambda: only(stage, "b"), "a is left out")
        b.status = 500
        for _ in range(6):
            answers = await stage.ask(times=20)
            assert answers["a"] + answers["b"] == 20, "one always stays: a broken answer beats none"
            assert (await stage.stats())["cluster.s@main.outlier_detection.ejections_active"] <= 1
        a.status = b.status = 200
        await until(lambda: answered(stage, "a"), "a is back")
        await until(lambda: answered(stage, "b"), "so is b")

    play(tmp_path, story, service(outlier=Outlier(errors=3, eject=2.0)))


def test_the_only_replica_is_never_left_out(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.replicas[0].status = 500
        assert await stage.ask(times=40) == {"a": 40} and await is_out(stage, 0)

    play(tmp_path, story, service(outlier=Outlier(errors=1)), names="a")


async def is_out(stage: Stage, count: int) -> bool:
    return bool((await stage.stats())["cluster.s@main.outlier_detection.ejections_active"] == count)


async def spread(stage: Stage, headers: dict[str, str]) -> bool:
    return len(await stage.ask(times=30, headers=headers)) == 2


async def only(stage: Stage, name: str) -> bool:
    return bool(await stage.ask(times=10) == {name: 10})


async def answered(stage: Stage, name: str) -> bool:
    return bool((await stage.ask(times=4))[name])


@pytest.mark.parametrize("retry", [Retry(attempts=0), Retry(budget=0.0, min=0)], ids=["no attempts", "no budget"])
def test_repetitions_are_bounded(tmp_path: Path, retry: Retry) -> None:
    async def story(stage: Stage) -> None:
        stage.replicas[0].status = 503
        statuses = [(await stage.client.post("/services/s/x")).status_code for _ in range(30)]
        assert statuses.count(503) == len(stage.replicas[0].asked) > 0, "none was repeated"
        await stage.push([service()], [r.noun() for r in stage.replicas])
        assert await stage.ask(times=30) == {"b": 30}, "by default all are"

    play(tmp_path, story, service(retry=retry))


def test_a_budget_keeps_repetitions_from_multiplying_trouble(tmp_path: Path) -> None:
    """Every replica fails everything: with a budget of a fifth, far fewer requests reach them than times allowed."""

    async def story(stage: Stage) -> None:
        for r in stage.replicas:
            r.status, r.delay = 503, 0.3

        async def reached() -> int:
            """Of 60 that all fail at once, however long this machine takes to send them."""
            before = sum(len(r.asked) for r in stage.replicas)
            for r in stage.replicas:
                r.gate.clear()
            asking = asyncio.gather(*(stage.client.post("/services/s/x") for _ in range(60)))
            await until(lambda: sum(len(r.asked) for r in stage.replicas) == before + 60, "all are in flight")
            for r in stage.replicas:
                r.gate.set()
            await asking
            return sum(len(r.asked) for r in stage.replicas) - before

        assert 60 <= (bounded := await reached()) < 60 * 1.6, bounded
        await stage.push([service(retry=Retry(budget=1.0))], [r.noun() for r in stage.replicas])
        assert await reached() >= 60 * 2, "unbounded, they multiply"

    play(tmp_path, story, service(retry=Retry(budget=0.2, min=2)), hedge_after=60.0)


async def at_once(stage: Stage, refused: int) -> list[httpx.Response]:
    """Answers to 20 requests, none of which is through before so many others are refused."""
    gate = stage.replicas[0].gate
    gate.clear()
    asking = [asyncio.create_task(stage.client.post("/services/s/x")) for _ in range(20)]
    await until(lambda: sum(a.done() for a in asking) >= refused, "what is too many is refused")
    gate.set()
    return await asyncio.gather(*asking)


def test_what_is_over_a_limit_is_shed_with_429_and_told_when_to_come_back(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        answers = await at_once(stage, refused=16)
        shed = [a for a in answers if a.status_code == 429]
        assert len(answers) - len(shed) in (3, 4) and stage.replicas[0].busiest <= 4
        assert {(a.json()["code"], a.json()["retry"], a.headers["retry-after"]) for a in shed} == {
            ("overloaded", True, "1")
        }
        assert await stage.ask() == {"a": 1}, "and it serves on"

    play(tmp_path, story, service(limits=Limits(requests=3)), names="a", hedge_after=60.0)


def test_connections_of_a_replica_are_bounded(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        for r in stage.replicas:
            r.delay = 0.1
        answers = await stage.ask(times=24)
        assert answers["a"] + answers["b"] + answers["overloaded"] == 24
        assert max(r.busiest for r in stage.replicas) <= 2 * 2, "of each of Envoy's two workers"

    play(tmp_path, story, service(limits=Limits(replica_connections=2)))


def test_connections_and_waiting_requests_of_a_variant_are_bounded(tmp_path: Path) -> None:
    """Two connections (each of Envoy's two workers may have one more), three that wait for one, the rest is shed."""

    async def story(stage: Stage) -> None:
        answers = await at_once(stage, refused=12)
        shed = [a for a in answers if a.status_code == 429]
        assert {a.json()["code"] for a in shed} == {"overloaded"}
        assert 5 <= len(answers) - len(shed) <= 4 + 3 + 1 and stage.replicas[0].busiest <= 4
        assert await stage.ask() == {"a": 1}, "and it serves on"

    play(
        tmp_path,
        story,
        service(limits=Limits(connections=2, pending=3), retry=Retry(attempts=0)),
        names="a",
        hedge_after=60.0,
    )


def test_each_token_has_its_rate_on_all_paths_together(tmp_path: Path) -> None:
    def token(name: str) -> dict[str, Any]:
        return {"headers": {"authorization": f"Bearer {name}"}}

    async def story(stage: Stage) -> None:
        b = await stage.replica("b", service="free")
        limited = service(rate_limit=RateLimit(rate=0.01, burst=5, anonymous=0.01))
        await stage.push([limited, service("free")], [stage.replicas[0].noun(), b.noun()])
        await until(lambda: is_equal(stage.healthy("free@main"), 1), "the other is healthy")
        seen = await stage.ask(times=4, **token("ana"))
        seen += await stage.ask("/v2/models/s/infer", times=4, **token("ana"))
        assert seen == {"a": 5, "rate_limited": 3}
        assert await stage.ask(times=5, **token("bob")) == {"a": 5}, "another's is its own"
        assert await stage.ask(times=7) == {"a": 5, "rate_limited": 2}, "all without a token share one"
        assert await stage.ask("/services/free/x", times=9) == {"b": 9}, "another service is not limited"
        answer = await stage.client.post("/services/s/x", **token("ana"))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["retry"] is True

    play(tmp_path, story, names="a")


def test_a_share_is_shed_on_all_paths_and_told_to_come_back(tmp_path: Path) -> None:
    """Half of 200 requests, give or take five standard deviations (7.1)."""

    async def story(stage: Stage) -> None:
        wish = service()
        shedding = msgspec.structs.replace(wish, dials=msgspec.structs.replace(wish.dials, shed=0.5))
        await stage.push([shedding], [stage.replicas[0].noun()])
        await until_shed(stage)
        for path in ("/services/s/x", "/v2/models/s/infer"):
            seen = await stage.ask(path, times=200)
            assert seen.keys() == {"a", "shed"} and 65 <= seen["shed"] <= 135, seen
        answers = [await stage.client.post("/services/s/x") for _ in range(20)]
        refused = next(a for a in answers if a.status_code != 200)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["code"] == "shed" and refused.json()["retry"] is True
        assert (await stage.client.post("/services/s/-/fault")).status_code == 404

    async def until_shed(stage: Stage) -> None:
        for _ in range(500):
            if "shed" in await stage.ask(times=2):
                return
        raise AssertionError("nothing is shed")

    play(tmp_path, story, names="a")


def test_a_refusal_keeps_the_connection(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.client.base_url.port)
        statuses = []
        for _ in range(4):
            head = b"POST /services/s/x HTTP/1.1\r\nhost: t\r\ncontent-length: 100000\r\n\r\n"
            writer.write(head + b"x" * 100_000)
            answer = await reader.readuntil(b"\r\n\r\n")
            lines = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:-2])
            await reader.readexactly(int(lines[b"content-length"]))
            assert lines.get(b"connection") != b"close"
            statuses.append(int(answer.split()[1]))
        assert statuses == [200, 429, 429, 429]
        writer.close()
        await writer.wait_closed()

    play(tmp_path, story, service(rate_limit=RateLimit(rate=0.01)), names="a")


@pytest.mark.parametrize("trouble", ["slow", "errors", "hung", "dead"])
def test_what_a_mirror_does_never_touches_the_answer(tmp_path: Path, trouble: str) -> None:
    async def story(stage: Stage) -> None:
        a = stage.replicas[0]
        shadow: TinyReplica = await stage.replica("shadow", variant="shadow")
        wish = with_variant(service(), "shadow", VariantDials(weight=0.0, mirror=1.0))
        await stage.push([wish], [a.noun(), shadow.noun()])
        await until(lambda: is_equal(stage.healthy("s@shadow"), 1), "the mirror is healthy")
        match trouble:
            case "slow":
                shadow.delay = 60.0
            case "errors":
                shadow.status = 500
            case "hung":
                shadow.hang()
            case "dead":
                shadow.die()
        began = asyncio.get_running_loop().time()
        assert await stage.ask(times=20) == {"a": 20}
        assert asyncio.get_running_loop().time() - began < 20.0, "nobody waits for a mirror"
        if trouble in ("slow", "errors"):
            await until(lambda: len(shadow.asked) == 20, "each was copied")
        assert len(a.asked) == 20

    play(tmp_path, story, names="a", hedge_after=60.0)


@pytest.mark.parametrize("watches", [None, 0], ids=["own files", "in cds.json"])
def test_a_whole_set_swapped_under_load_loses_nothing_wherever_it_is_kept(tmp_path: Path, watches: int | None) -> None:
    """Old ones are taken out only once Envoy's own check has passed the new ones, as the platform waits for."""

    async def story(stage: Stage) -> None:
        async def swap() -> None:
            for i in range(3):
                new = [await stage.replica(f"{i}{n}") for n in "xy"]
                old = stage.replicas[-4:-2]
                await stage.push([service()], [r.noun() for r in (*old, *new)])
                await until(lambda: is_equal(stage.healthy(), 4), "the new ones are healthy")
                await stage.push([service()], [r.noun() for r in new])

        answers = await under_load(stage, swap, seconds=0.2)
        assert set(answers) <= {"a", "b", *(f"{i}{n}" for i in range(3) for n in "xy")}, answers
        made = stage.written["cds.json"]["resources"][0]["type"]
        assert made == ("EDS" if watches is None else "STATIC")

    play(tmp_path, story, watches=watches)


def test_a_service_comes_from_zero_and_goes_back(tmp_path: Path) -> None:
    def wish(n: int) -> Service:
        return msgspec.structs.replace(service(), dials=Dials(variants={"main": VariantDials(replicas=n)}))

    async def story(stage: Stage) -> None:
        a = stage.replicas[0]
        await stage.push([wish(0)], [])
        assert await stage.ask() == {"no_ready_replica": 1}
        await stage.push([wish(1)], [a.noun()])
        await until(lambda: is_equal(stage.healthy(), 1), "it is healthy")
        assert await stage.ask(times=5) == {"a": 5}
        await stage.push([wish(0)], [a.noun()])
        assert await stage.ask(times=5) == {"a": 5}, "what still runs still answers"
        await stage.push([wish(0)], [a.noun("stopping")])
        assert await stage.ask() == {"no_ready_replica": 1}

    play(tmp_path, story, names="a")


def test_names_that_begin_alike_are_different_services(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        b = await stage.replica("b", service="s-2")
        await stage.push([service(), service("s-2")], [stage.replicas[0].noun(), b.noun()])
        await until(lambda: is_equal(stage.healthy("s-2@main"), 1), "healthy")
        for path in ("/services/{}/x", "/v2/models/{}", "/v2/models/{}?a=/b", "/v2/models/{}/infer"):
            assert await stage.ask(path.format("s")) == {"a": 1}, path
            assert await stage.ask(path.format("s-2")) == {"b": 1}, path
            assert await stage.ask(path.format("s-")) == {"not_found": 1}, path
            assert await stage.ask(path.format("s-22")) == {"not_found": 1}, path

    play(tmp_path, story, names="a")
