"""The whole of it in the loop of ops: a service fails, people are told over real HTTP, once, also across a restart."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))


from ops_stage import Model, Stage
from test_alert_send import hook

from leptonai.ops.alert.match import parse
from leptonai.settings import Alerts, EscalationStep, Receiver, Settings
from leptonai.types import Silence, Slo


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="al") as folder:
        yield Path(folder)


def settings_of(url: str, **more: Any) -> Settings:
    receivers = (
        Receiver(name="team", urls=(f"json://{url}/",), per_minute=600.0),
        Receiver(name="lead", urls=(f"json://{url}/",)),
    )
    wanted = {"group_wait": 2.0, "group_interval": 10.0, "keep_firing": 3.0} | more
    return Settings(alerts=Alerts(receivers=receivers, owners={"*": "team"}, **wanted))


async def until(stage: Stage, what: Callable[[], Any], limit: float = 60.0) -> None:
    """Let seconds of the stage pass until ``what()``; real time passes too, for the processes that send."""
    deadline = time.monotonic() + limit
    while not what():
        assert time.monotonic() < deadline, [e.kind for e in stage.store.events()][-20:]
        await stage.step()
        await asyncio.sleep(0.05)


def sent(stage: Stage, kind: str = "notification.sent") -> list[dict[str, Any]]:
    return [e.detail for e in stage.store.events(limit=10_000) if e.kind == kind]


def titles(got: Sequence[dict[str, Any]]) -> list[str]:
    return [g["title"] for g in got]


def test_the_owner_is_told_of_the_trouble_and_of_its_end_and_a_restart_tells_nobody_again(short: Path) -> None:
    async def scene(url: str, got: list[dict[str, Any]]) -> None:
        stage = Stage(short, settings_of(url))
        # windows of seconds: what burned is not forgotten by the restart, and must be over within the test
        stage.deploy(Model(), replicas=2, slo=Slo(latency=0.1, period=3600.0))
        await stage.step(30)
        assert got == []
        await stage.kill(stage.replicas()[0].id)
        await stage.kill(stage.replicas()[1].id)
        await until(stage, lambda: sent(stage))
        assert sent(stage)[0]["receiver"] == "team"
        assert "digits" in got[0]["title"]
        assert got[0]["title"].startswith("[FIRING")
        before = len(got)
        await stage.watch.pager.close()
        stage.watch.close()
        stage.watch = stage.new_watch()
        told = stage.watch.pager.kept.groups
        assert any(group.told for group in told.values())
        await until(stage, lambda: any(t.startswith("[RESOLVED") for t in titles(got)))
        again = [m["message"] for m in got[before:] if m["title"].startswith("[FIRING")]
        assert all("Told because: " in m for m in again), "only what fires or ends since, never the same once more"
        await stage.watch.pager.close()
        await stage.close()

    with hook() as (url, got):
        asyncio.run(scene(url, got))


def test_a_silence_keeps_it_quiet_and_ends_by_itself_once_all_is_over(short: Path) -> None:
    async def scene(url: str, got: list[dict[str, Any]]) -> None:
        stage = Stage(short, settings_of(url, escalation=(EscalationStep(after=1.0, receiver="lead"),)))
        stage.deploy(Model(), replicas=2)
        await stage.step(30)
        stage.store.put_silence(
            Silence(
                id=0, matchers=(parse("service=digits"),), starts=0.0, ends=stage.now + 1e6, by="ana", comment="drill",
                made=stage.now, until_resolved=True,
            )
        )  # fmt: skip
        await stage.kill(stage.replicas()[0].id)
        await until(stage, lambda: any(a.state == "firing" for a in stage.watch.pager.alerts))
        assert {a.muted for a in stage.watch.pager.alerts} == {"silence 1"}
        await until(stage, lambda: not stage.store.silences(after=stage.now))
        await stage.step(15)
        assert got == []
        assert sent(stage) == []
        await stage.watch.pager.close()
        await stage.close()

    with hook() as (url, got):
        asyncio.run(scene(url, got))


def test_nobody_answers_so_the_lead_is_called(short: Path) -> None:
    async def scene(url: str) -> None:
        stage = Stage(short, settings_of(url, escalation=(EscalationStep(after=20.0, receiver="lead"),)))
        stage.deploy(Model(errors=1.0), replicas=2)
        await until(stage, lambda: {"team", "lead"} <= {s["receiver"] for s in sent(stage)})
        (lead,) = [s for s in sent(stage) if s["receiver"] == "lead"][:1]
        assert lead["why"].startswith("nobody has acknowledged it for 2")
        await stage.watch.pager.close()
        await stage.close()

    with hook() as (url, _):
        asyncio.run(scene(url))


def test_a_receiver_that_fails_is_told_in_the_audit_log_and_tried_again(short: Path) -> None:
    async def scene(url: str) -> None:
        stage = Stage(short, settings_of(url, group_interval=600.0))  # nothing newer takes its place
        stage.deploy(Model(errors=1.0), replicas=2)  # a trouble that lasts: what has ended would be told instead
        await until(stage, lambda: any(d["attempt"] == 2 for d in sent(stage, "notification.failed")))
        assert sent(stage, "notification.failed")[0]["attempt"] == 1
        assert all(d["error"] and d["next"] for d in sent(stage, "notification.failed")[:2])
        assert sent(stage) == []
        await stage.watch.pager.close()
        await stage.close()

    with hook(503) as (url, _):
        asyncio.run(scene(url))


def test_a_damaged_memory_is_begun_anew(short: Path) -> None:
    (short / "alerts.json").write_text("{nonsense")

    async def scene() -> None:
        stage = Stage(short, Settings())
        stage.deploy(Model(), replicas=1)
        await stage.step(5)
        assert stage.watch.pager.alerts == []
        await stage.close()

    asyncio.run(scene())


def test_a_host_that_falls_silent_and_a_service_that_others_call_speak_for_them(short: Path) -> None:
    """Live: the services below are really ill, the agent really fell silent, and only the roots are told."""

    async def scene(url: str) -> None:
        stage = Stage(short, settings_of(url, host_silent=5.0))
        slo = Slo(latency=0.1, period=3600.0)
        for name in ("shop", "prices"):
            stage.deploy(Model(errors=1.0), name=name, replicas=1, slo=slo)
        pager = stage.watch.pager
        here, step = pager._host, pager.step
        heard: dict[str, float] = {}

        async def with_calls(now: float, incidents: Any, burns: Any, *_: Any) -> None:
            await step(now, incidents, burns, lambda: [("shop", "prices")], heard)

        pager.step = with_calls  # type: ignore[method-assign] - what spans and agents tell, told here

        def muted(service: str) -> set[str]:
            return {a.muted for a in pager.alerts if a.state == "firing" and a.labels.get("service") == service}

        await until(stage, lambda: muted("shop") and muted("prices"))
        await until(stage, lambda: any("of prices, which it calls" in why for why in muted("shop")))
        assert "" in muted("prices")
        heard[f"default/{here}"] = stage.now - 6.0  # the agent of this machine: not a word for six seconds
        await until(stage, lambda: any(a.labels["alertname"] == "HostDown" for a in pager.alerts if a.fired))
        await until(stage, lambda: "" not in muted("prices") | muted("shop"))
        assert any(why == "inhibited by HostDown" for why in muted("prices"))
        (down,) = (a for a in pager.alerts if a.labels["alertname"] == "HostDown")
        assert (down.state, down.muted, down.receivers) == ("firing", "", ("team",))
        heard[f"default/{here}"] = stage.now + 1e6  # it is back
        await until(stage, lambda: "" in muted("prices"))
        await pager.close()
        await stage.close()

    with hook() as (url, _):
        asyncio.run(scene(url))
