"""Requests whose input makes the model fail: what they have in common is found, refused a while, and let in again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_stage import ANA, Model, Stage
from test_loop import healthy, play

from leptonai.admit import Door
from leptonai.errors import SpecError
from leptonai.ops.marks import CHANCE, FEWEST_ANSWERED, FEWEST_FAILED, chance, mark
from leptonai.settings import Settings
from leptonai.types import QUARANTINE, DialChange, InputRule, Replica, Service


def seen(high: float, name: str = "image", **more: Any) -> dict[str, Any]:
    digest = more.pop("hash", f"{hash((high, name)) & 0xFFFFFFFFFFFFFFFF:016x}")
    return {name: {"shape": [1, 64], "low": 0.0, "high": high, "mean": high / 4, "hash": digest} | more}


GOOD = [seen(float(h)) for h in range(1, 17) for _ in range(4)]


@pytest.mark.parametrize(
    ("failed", "answered", "rules"),
    [
        ([seen(999.0) for _ in range(6)], GOOD, "image.high>507.5"),
        ([seen(16.0, hash="a" * 16) for _ in range(6)], GOOD, f"image.hash={'a' * 16}"),
        ([seen(8.0, low=-400.0 - i) for i in range(6)], GOOD, "image.low<-200"),
        ([seen(8.0, odd=3) for _ in range(6)], GOOD, "image.odd>1.5"),
        ([{"prompt": {"length": 9000 + i}} for i in range(6)], [{"prompt": {"length": 80}}] * 40, "prompt.length>4540"),
        ([seen(999.0)] * (FEWEST_FAILED - 1), GOOD, None),  # too few to say anything
        ([seen(999.0)] * 6, GOOD[: FEWEST_ANSWERED - 1], None),
        (GOOD[:20], GOOD, None),  # they fail, and others that look the same do not
        ([seen(999.0)] * 6 + GOOD[::2], GOOD, None),  # most of what fails looks like any other
        ([{"x": {"shape": [3]}}] * 9, [{"x": {"shape": [3]}}] * 30, None),  # nothing is told of them
    ],
)
def test_what_failing_requests_have_in_common_and_answered_ones_have_not(
    failed: list[dict[str, Any]], answered: list[dict[str, Any]], rules: str | None
) -> None:
    found = mark(failed, answered)
    assert (None if found is None else " ".join(found.rules)) == rules


@given(seed=st.integers(0, 400))
@settings(deadline=None)
def test_a_rule_catches_most_of_what_failed_and_nothing_that_was_answered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bad = [seen(float(rng.choice([999.0, -5.0, 12.0]))) for _ in range(int(rng.integers(0, 30)))]
    found = mark(bad, GOOD)
    if found is not None:
        rules = [InputRule.parse(text) for text in found.rules]
        assert all(rule is not None and str(rule) == text for rule, text in zip(rules, found.rules, strict=True))
        assert not any(rule.holds(one) for rule in rules if rule for one in GOOD)
        assert sum(any(r.holds(one) for r in rules if r) for one in bad) == found.caught >= len(bad) / 2


def test_failures_that_have_nothing_to_do_with_the_input_are_hardly_ever_marked() -> None:
    """200 services whose requests fail by chance, with inputs of four numbers each: none is put in quarantine."""
    rng = np.random.default_rng(3)
    marked = 0
    for _ in range(200):
        rows = [
            {"x": {"low": float(a), "high": float(b), "mean": float(c), "hash": f"{int(d):016x}"}}
            for a, b, c, d in zip(*rng.normal(size=(3, 100)), rng.integers(0, 1 << 60, 100), strict=True)
        ]
        fails = rng.random(100) < 0.15
        bad, good = ([r for r, f in zip(rows, fails, strict=True) if f == want] for want in (True, False))
        marked += mark(bad, good) is not None
    assert marked == 0
    assert chance(3, 3, 20) > CHANCE > chance(5, 5, 64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image.high>508", "image.high>508"), ("image.low < -3.5", "image.low<-3.5"),
        ("p.q.length>20000", "p.q.length>20000"),
        ("x.hash=0123456789abcdef", "x.hash=0123456789abcdef"), ("x.mean>1e3", "x.mean>1000"),
    ],
)  # fmt: skip
def test_a_rule_is_read_as_it_is_written(text: str, said: str) -> None:
    rule = InputRule.parse(text)
    assert rule is not None and str(rule) == said and InputRule.parse(said) == rule


@pytest.mark.parametrize(
    "text",
    ["", "image", "image.high", "image.high>nan", "image.high>inf", "image.high<3", "image.low>3", "x.hash=12",
     "x.hash>1", "image.width>3", "../x.high>1", "image.high>1; rm", "x.high>--1", ".high>1",
     "x.hash=0123456789ABCDEF"],
)  # fmt: skip
def test_what_is_no_rule_is_none(text: str) -> None:
    assert InputRule.parse(text) is None


@pytest.mark.parametrize(
    ("dials", "ttl", "says"),
    [
        ({"quarantine.image.high>508": 1.0}, None, "has no ttl"),
        ({"quarantine.image.high>508": 1.0}, 1e6, "must end within"),
        ({"quarantine.image.high>508": 0.5}, 60.0, "no switch"),
        ({"quarantine.image.high > 508": 1.0}, 60.0, "no rule about an input"),
        ({"quarantine.image": 1.0}, 60.0, "no rule about an input"),
        ({f"quarantine.image.high>{n}": 1.0 for n in range(9)}, 60.0, "9 rules"),
    ],
)
def test_the_door_lets_no_quarantine_in_that_has_no_end_or_no_meaning(
    tmp_path: Path, dials: dict[str, float], ttl: float | None, says: str
) -> None:
    stage = Stage(tmp_path)
    try:
        stage.deploy(Model())
        with pytest.raises(SpecError, match=says):
            stage.door.propose(DialChange(service="digits", set=dials, ttl=ttl), ANA, "try")
    finally:
        stage.store.close()


class Poisoned(Stage):
    """A model that fails on whatever has a pixel above 100; ``share`` of the requests have one. Replicas are told what
    to refuse as the planner has it."""

    share = 0.0
    refused = 0

    def _request(self, service: Service, replica: Replica) -> None:
        spoilt = self.random.random() < self.share
        high = 999.0 if spoilt else float(self.random.randint(10, 16))
        rules = [r for text in (replica.tuning.refuse if replica.tuning else ()) if (r := InputRule.parse(text))]
        if any(rule.holds(seen(high)) for rule in rules):
            self.refused += 1
            self._seen(service, 4, 0.001)
            self.quarantined[replica.id] = self.quarantined.get(replica.id, 0) + 1
            return
        if not spoilt:
            super()._request(service, replica)
            return
        counts = self.counts[replica.id]
        counts.failed += 1
        self._seen(service, 5, 0.005)
        self._wrote(replica, high, 500)

    def _predicted(self, replica: Replica, output: int, label: int) -> None:
        super()._predicted(replica, output, label)
        self._wrote(replica, float(self.random.randint(10, 16)), 200)

    def _wrote(self, replica: Replica, high: float, code: int) -> None:
        folder = self.folder / "run" / replica.id / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        line = {"id": f"{self.random.getrandbits(64):016x}", "at": self.now, "digest": replica.digest, "code": code}
        with (folder / "00000001.jsonl").open("a") as file:
            file.write(json.dumps(line | {"input": seen(high)}) + "\n")

    def _traffic(self) -> None:
        super()._traffic()
        for id, counts in self.counts.items():
            if id in self.pages and not self.pages[id].silent:
                self.pages[id].text += (
                    f'leptonai_errors_total{{kind="model_failed"}} {counts.failed}\n'
                    f'leptonai_errors_total{{kind="quarantined"}} {self.quarantined.get(id, 0)}\n'
                    f'leptonai_requests_total{{code="422"}} {self.quarantined.get(id, 0)}\n'
                )

    @property
    def quarantined(self) -> dict[str, int]:
        return self.__dict__.setdefault("_quarantined", {})


def test_poisoned_requests_are_refused_for_a_while_and_let_in_again(short: Path) -> None:
    """Found, named, put in quarantine within its bounds, effective; it ends by itself, and the wish is as it was."""

    async def story(stage: Stage) -> None:
        assert isinstance(stage, Poisoned)
        await healthy(stage)
        stage.share = 0.15
        await stage.until(lambda: stage.incidents() and stage.incidents()[-1].actions, 60)
        await stage.until(lambda: stage.incidents()[-1].closed is not None, 90)
        incident = stage.incidents()[-1]
        assert incident.causes[0].name == "poisoned_input", incident.causes
        (action,) = incident.actions
        assert (action.remedy, action.verdict) == ("quarantine", "effective"), action
        (path,) = action.set
        rule = InputRule.parse(path.removeprefix(QUARANTINE))
        assert rule is not None and 16 < rule.bound < 999
        wish = stage.store.service("digits", stage.now)
        assert wish is not None and wish.dials.quarantine == (str(rule),)
        assert any(e.kind == "marked" for e in incident.evidence)
        assert stage.refused > 0
        events = [e for e in stage.store.events(0) if e.kind == "proposal.admitted" and path in e.detail.get("set", {})]
        assert len(events) == 1 and "poisoned_input" in events[0].detail["why"]  # `leptonai why` tells these
        stage.share = 0.0
        await stage.step(40)
        stage.now += 600.0
        after = stage.store.service("digits", stage.now)
        assert after is not None and after.dials.quarantine == ()

    play_with(short, story, Poisoned)


def test_a_quarantine_that_refuses_most_requests_is_harm_and_is_taken_back(short: Path) -> None:
    async def story(stage: Stage) -> None:
        assert isinstance(stage, Poisoned)
        await healthy(stage)
        stage.share = 0.15
        await stage.until(lambda: stage.incidents() and stage.incidents()[-1].actions, 60)
        stage.share = 0.9  # all of a sudden everybody sends them: it is no attack, it is what people want
        await stage.until(lambda: stage.incidents()[-1].actions[0].verdict is not None, 60)
        (action, *_) = stage.incidents()[-1].actions
        assert action.verdict == "harmful" and "in quarantine" in action.detail, action
        await stage.until(lambda: stage.incidents()[-1].actions[0].undone is not None, 60)
        wish = stage.store.service("digits", stage.now)
        assert wish is not None and wish.dials.quarantine == ()

    play_with(short, story, Poisoned)


def play_with(folder: Path, story: Any, kind: type[Stage]) -> None:
    import test_loop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_loop, "Stage", kind)
        play(folder, story)


def test_a_person_lifts_it_and_undo_puts_it_back(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    try:
        stage.deploy(Model())
        door: Door = stage.door
        path = f"{QUARANTINE}image.high>508"
        assert door.propose(DialChange(service="digits", set={path: 1.0}, ttl=600.0), ANA, "found").status == "admitted"
        assert held(stage) == ("image.high>508",)
        assert door.propose(DialChange(service="digits", set={path: 0.0}), ANA, "lifted").status == "admitted"
        assert held(stage) == ()
        assert stage.settings == Settings()
    finally:
        stage.store.close()


def held(stage: Stage) -> tuple[str, ...]:
    wish = stage.store.service("digits", stage.now)
    assert wish is not None
    return wish.dials.quarantine
