"""Claim: over whole simulated rollouts, every bad version is rolled back before it has 25 % of the requests and has
answered under 2 % of them; no more than ``alpha`` of the good ones are rolled back.

    python benchmarks/rollout_simulated.py [--seeds 10] [--good 1000] [--rate 20] [--step 15]

What decides is the code of production (``ops.probation``, ``ops.convict``, ``plan.rollout.decide``), second by second;
simulated are the requests: Poisson arrivals around a rate that wanders, latencies of a log-normal distribution, and
pauses of the machine that slow both versions down. Bad: answers wrongly (30 % of the answers are labelled), computes
twice as slowly, fails 5 % of its requests, or leaks 5 MB/s. Memory is simulated for the four bad kinds and for as many
good ones; the judgement of the other good ones is without it.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from leptonai.ops.convict import Leak, Tally, Wrong, leaks, wrong_answers
from leptonai.ops.probation import Probation
from leptonai.plan.rollout import TakeBack, Turn, decide
from leptonai.types import Canary, Dials, Replica, Rollout, Scale, Service, Spec, Variant, VariantDials

OLD, NEW = Variant(model="old", idempotent=True), Variant(model="new", idempotent=True)
START = 1_000_000.0
PATIENCE = 3600  # seconds of a rollout
LABELLED = 0.3
KINDS = ("wrong", "slow", "errors", "leak", "good")


class End(NamedTuple):
    outcome: str
    why: str
    seconds: int
    weight: float
    touched: float  # share of all requests, since it was deployed, that the new version answered


class Traffic:
    """Of one seed: the requests of each second, and what both versions do with them."""

    def __init__(self, kind: str, rate: float, seed: int) -> None:
        self.kind, self.rate, self.random = kind, rate, np.random.default_rng(seed)
        self.wander, self.pause = 0.0, 1.0
        self.labels: dict[str, list[int]] = {OLD.digest: [0, 0], NEW.digest: [0, 0]}  # wrong, all

    def second(self) -> int:
        """How many requests come; the machine is busier or less busy than before."""
        self.wander = 0.98 * self.wander + 0.05 * self.random.normal()
        if self.random.random() < 0.03:
            self.pause = 1.0 + self.random.exponential(2.0)
        self.pause = 1.0 + 0.6 * (self.pause - 1.0)
        return int(self.random.poisson(self.rate * math.exp(self.wander)))

    def answer(self, new: bool) -> tuple[float, int, list[int]]:
        """Seconds, code, output."""
        bad = self.kind if new else "good"
        seconds = 0.01 * math.exp(0.25 * self.random.normal()) * self.pause * (2.0 if bad == "slow" else 1.0)
        code = 500 if self.random.random() < (0.05 if bad == "errors" else 0.001) else 200
        wrong = bad == "wrong"
        if code == 200 and self.random.random() < LABELLED:
            tally = self.labels[NEW.digest if new else OLD.digest]
            tally[0] += wrong or self.random.random() < 0.02
            tally[1] += 1
        return seconds, code, [1 if wrong else 0]

    def wrong(self) -> list[Wrong]:
        tallies = {d: Tally(*tally) for d, tally in self.labels.items() if tally[1]}
        return list(wrong_answers(tallies, {NEW.digest: OLD.digest}).values())


class Memory:
    """RSS of both replicas, once a second, and who is convicted of it."""

    def __init__(self, leaking: bool, random: np.random.Generator) -> None:
        self.leaking, self.random = leaking, random
        self.rss: dict[str, list[float]] = {"old": [], "new": []}

    def judge(self, second: int) -> list[Leak]:
        for id, seen in self.rss.items():
            grown = 5e6 * second if self.leaking and id == "new" else 0.0
            seen.append(60e6 + grown + self.random.uniform(-1e5, 1e5))
        times = START + np.arange(len(self.rss["old"]))
        rows = {id: (times, np.array(seen)) for id, seen in self.rss.items()}
        return leaks(float(times[-1]), rows, {"old": START - 60.0, "new": START - 1.0})


def service(rollout: Rollout, canary: Canary) -> Service:
    spec = Spec(name="s", variants=(NEW,), scale=Scale(replicas=1), rollout=rollout)
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=1)}), revision=2, canary=canary)


def replicas() -> list[Replica]:
    return [
        Replica(id=id, service="s", variant="main", digest=v.digest, state="ready", since=START)
        for id, v in (("old", OLD), ("new", NEW))
    ]


def rollout(kind: str, rate: float, step: float, seed: int, memory: bool) -> End:
    """One whole rollout. The gateway's part is simulated too: each request's final answer counts in its lane."""
    traffic = Traffic(kind, rate, seed)
    watched = Memory(kind == "leak", traffic.random) if memory else None
    wish = service(Rollout(strategy="canary", step_seconds=step), Canary(stable=(OLD,), revision=1, since=START))
    old, new = here = replicas()
    probation = Probation(wish)
    all_, touched, highest, number = 0, 0, 0.0, 0
    for second in range(1, PATIENCE):
        now = START + second
        canary = wish.canary
        assert canary is not None
        lanes = {"main": [0, 0], "main-new": [0, 0]}
        for _ in range(traffic.second()):
            number += 1
            mine = traffic.random.random() < canary.weight
            copied = not mine and traffic.random.random() < canary.mirror
            all_, touched = all_ + 1, touched + mine
            for fresh in [mine, True] if copied else [mine]:
                seconds, code, output = traffic.answer(fresh)
                variant, replica = (NEW, new) if fresh else (OLD, old)
                at = now - traffic.random.random() * 0.999
                probation.saw(replica, str(number), variant.digest, at, seconds, code, output)
                lane = lanes["main-new" if fresh else "main"]
                lane[0], lane[1] = lane[0] + 1, lane[1] + (code >= 500)
        probation.step(now)
        probation.at_gateway({name: (total, failed) for name, (total, failed) in lanes.items()})
        found = watched.judge(second) if watched else []
        findings = probation.findings(wish, found, traffic.wrong(), {"new"})
        move = decide(wish, here, findings, now)
        if isinstance(move, TakeBack):
            return End("rolled back", move.why, second, highest, touched / max(1, all_))
        if isinstance(move, Turn):
            if "promoted" in move.set:
                return End("promoted", move.why, second, highest, touched / max(1, all_))
            values = {name: int(v) if name == "replicas" else v for name, v in move.set.items()}
            since = now if {"weight", "mirror"} & values.keys() else canary.since
            wish = msgspec.structs.replace(wish, canary=msgspec.structs.replace(canary, since=since, **values))
            highest = max(highest, move.set.get("weight", 0.0))
    return End("not enough evidence", "", PATIENCE, highest, touched / max(1, all_))


def show(name: str, ends: list[End]) -> None:
    seconds = sorted(e.seconds for e in ends)
    print(
        f"{name:<12} {dict(Counter(e.outcome for e in ends))}  seconds {seconds[len(seconds) // 2]} (max {seconds[-1]})"
        f"  highest weight {max(e.weight for e in ends):.0%}  touched max {max(e.touched for e in ends):.2%}",
        flush=True,
    )


def rounds(kinds: tuple[str, ...], given: argparse.Namespace) -> Iterator[tuple[str, list[End]]]:
    for kind in kinds:
        yield kind, [rollout(kind, given.rate, given.step, seed, True) for seed in range(given.seeds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--good", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--step", type=float, default=15.0)
    given = parser.parse_args()
    for kind, ends in rounds(KINDS, given):
        show(kind, ends)
    many = [rollout("good", given.rate, given.step, 1000 + seed, False) for seed in range(given.good)]
    if many:
        show(f"good x {given.good}", many)
        back = [e for e in many if e.outcome == "rolled back"]
        print(f"rolled back wrongly: {len(back)} of {len(many)} (alpha {Rollout().alpha:g})")
        for end in back[:10]:
            print(f"    {end.seconds} s: {end.why[:150]}")


if __name__ == "__main__":
    main()
