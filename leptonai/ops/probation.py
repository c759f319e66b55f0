"""What a version on probation does beside the old one, second by second: the findings a rollout is decided from."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leptonai.ops.convict import Leak, Wrong
from leptonai.ops.outcomes import agree
from leptonai.plan.lanes import NEW
from leptonai.plan.rollout import Finding
from leptonai.series.proportion import log_evidence
from leptonai.series.stratified import OddsTest, needed
from leptonai.types import Key, Noun, Replica, Service

CLOSED = 2.0  # seconds after which a second's log lines are all there: they are written every 0.2 s
WARM = 20  # first answers of a new replica that are not timed: caches, just-in-time compilers, first allocations
QUANTILES = (0.5, 0.95)
REFERENCE = 1000  # newest timed answers of the old version that say what is slow ...
ENOUGH = 50  # ... and how many it takes
FLOOR = 0.002  # seconds; a smaller increase is nobody's latency, and an idle process loses that much to cold caches
LEAST = {
    "errors": 0.005,
    "gateway": 0.005,
    "p50": 0.1,
    "p95": 0.05,
}  # excess share of hits below which nothing is convicted
MEASURES = 5  # that share alpha
PAIRS = 20_000  # request ids that wait for the other version's answer


class Counted(Noun, frozen=True, kw_only=True):
    """All that was counted of one rollout, to be kept over a restart. ``digests``: of the new version; ``seen``: the
    newest line's time; ``tests``: ``OddsTest.state``."""

    revision: int
    digests: list[str]
    done: int
    seen: float
    tests: dict[str, list[float]]
    agreed: int
    differed: int
    reference: list[float]


class _Second:
    """One stratum: per arm (new, old) answers, errors, and seconds of those timed."""

    __slots__ = ("answers", "errors", "seconds")

    def __init__(self) -> None:
        self.answers, self.errors = [0, 0], [0, 0]
        self.seconds: tuple[list[float], list[float]] = ([], [])


