"""The hand that follows custom resources, against an API server: what it writes, when it is quiet, what it survives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_stage import ApiServer, Running

from leptonai.admit import Door
from leptonai.client.wire import ServiceView
from leptonai.platforms.kubernetes.cluster import Cluster
from leptonai.serve.resource import loop
from leptonai.serve.resource.loop import Around, Resources, Seen
from leptonai.settings import Admit, Settings
from leptonai.store import Store
from leptonai.types import Key, Proposal, SpecChange, Token

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
OPS = Token(name="ops", role="operator", secret_sha256="", created=0.0)
ROOT = Token(name="root", role="admin", secret_sha256="", created=0.0)


class Stage:
    """An API server, a store with its door, a platform where every replica is ready at once, and the hand."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.api = ApiServer()
        self.store = Store(folder / "store.db")
        self.frozen, self.now, self.left = "", 1_700_000_000.0, 0
        self.approval: tuple[str, ...] = ()
        self.proposals: list[Proposal] = []
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.hand: Resources | None = None

    @property
    def door(self) -> Door:
        return Door(
            self.store, Settings(admit=Admit(approval=self.approval)), clock=lambda: self.now,
            frozen=lambda: self.frozen, on_change=self._changed,
        )  # fmt: skip

    def _changed(self, key: Key) -> None:
        if self.hand is not None:
            self.hand.changed(key)

    def propose(self, change: Any, why: str, by: str) -> Proposal:
        made = self.door.propose(change, OPS, why, by=by)
        self.proposals.append(made)
        return made

    def look(self, keys: Iterable[Key]) -> Seen:
        views = {}
        for service in self.store.services(self.now):
            wanted = sum(d.replicas for d in service.dials.variants.values())
            views[service.key] = ServiceView(
                service=service, replicas=(), ready=wanted, wanted=wanted, status="", url=f"http://gw/{service.key}"
            )
        return Seen(views, dict.fromkeys(keys, self.left), {})

    def play(self, story: Callable[[Resources], Awaitable[None]]) -> None:
        async def run(url: str) -> None:
            config = {
                "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "models"}}],
                "current-context": "x",
            }  # fmt: skip
            file = self.folder / "kubeconfig"
            file.write_text(yaml.safe_dump(config))
            self.monkeypatch.setenv("KUBECONFIG", str(file))
            cluster = Cluster()

            def record(kind: str, subject: str, detail: dict[str, Any]) -> None:
                self.events.append((kind, subject, detail))

            def pending(key: Key) -> list[Proposal]:
                return self.store.proposals(status="pending", service=key)

            around = Around(self.propose, self.store.revisions, pending, self.look, record)
            self.hand = Resources(cluster, around, 600.0, lambda: self.now)
            self.following = asyncio.create_task(self.hand.run())
            try:
                await story(self.hand)
            finally:
                assert not self.following.done(), self.following
                self.following.cancel()
                await asyncio.gather(self.following, return_exceptions=True)
                await cluster.close()

        with Running(self.api) as url:
            asyncio.run(run(url))

    def status(self, name: str = "digits") -> dict[str, Any]:
        return self.api.objects.get(name, {}).get("status") or {}

    def condition(self, kind: str = "Synced", name: str = "digits") -> tuple[str, str, str]:
        found = [c for c in self.status(name).get("conditions") or [] if c["type"] == kind]
        return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")

    async def until(self, done: Callable[[], Any], what: str) -> None:
        """Time passes while we wait: what may be told each 2 s is told."""
        for _ in range(1500):
            if done():
                return
            self.now += 0.5
            if self.hand is not None:
                self.hand._wake.set()
            await asyncio.sleep(0.02)
        raise AssertionError(f"{what}: {self.api.objects}")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(loop, "PERIOD", 0.05)
    monkeypatch.setattr(loop, "SERVED_AGAIN", 0.05)
    monkeypatch.setattr(loop, "LOOK_AGAIN", 0.2)
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.store.close()


def test_a_resource_becomes_a_service_is_told_of_and_goes_when_it_has_drained(stage: Stage) -> None:
    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": A, "replicas": 2})
        await stage.until(lambda: stage.status().get("state") == "Ready", "ready")
        status = stage.status()
        assert status | {"conditions": []} == {
            "observedGeneration": 1, "admittedGeneration": 1, "service": "digits", "revision": 1, "ready": "2/2",
            "replicas": 2, "readyReplicas": 2, "url": "http://gw/digits", "state": "Ready", "conditions": [],
        }  # fmt: skip
        head = stage.store.head("digits")
        assert head is not None and head.by == "gitops:models/digits@1"
        stage.api.apply("digits", {"model": B, "replicas": 2})
        await stage.until(lambda: stage.status().get("revision") == 2, "the second revision")
        stage.left = 2
        stage.api.delete("digits")
        await stage.until(lambda: stage.store.head("digits") is None, "deleted")
        await stage.until(lambda: stage.status().get("state") == "Deleting", "draining")
        assert stage.api.objects, "it waits for what still runs"
        stage.left = 0
        await stage.until(lambda: not stage.api.objects, "gone")

    stage.play(story)
    assert [p.by for p in stage.proposals] == [f"gitops:models/digits@{n}" for n in (1, 2, 3)]


