"""Model tests by schedule: what ops asks each ready replica itself, beside its users, and what the answers say.

A replica is asked over its own address, never through the gateway, and does not count what it is asked: no rate, no
latency, no prediction of users has any of it. Who sleeps is not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from statistics import median
from time import perf_counter
from typing import Any, Literal

import msgspec

from leptonai.errors import TelemetryError
from leptonai.ops.http import Peer, Refused
from leptonai.plan.rollout import TESTED, Finding
from leptonai.runtime.golden import close, difference
from leptonai.types import TEST_HEADER, Golden, Key, ModelTests, Noun, Replica, Service, Signal

PATIENCE = 10.0  # seconds for one answer; less where the service allows less
AGAIN = 2.0  # seconds until a failure is looked at again: one is believed when it is seen twice in a row
WATCHED = 10.0  # seconds at most to the next round while a test fails
AT_ONCE = 4  # replicas that are asked at the same time
NEAR = 0.05  # relative difference of two lone numbers that is no other decision
NOT_NOW = (422, 429, 503, 504)  # in quarantine, overloaded, starting, too late: they say nothing of the model


class Result(Noun, frozen=True, kw_only=True):
    """One test of one round. ``failed`` of the ``asked`` examples; ``text``: the first failure, with its values.

    ``fails``: more failed than the spec tolerates.
    """

    test: str  # "golden", an invariance, or "latency"
    asked: int
    failed: int
    fails: bool
    text: str = ""

    @property
    def wrong(self) -> bool:
        """Whether it says that answers are wrong, not late."""
        return self.fails and self.test != "latency"


class Round(Noun, frozen=True, kw_only=True):
    """What one replica last showed. ``passed``: it has passed every test before."""

    replica: str
    digest: str
    at: float
    seconds: float  # of the median answer
    tests: tuple[Result, ...]
    passed: bool = False

    @property
    def fails(self) -> tuple[Result, ...]:
        return tuple(t for t in self.tests if t.fails)


# --- deciding: pure --------------------------------------------------------------------------------------------------


def varied(value: Any, kind: Literal["repeat", "noise", "case", "spaces"], noise: float, rng: random.Random) -> Any:
    """``value`` as an invariance has it; equal to ``value`` where there is nothing to vary."""
    if isinstance(value, dict):
        return {name: varied(part, kind, noise, rng) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [varied(part, kind, noise, rng) for part in value]
    if kind == "noise" and isinstance(value, float):
        return value * (1.0 + rng.choice((-noise, noise)))
    if kind == "case" and isinstance(value, str):
        return value.upper()
    if kind == "spaces" and isinstance(value, str):
        return f" {value.replace(' ', '  ')} "
    return value


def same_decision(a: Any, b: Any) -> bool:
    """Whether two answers decide alike: text and whole numbers equal, the largest score at the same place, a lone
    number within 5 %."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_decision(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return False
        if len(a) > 1 and _scores(a) and _scores(b):
            return a.index(max(a)) == b.index(max(b))
        return all(map(same_decision, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return close(a, b, NEAR)
    return type(a) is type(b) and bool(a == b)


def _scores(values: list[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) and any(
        isinstance(v, float) for v in values
    )


def questions(tests: ModelTests) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(test, number of the example, inputs) of one round, in the order they are asked; what nothing varies is left."""
    for number, example in enumerate(tests.golden):
        yield "golden", number, example.inputs
        for kind in tests.invariances:
            asked = varied(example.inputs, kind, tests.noise, random.Random(number))
            if kind == "repeat" or asked != example.inputs:
                yield kind, number, asked


class Answer(Noun, frozen=True, kw_only=True):
    """``error``: why there is none, which the model is to blame for; None in place of an Answer: it is not."""

    value: Any = None
    error: str = ""
    seconds: float = 0.0


def judged(tests: ModelTests, answers: dict[tuple[str, int], Answer]) -> tuple[Result, ...]:
    """Every test of which at least one example was answered or refused by the model."""
    out = []
    for test in ("golden", *tests.invariances):
        said = {n: _said(test, n, tests.golden[n], answers) for t, n in answers if t == test}
        known = {number: text for number, text in said.items() if text is not None}
        wrong = {number: text for number, text in known.items() if text}
        if known:
            text = next((f"example {number}: {text}" for number, text in wrong.items()), "")
            fails = len(wrong) > tests.failing * len(known)
            out.append(Result(test=test, asked=len(known), failed=len(wrong), fails=fails, text=text))
    times = [a.seconds for (test, _), a in answers.items() if test == "golden" and not a.error]
    if tests.latency is not None and times:
        slow, taken = sum(t > tests.latency for t in times), median(times)
        text = f"the median answer took {taken * 1e3:.3g} ms, {tests.latency * 1e3:.3g} ms are allowed"
        late = taken > tests.latency
        out.append(Result(test="latency", asked=len(times), failed=slow, fails=late, text=text if late else ""))
    return tuple(out)


def _said(test: str, number: int, example: Golden, answers: dict[tuple[str, int], Answer]) -> str | None:
    """How an example fails, "" when it does not; None where that cannot be told."""
    answer, plain = answers[test, number], answers.get(("golden", number))
    if answer.error:
        return answer.error
    if test == "golden":
        return difference(example, answer.value)
    if plain is None or plain.error:
        return None
    was, now = plain.value, answer.value
    if close(was, now, example.tolerance) if test == "repeat" else same_decision(was, now):
        return ""
    return " became ".join(msgspec.json.encode(v).decode()[:80] for v in (was, now))


def finding(rounds: Collection[Round], mine: set[str]) -> Finding:
    """Of a rollout, whose new version's replicas are ``mine``: convicted when all of them that were tested answer a
    test wrongly and none of the others does."""
    new = [r for r in rounds if r.replica in mine]
    if not new:
        text = "no replica of the new version has had its model tests"
        return Finding(measure=TESTED, verdict="not enough evidence", text=text)
    old = {t.test for r in rounds if r.replica not in mine for t in r.tests if t.wrong}
    common = set.intersection(*({t.test for t in r.tests if t.wrong} for r in new)) - old
    numbers = {f"{t.test}_failed": float(t.failed) for t in new[0].tests}
    told = [t for t in new[0].tests if t.test in common]
    if told:
        text = "; ".join(f"model test {t.test} fails on {t.failed} of {t.asked} examples: {t.text}" for t in told)
        return Finding(measure=TESTED, verdict="convicted", text=text, numbers=numbers)
    names = ", ".join(t.test for t in new[0].tests) or "none could be asked"
    return Finding(measure=TESTED, verdict="clear", text=f"model tests: {names}", numbers=numbers)


# --- doing -----------------------------------------------------------------------------------------------------------


async def ask(peer: Peer, inputs: dict[str, Any], timeout: float) -> Answer | None:
    """None: nobody answered, or not for a reason of the model."""
    began = perf_counter()
    try:
        body = await peer.post("/predict", msgspec.json.encode(inputs), timeout, {TEST_HEADER: "1"})
    except Refused as e:
        return None if e.answered in NOT_NOW else Answer(error=f"it answers {e.answered} {e.text[:120]}")
    except TelemetryError:
        return None
    seconds = perf_counter() - began
    try:
        return Answer(value=msgspec.json.decode(body), seconds=seconds)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Answer(error="its answer is no JSON")


class _Seat:
    """What is known of one replica."""

    def __init__(self, tests: ModelTests) -> None:
        self.tests = tests
        self.due = float("-inf")
        self.round: Round | None = None
        self.doubted = False  # its newest round failed, and is looked at again
        self.task: asyncio.Task[None] | None = None


class Rounds:
    """Keeps the newest Round of every ready replica of services with ``tests``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seats: dict[str, _Seat] = {}
        self._of: dict[Key, list[str]] = {}
        self._told: dict[Key, tuple[tuple[str, ...], ...]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    def step(self, services: Sequence[Service], replicas: Sequence[Replica], now: float) -> None:
        """Begin the rounds that are due; nobody waits for them. Replicas and services that are gone are forgotten."""
        wanted = {s.key: s for s in services if s.spec.tests is not None}
        ready = [r for r in replicas if r.service in wanted and r.state == "ready" and r.address]
        self._of = {key: [] for key in wanted}
        for replica in ready:
            self._of[replica.service].append(replica.id)
        for id in self._seats.keys() - {r.id for r in ready}:
            self._leave(self._seats.pop(id))
        for replica in ready:
            spec = wanted[replica.service].spec
            assert spec.tests is not None
            seat = self._seats.get(replica.id)
            if seat is None or seat.tests != spec.tests:
                if seat is not None:
                    self._leave(seat)
                seat = self._seats[replica.id] = _Seat(spec.tests)
            if now >= seat.due and (seat.task is None or seat.task.done()):
                seat.due = now + spec.tests.every
                seat.task = asyncio.create_task(self._round(seat, replica, min(PATIENCE, spec.timeout)))

    def of(self, key: Key) -> tuple[Round, ...]:
        """The newest rounds of its ready replicas, of those that have had one."""
        rounds = (self._seats[id].round for id in self._of.get(key, ()) if id in self._seats)
        return tuple(r for r in rounds if r is not None)

    def signals(self, now: float) -> list[Signal]:
        """The newest rounds as they stand now."""
        out: list[Signal] = []
        for key in self._of:
            for found in self.of(key):
                labels = {"service": key, "replica": found.replica, "digest": found.digest}
                out.append(Signal(name="model_test_seconds", labels=labels, at=now, value=found.seconds))
                for test in found.tests:
                    own = {**labels, "test": test.test}
                    value = test.failed / test.asked
                    out.append(Signal(name="model_test_failed_ratio", labels=own, at=now, value=value))
        return out

    def news(self) -> Iterator[tuple[Key, str, dict[str, Any]]]:
        """(service, kind of event, detail) where what fails has changed since the last call."""
        for key in self._of:
            rounds = self.of(key)
            gist = tuple(sorted({(r.digest, t.test) for r in rounds for t in r.fails}))
            if not rounds or gist == self._told.get(key, ()):
                continue
            if not gist:
                yield key, "model_tests.passed", {"text": f"all model tests pass at {len(rounds)} replicas"}
            else:
                yield (
                    key,
                    "model_tests.failed",
                    {
                        "text": "; ".join(f"{t.test} at {r.replica}: {t.text}" for r in rounds for t in r.fails)[:1000],
                        "rounds": [msgspec.to_builtins(r) for r in rounds if r.fails],
                    },
                )
            self._told[key] = gist  # once the caller has recorded it
        self._told = {key: gist for key, gist in self._told.items() if key in self._of}

    def close(self) -> None:
        for seat in self._seats.values():
            self._leave(seat)
        self._seats.clear()

    def _leave(self, seat: _Seat) -> None:
        if seat.task is not None:
            seat.task.cancel()

    async def _round(self, seat: _Seat, replica: Replica, timeout: float) -> None:
        async with self._room:
            answers: dict[tuple[str, int], Answer] = {}
            with contextlib.closing(Peer(replica.address)) as peer:
                for test, number, inputs in questions(seat.tests):
                    answer = await ask(peer, inputs, timeout)
                    if answer is not None:
                        answers[test, number] = answer
        now, found = self._clock(), judged(seat.tests, answers)
        if not found:
            return
        failing = any(t.fails for t in found)
        if failing and not seat.doubted and not (seat.round is not None and seat.round.fails):
            seat.doubted, seat.due = True, now + AGAIN
            return
        seat.doubted = False
        if failing:
            seat.due = now + min(seat.tests.every, WATCHED)
        times = [a.seconds for a in answers.values() if not a.error]
        seat.round = Round(
            replica=replica.id,
            digest=replica.digest,
            at=now,
            seconds=median(times) if times else 0.0,
            tests=found,
            passed=not failing or (seat.round is not None and seat.round.passed),
        )