class Probation:
    """Of one service and one revision. Feed it every line of the prediction logs with ``saw``, then ask ``findings``.

    The measures share ``alpha`` evenly (Bonferroni): errors, the gateway's errors, median, 95th percentile,
    disagreement. What is counted is a ``Counted``: given to another Probation of the same revision (``resume``), no
    line is counted twice, so ``alpha`` holds for both together.
    """

    def __init__(self, service: Service) -> None:
        self.key: Key = service.key
        self.revision = service.revision
        before = {v.digest for v in service.canary.stable} if service.canary else set()
        self._new = {v.digest for v in service.spec.variants} - before
        self._old = before - {v.digest for v in service.spec.variants}
        self._seconds: dict[int, _Second] = {}
        self._done = 0  # seconds up to here are closed
        self._warm: Counter[str] = Counter()
        self._reference: deque[float] = deque(maxlen=REFERENCE)
        self._slower = service.spec.rollout.slower
        self.tests = {name: OddsTest() for name in ("errors", "gateway", "p50", "p95")}
        self._pairs: dict[str, tuple[bool, Any]] = {}
        self._paired = self._seen = 0.0  # lines up to the first are paired by a Probation before us; newest line seen
        self.agreed = self.differed = 0

    def counted(self) -> Counted:
        return Counted(
            revision=self.revision,
            digests=sorted(self._new),
            done=self._done,
            seen=max(self._seen, self._paired),
            tests={name: test.state() for name, test in self.tests.items()},
            agreed=self.agreed,
            differed=self.differed,
            reference=list(self._reference),
        )

    def resume(self, before: Counted) -> bool:
        """Go on from there; False, and nothing changes, when it is not of this rollout."""
        if before.revision != self.revision or before.digests != sorted(self._new):
            return False
        self._done, self._paired = before.done, before.seen
        self.tests = {name: OddsTest.of(before.tests[name]) for name in self.tests if name in before.tests}
        self.agreed, self.differed = before.agreed, before.differed
        self._reference.extend(before.reference)
        return True

    def at_gateway(self, lanes: Mapping[str, tuple[int, int]]) -> None:
        """Final answers, and 5xx of them, by lane since the last call: also those that no replica made."""
        news = {name for name in lanes if name.endswith(NEW)}
        old = [lanes[name.removesuffix(NEW)] for name in news if name.removesuffix(NEW) in lanes]
        fresh = [lanes[name] for name in news]
        total, errors = (sum(x) for x in zip(*fresh, strict=True)) if fresh else (0, 0)
        others, failed = (sum(x) for x in zip(*old, strict=True)) if old else (0, 0)
        if total and others:
            self.tests["gateway"].add(errors, total, failed, others)

    def saw(self, replica: Replica, request: str, digest: str, at: float, seconds: float, code: int, out: Any) -> None:
        """One line of a log, in any order within a few seconds."""
        new = digest in self._new
        if not new and digest not in self._old:
            return
        warm = True
        if new:
            self._warm[replica.id] += 1
            warm = self._warm[replica.id] > WARM
        second = int(at)
        if second > self._done:
            arm = 0 if new else 1
            here = self._seconds.setdefault(second, _Second())
            here.answers[arm] += 1
            here.errors[arm] += code >= 500
            if warm and code < 400:
                here.seconds[arm].append(seconds)
        self._seen = max(self._seen, at)
        if code < 400 and at > self._paired:
            self._pair(request, new, out)

    def step(self, now: float) -> None:
        """Judge the seconds that are over."""
        for second in sorted(s for s in self._seconds if s + 1 + CLOSED <= now):
            self._close(self._seconds.pop(second))
            self._done = max(self._done, second)

    def findings(
        self, service: Service, leaks: Sequence[Leak], wrong: Sequence[Wrong], mine: set[str]
    ) -> list[Finding]:
        """What is known now. ``mine``: ids of the replicas of the new version."""
        rollout = service.spec.rollout
        alpha = rollout.alpha / MEASURES
        found = [self._judged(name, alpha, service) for name in self.tests]
        # What is too few at the gateway keeps nobody waiting: the logs count the same requests.
        found = [
            f
            for f in found
            if f.measure != "gateway" or f.verdict != "not enough evidence" or f.numbers["log_evidence"] > 0
        ]
        found += [
            Finding(
                measure="memory",
                verdict="convicted",
                text=f"{leak.replica} leaks {leak.slope / 1e6:.1f} MB/s, its siblings {leak.siblings / 1e6:.1f}",
                numbers={"slope": leak.slope, "siblings": leak.siblings, "score": leak.score, "seconds": leak.seconds},
            )
            for leak in leaks
            if leak.replica in mine
        ]
        verdicts = [w for w in wrong if w.digest in self._new]
        found += [_labels(w) for w in verdicts]
        pairs = self.agreed + self.differed
        if pairs and rollout.disagreement < 1 and not any(w.verdict == "clear" for w in verdicts):
            tolerable = max(rollout.disagreement, 1e-6)
            evidence = log_evidence(self.differed, pairs, tolerable)
            numbers = {"pairs": pairs, "differ": self.differed, "tolerable": tolerable, "log_evidence": evidence}
            said = f"{self.differed} of {pairs} mirrored requests were answered differently"
            over = evidence >= -math.log(alpha)
            found.append(
                Finding(
                    measure="answers",
                    verdict="disagrees" if over else "clear",
                    text=f"{said} ({self.differed / pairs:.1%}, tolerated {tolerable:.1%})",
                    numbers=numbers,
                )
            )
        return found

    def _pair(self, request: str, new: bool, out: Any) -> None:
        other = self._pairs.get(request)
        if other is None or other[0] == new:
            self._pairs[request] = (new, out)
            if len(self._pairs) > PAIRS:
                self._pairs.pop(next(iter(self._pairs)))
            return
        del self._pairs[request]
        if agree(out, other[1]):
            self.agreed += 1
        else:
            self.differed += 1

    def _close(self, second: _Second) -> None:
        """A second counts where both versions answered in it. What is slow is told from the seconds before it alone."""
        new, old = second.answers
        if new and old:
            self.tests["errors"].add(second.errors[0], new, second.errors[1], old)
            fresh, usual = (np.array(s) for s in second.seconds)
            if len(self._reference) >= ENOUGH and len(fresh) and len(usual):
                for name, limit in zip(("p50", "p95"), np.quantile(self._reference, QUANTILES), strict=True):
                    tolerated = max(limit * (1.0 + self._slower), limit + FLOOR)
                    slow = int((fresh > tolerated).sum()), len(fresh), int((usual > limit).sum()), len(usual)
                    self.tests[name].add(*slow)
        self._reference.extend(second.seconds[1])

    def _judged(self, name: str, alpha: float, service: Service) -> Finding:
        test, rollout = self.tests[name], service.spec.rollout
        share = test.total / max(1, test.total + test.other_total)
        wanted = rollout.min_samples
        if name == "errors":
            wanted = max(wanted, needed(rollout.effect, alpha, rollout.power, share or 0.5))
        numbers = {
            "hits": test.hits, "total": test.total, "other_hits": test.other_hits, "other_total": test.other_total,
            "log_evidence": round(test.log_evidence, 3), "convicts_at": round(-math.log(alpha), 3),
            "samples_needed": wanted, "alpha": alpha, "power": rollout.power, "effect": rollout.effect,
        }  # fmt: skip
        fresh, old = f"{test.hits} of {test.total}", f"{test.other_hits} of {test.other_total}"
        if name == "errors":
            said = f"errors: {fresh} answers, {old} of the old version"
        elif name == "gateway":
            said = f"errors at the gateway: {fresh} answers, {old} of the old version"
        else:
            said = f"{name}: {fresh} are {rollout.slower:.0%} over the old version's, of whose own {old} are over it"
        if test.log_evidence >= -math.log(alpha) and test.excess >= LEAST[name]:
            return Finding(measure=name, verdict="convicted", text=said, numbers=numbers)
        if test.total < wanted:
            text = f"{said} ({wanted} answers of the new one are needed)"
            return Finding(measure=name, verdict="not enough evidence", text=text, numbers=numbers)
        if test.log_evidence > 0.0 and test.excess >= LEAST[name]:  # what speaks against it is not cleared by a count
            text = f"{said} (the odds are {math.exp(test.log_evidence):.1f} to 1 that it is worse, more is needed)"
            return Finding(measure=name, verdict="not enough evidence", text=text, numbers=numbers)
        return Finding(measure=name, verdict="clear", text=said, numbers=numbers)


def _labels(wrong: Wrong) -> Finding:
    text = f"{wrong.wrong} of {wrong.total} labels say its answers are wrong, tolerated {wrong.tolerable:.0%}"
    numbers = {"wrong": wrong.wrong, "total": wrong.total, "tolerable": wrong.tolerable, "odds": wrong.odds}
    verdict = wrong.verdict if wrong.verdict == "convicted" else "clear"  # labels are a gift: nothing waits for them
    if wrong.verdict == "not enough evidence":
        text += ", too few to tell"
    return Finding(measure="labels", verdict=verdict, text=text, numbers=numbers)