def test_what_was_settled_costs_neither_a_call_nor_a_proposal(stage: Stage) -> None:
    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": A})
        await stage.until(lambda: stage.status().get("state") == "Ready", "ready")
        await stage.until(lambda: hand._declared["digits"].status == stage.status(), "heard of")
        calls, proposals = len(stage.api.calls), len(stage.proposals)
        for _ in range(50):
            stage.now += 3.0
            await hand.once()
        assert stage.api.calls[calls:] == [] and len(stage.proposals) == proposals

    stage.play(story)


def test_what_the_door_refuses_is_told_and_is_asked_again_seldom(stage: Stage) -> None:
    async def story(hand: Resources) -> None:
        stage.frozen = "human:ana: nobody touches anything"
        stage.api.apply("digits", {"model": A})
        await stage.until(lambda: stage.condition()[1] == "Denied", "denied")
        assert "the kill switch is on" in stage.condition()[2] and stage.status()["state"] == "Refused"
        begun, asked = stage.now, len(stage.proposals)
        for _ in range(300):
            stage.now += 1.0
            await hand.once()
        assert len(stage.proposals) - asked <= 8, f"in {stage.now - begun:.0f} s"
        stage.frozen = ""
        await stage.until(lambda: stage.condition()[0] == "True", "thawed")
        assert [e[2]["reason"] for e in stage.events if e[0] == "resource.refused"] == ["Denied"]

    stage.play(story)


def test_an_unknown_field_is_told_and_the_old_revision_serves_on(stage: Stage) -> None:
    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": A})
        await stage.until(lambda: stage.status().get("state") == "Ready", "ready")
        stage.api.apply("digits", {"model": B, "slo": {"latencyy": 1}})
        await stage.until(lambda: stage.condition()[1] == "Invalid", "invalid")
        assert "slo.latencyy: unknown field (did you mean 'latency'?)" in stage.condition()[2]
        assert (stage.status()["revision"], stage.status()["state"]) == (1, "Ready")
        stage.api.apply("other", {"model": A, "spec": 7, "variants": "x"})
        await stage.until(lambda: stage.condition(name="other")[1] == "Invalid", "the other")
        assert len(stage.proposals) == 1

    stage.play(story)


def test_what_needs_approval_waits_for_it(stage: Stage) -> None:
    stage.approval = ("spec",)

    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": A})
        await stage.until(lambda: stage.condition()[1] == "ApprovalNeeded", "asked for")
        (asked,) = stage.proposals
        assert f"leptonai approve {asked.id}" in stage.condition()[2] and stage.status()["state"] == "Waiting"
        for _ in range(20):
            stage.now += 5.0
            await hand.once()
        assert len(stage.proposals) == 1, "asked once"
        stage.door.approve(asked.id, asked.hash, ROOT)
        await stage.until(lambda: stage.condition()[0] == "True", "approved")

    stage.play(story)


def test_a_rollback_is_held_until_the_resource_changes_also_by_a_fresh_control(stage: Stage) -> None:
    def rolled_back() -> None:
        head = stage.store.head("digits")
        first = stage.store.revisions("digits")[0].spec
        assert head is not None and first is not None
        stage.door.propose(SpecChange(spec=first, base=head.number), OPS, "it answers errors", by="incident:7")

    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": A})
        await stage.until(lambda: stage.status().get("revision") == 1, "first")
        stage.api.apply("digits", {"model": B})
        await stage.until(lambda: stage.status().get("revision") == 2, "second")
        rolled_back()
        await stage.until(lambda: stage.condition()[1] == "RolledBack", "held")
        assert "revision 3 of incident:7 is in force instead: it answers errors" in stage.condition()[2]
        assert stage.status()["revision"] == 3 and stage.status()["reason"] == "RolledBack"

    async def afterwards(hand: Resources) -> None:
        proposals = len(stage.proposals)
        await stage.until(lambda: hand._words, "looked at")
        for _ in range(20):
            stage.now += 10.0
            await hand.once()
        assert len(stage.proposals) == proposals and stage.condition()[1] == "RolledBack"
        stage.api.apply("digits", {"model": B, "timeout": "20s"})
        await stage.until(lambda: stage.status().get("revision") == 4, "it speaks again")
        assert stage.condition()[0] == "True"

    stage.play(story)
    stage.play(afterwards)


def test_a_service_of_somebody_else_is_not_taken_over_silently(stage: Stage) -> None:
    from leptonai.serve.spec import parse

    stage.door.propose(SpecChange(spec=parse({"name": "digits", "model": A}), base=0), ROOT, "")

    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": B})
        await stage.until(lambda: stage.condition()[1] == "Taken", "taken")
        assert "revision 1 is of human:root" in stage.condition()[2] and "revision" not in stage.status()
        stage.api.delete("digits")
        await stage.until(lambda: not stage.api.objects, "it may go")
        assert stage.store.head("digits") is not None, "and the service stays"
        stage.api.apply("digits", {"model": B}, annotations={"leptonai.dev/adopt": "true"})
        await stage.until(lambda: stage.status().get("revision") == 2, "taken over, as it says")

    stage.play(story)


def test_two_resources_of_one_service_the_first_has_it(stage: Stage) -> None:
    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": A})
        stage.api.apply("second", {"model": B, "name": "digits"})
        await stage.until(lambda: stage.condition(name="second")[1] == "Taken", "second")
        await stage.until(lambda: stage.condition()[0] == "True", "first")
        assert "Service/digits declares digits already" in stage.condition(name="second")[2]
        stage.api.delete("digits")
        await stage.until(lambda: stage.condition(name="second")[0] == "True", "its turn")

    stage.play(story)


def test_many_are_told_of_at_a_measured_pace(stage: Stage) -> None:
    async def story(hand: Resources) -> None:
        for number in range(60):
            stage.api.apply(f"s{number}", {"model": A})
        await stage.until(lambda: all(stage.condition(name=n)[0] == "True" for n in stage.api.objects), "all")
        told = [c for c in stage.api.calls if c == "patch services/status"]
        assert len(told) <= 2 * 60, "one word each, two at most"

    stage.play(story)


def test_a_forgotten_watch_a_silent_server_and_a_missing_right_end_nothing(stage: Stage) -> None:
    stage.api.served = False

    async def story(hand: Resources) -> None:
        await stage.until(lambda: stage.api.calls.count("discover") >= 2, "asked for the definition")
        stage.api.apply("digits", {"model": A})
        stage.api.denied = {"list"}
        stage.api.served = True
        await stage.until(lambda: "may not list services.leptonai.dev" in hand._mirror.trouble, "named")
        stage.api.denied = {"patch services/status"}
        await stage.until(lambda: stage.store.head("digits"), "served without a status")
        await stage.until(lambda: "may not patch" in hand.trouble, "told")
        stage.api.denied = set()
        await stage.until(lambda: stage.status().get("state") == "Ready", "told at last")
        stage.api.forget()
        stage.api.apply("digits", {"model": B})
        await stage.until(lambda: stage.status().get("revision") == 2, "listed anew")
        stage.api.down = True
        await stage.until(lambda: hand._mirror.trouble, "silent")
        stage.api.apply("digits", {"model": A})
        stage.api.down = False
        await stage.until(lambda: stage.status().get("revision") == 3, "caught up")

    stage.play(story)


def test_a_mistake_about_one_resource_is_told_there_and_stops_no_other(stage: Stage) -> None:
    real = stage.propose

    def broken(change: Any, why: str, by: str) -> Proposal:
        if by.startswith("gitops:models/bad@"):
            raise ZeroDivisionError("by us")
        return real(change, why, by)

    stage.propose = broken  # type: ignore[method-assign]

    async def story(hand: Resources) -> None:
        stage.api.apply("bad", {"model": A})
        stage.api.apply("digits", {"model": A})
        await stage.until(lambda: stage.condition()[0] == "True", "the other")
        await stage.until(lambda: stage.condition(name="bad")[1] == "Internal", "told")

    stage.play(story)


def test_a_copy_that_stood_by_begins_with_what_is_there_now(stage: Stage) -> None:
    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": A})
        await stage.until(lambda: stage.status().get("revision") == 1, "first")
        stage.following.cancel()
        await asyncio.gather(stage.following, return_exceptions=True)
        stage.api.apply("digits", {"model": B})
        stage.api.apply("other", {"model": A})
        stage.following = asyncio.create_task(hand.run())
        await stage.until(lambda: stage.status().get("revision") == 2, "changed meanwhile")
        await stage.until(lambda: stage.condition(name="other")[0] == "True", "made meanwhile")

    stage.play(story)
    assert [p.by for p in stage.proposals if p.service == "digits"] == [f"gitops:models/digits@{n}" for n in (1, 2)]


def test_replicas_are_the_platforms_and_stay_what_they_were_set_to(stage: Stage) -> None:
    from leptonai.types import DialChange

    async def story(hand: Resources) -> None:
        stage.api.apply("digits", {"model": A, "replicas": 2})
        await stage.until(lambda: stage.status().get("replicas") == 2, "two")
        stage.door.propose(DialChange(service="digits", set={"main.replicas": 5.0}), ROOT, "")
        await stage.until(lambda: stage.status().get("replicas") == 5, "told")
        assert stage.condition()[0] == "True", "a dial is no drift"
        stage.api.apply("digits", {"model": B, "replicas": 2})
        await stage.until(lambda: stage.status().get("revision") == 2, "another revision")
        assert stage.status()["replicas"] == 5

    stage.play(story)
