"""One second after another, for all services at once: arrivals, queues, processors, memory, replicas that come and go.

A fluid model with random counts: a replica serves one request at a time, what it cannot serve waits in its queue, and
what waits too long or finds the queue full fails. A call takes one second to reach the next service. Faults change the
causes (``Forces``), never what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import erfc

from leptonai.ops.answers import FEWEST, FORMER, RECENT, SPAN
from leptonai.ops.simulate.faults import ACTS, Act, Fault
from leptonai.ops.simulate.forces import Forces
from leptonai.ops.simulate.shapes import traffic
from leptonai.ops.simulate.system import Flags, Ints, System
from leptonai.plan.route import HEDGE_LATENCIES
from leptonai.protocols import Floats
from leptonai.settings import Gateway

NETWORK = 0.001  # seconds of the way to a replica and back
PATIENCE = 2.0  # seconds that a caller waits for what it calls
REPLACED = 0.5  # seconds until serve has seen that a replica is gone
PROBED = 2.0  # seconds until the platform says that a replica hangs (``local.hung_after``)
STEADY = 60.0  # seconds of being ready after which a crash is the first in a row again
BUSIEST = 0.95  # of a replica, in the formula of its queue
SMOOTH = 0.15  # of the newest second: the formula is that of a queue in balance
SHY = 4.0  # how strongly tries avoid a replica that has more of them in flight (least request, two choices)
RETRIES = 3.0  # of idempotent requests, as the gateway does (``gateway.retries``)


class Ended(NamedTuple):
    """A replica that ended unasked at the newest step."""

    service: int
    replica: str
    revision: int
    reason: str
    detail: str
    attempt: int


class Made(NamedTuple):
    """A revision: ``number`` from 1."""

    service: int
    number: int
    at: float
    why: str


class Flow:
    """``step`` lets a second pass; then the attributes hold what was in it. Arrays are over services S, slots R of
    replicas (more than any service has, ``used`` tells), calls E and machines M."""

    def __init__(
        self, system: System, faults: Sequence[Fault], seconds: int, seed: int, start: float = 0.0,
        acts: Mapping[str, Act] = ACTS, most: int = 0,
    ) -> None:  # fmt: skip
        """``seconds``: the most steps there may be. The same arguments give the same course. ``acts``: what faults do;
        ``most``: replicas that a service may be scaled to."""
        n, r, m = len(system.names), max(int(system.replicas.max()), most), len(system.cores)
        self._acts = acts
        self.wanted: Ints = system.replicas.copy()
        self.epoch: Ints = np.zeros(n, dtype=np.int64)
        self.shed: Floats = np.zeros(n)  # share of the requests that the gateway refuses
        self.models: list[dict[int, int]] = [{1: 1} for _ in range(n)]  # of each service: revision -> what it runs
        self.system, self.faults, self.at, self.rng = system, tuple(faults), start, np.random.default_rng([seed, 3])
        self.dice = np.random.default_rng([seed, 19])  # of what is only told
        self.used: Flags = np.arange(r)[None, :] < system.replicas[:, None]
        self._traffic = traffic(system, self.rng, start + np.arange(seconds, dtype=np.float64))
        self._row = 0
        long_ago = start - 10_000.0
        self.alive: Flags = self.used.copy()
        self.ready_at: Floats = np.where(self.used, long_ago, np.inf)
        self.since: Floats = np.full((n, r), long_ago)
        self.hung_at: Floats = np.full((n, r), np.nan)
        self.back_at: Floats = np.full((n, r), np.inf)  # when serve starts the next one
        self.attempt: Ints = np.zeros((n, r), dtype=np.int64)
        self.born: Ints = np.zeros((n, r), dtype=np.int64)  # how many there were in this slot
        self.runs: Ints = np.ones((n, r), dtype=np.int64)  # the revision of each
        self.of_epoch: Ints = np.zeros((n, r), dtype=np.int64)
        self.head: Ints = np.ones(n, dtype=np.int64)
        self.made = [Made(s, 1, long_ago - float(self.rng.uniform(0, 1e6)), "first") for s in range(n)]
        self._turns: list[tuple[float, int, int, int]] = []  # (when, service, slot, revision) of roll-outs
        self.queue: Floats = np.zeros((n, r))
        self.stuck: Floats = np.zeros((n, r))  # requests that a hung replica holds
        self.again: Floats = np.zeros(n)  # requests that are asked of another replica next
        self.grown: Floats = np.zeros((n, r))  # memory beyond the base
        self.base: Floats = system.rss[:, None] * np.exp(self.rng.normal(0, 0.02, (n, r)))
        self.use: Floats = np.broadcast_to(system.busy[:, None], (n, r)).copy()  # share of its capacity, of late
        self.arrived: Floats = system.total.copy()
        self.latency: Floats = 2.0 * system.compute + NETWORK
        self.failed: Floats = np.zeros(n)  # chance that a call fails, as callers see it
        self.repeats: Floats = np.zeros(n)  # repeated tries per request
        self._odd: dict[tuple[int, int], Oddness] = {}  # by service and what it runs, once some answers are odd
        self.xids: Floats = np.zeros(m)
        self.ecc: Floats = np.zeros(m)
        self.disk: Floats = system.disk.copy()
        self.seconds = start - long_ago  # that there have been answers, and how many
        self.answers: Floats = system.total * self.seconds
        self.extra: Floats = np.zeros(n)  # processors that a service takes beyond its requests
        self.ended: list[Ended] = []
        self.forces = Forces(system, r)
        self._observe_nothing(n, r, m)

    def _observe_nothing(self, n: int, r: int, m: int) -> None:
        self.answered: Floats = np.zeros(n)
        self.errors: Floats = np.zeros(n)
        self.refused: Floats = np.zeros(n)
        self.too_much: Floats = np.zeros(n)  # of them, those that replicas could not take
        self.anyway: Floats = np.zeros(n)  # of the errors, those that there would have been in normal times
        self.slow: Floats = np.zeros(n)
        self.p50: Floats = np.full(n, np.nan)
        self.p99: Floats = np.full(n, np.nan)
        self.retried: Floats = np.zeros(n)
        self.labels: Floats = np.zeros((n, r))
        self.wrong: Floats = np.zeros((n, r))
        self.done: Floats = np.zeros((n, r))
        self.done_errors: Floats = np.zeros((n, r))
        self.given_up: Floats = np.zeros(n)  # repeats per request because somebody would not wait
        self.nans: Floats = np.zeros((n, r))
        self.compute: Floats = np.full((n, r), np.nan)
        self.waited: Floats = np.full((n, r), np.nan)
        self.processor: Floats = np.zeros((n, r))
        self.starved: Floats = np.zeros(n)  # share of the time that who could run waits for a processor
        self.busy: Floats = np.zeros(m)
        self.shifted: Floats = np.zeros(n)
        self.call_seconds: Floats = np.zeros(len(self.system.caller))
        self.call_errors: Floats = np.zeros(len(self.system.caller))
        self.calls: Floats = np.zeros(len(self.system.caller))

    def step(self) -> None:
        self.at += 1.0
        self.seconds += 1.0
        self.ended = []
        self.forces.clear()
        self.extra[:] = 0.0
        for fault in self.faults:
            if fault.at <= self.at < fault.until:
                self._acts[fault.kind](self, fault, self.at - fault.at)
        self._replace()
        self._serve()
        self._row += 1

    @property
    def ready(self) -> Flags:
        """Slots that get requests: a replica that hangs does until the platform's probe has seen it."""
        out: Flags = self.alive & (self.at >= self.ready_at) & ~(self.at - self.hung_at >= PROBED)
        return out

    # --- what faults and people may do -------------------------------------------------------------------------------

    def end(self, s: int, r: int, reason: str, detail: str) -> None:
        """A replica ends unasked; serve starts another."""
        if not self.alive[s, r]:
            return
        steady = self.at - self.ready_at[s, r] > STEADY
        attempt = 0 if steady else int(self.attempt[s, r])
        self.ended.append(Ended(s, self.id(s, r), int(self.runs[s, r]), reason, detail, attempt))
        self.attempt[s, r] = attempt + 1
        self.stop(s, r, again=self.at + REPLACED + min(2.0**attempt - 1.0, 30.0))

    def stop(self, s: int, r: int, again: float) -> None:
        """A replica is gone at once; the next one of its slot is started at ``again``."""
        self.alive[s, r] = False
        self.ready_at[s, r], self.back_at[s, r] = np.inf, again
        self.hung_at[s, r] = np.nan
        if self.system.idempotent[s]:
            self.again[s] += self.queue[s, r] + self.stuck[s, r]
        self.queue[s, r] = self.stuck[s, r] = self.grown[s, r] = 0.0

    def deploy(self, s: int, why: str, model: int | None = None) -> int:
        """A new revision: each slot turns to it once its successor has started; the number of the revision. ``model``:
        what an older revision runs, whose replicas stay; None: something new."""
        number = int(self.head[s]) + 1
        self.head[s] = number
        self.models[s][number] = number if model is None else model
        self.made.append(Made(s, number, self.at, why))
        for r in range(int(self.wanted[s])):
            if self.models[s][int(self.runs[s, r])] == model:
                self.runs[s, r] = number
        self._turn(s, number, [r for r in range(int(self.wanted[s])) if self.runs[s, r] != number])
        return number

    def restart(self, s: int) -> None:
        """Every replica is replaced, one after another."""
        self.epoch[s] += 1
        self._turn(s, int(self.head[s]), range(int(self.wanted[s])))

    def scale(self, s: int, count: int) -> None:
        """As many replicas are wished for from now on; those that are too many go at once."""
        for r in range(count, int(self.wanted[s])):
            self.stop(s, r, again=np.inf)
        for r in range(int(self.wanted[s]), count):
            self.runs[s, r], self.back_at[s, r] = self.head[s], self.at + REPLACED
        self.wanted[s] = count

    def _turn(self, s: int, number: int, slots: Iterable[int]) -> None:
        for n, r in enumerate(slots, 1):
            self._turns.append((self.at + n * float(self.system.start[s]), s, r, number))

    def id(self, s: int, r: int) -> str:
        return f"{self.system.names[s]}-{r}-{self.born[s, r]}"

    # --- one second --------------------------------------------------------------------------------------------------

    def _replace(self) -> None:
        for turn in [t for t in self._turns if t[0] <= self.at]:
            self._turns.remove(turn)
            _, s, r, number = turn
            if number == self.head[s] and not self.forces.unloadable[s]:
                self.runs[s, r] = number
                self._begin(s, r, ready=self.at)
        for s, r in zip(*np.nonzero(~self.alive & (self.back_at <= self.at)), strict=True):
            self._begin(int(s), int(r), ready=self.at + float(self.system.start[s] * self.forces.start[s]))

    def _begin(self, s: int, r: int, ready: float) -> None:
        self.alive[s, r], self.ready_at[s, r], self.back_at[s, r] = True, ready, np.inf
        self.of_epoch[s, r] = self.epoch[s]
        self.born[s, r] += 1
        self.since[s, r] = self.at
        self.hung_at[s, r] = np.nan
        self.queue[s, r] = self.stuck[s, r] = self.grown[s, r] = 0.0

    def _serve(self) -> None:
        world, force, rng = self.system, self.forces, self.rng
        n = len(world.names)
        ready, hung = self.ready, np.isfinite(self.hung_at)
        outside = world.rate * self._traffic[min(self._row, len(self._traffic) - 1)] * force.surge
        inside = np.bincount(world.callee, world.fan * self.arrived[world.caller], n)
        arrived = rng.poisson(np.maximum((outside + inside) * (1.0 - self.shed), 0.0)).astype(np.float64)
        weight = ready / (1.0 + np.minimum(self.queue + self.stuck, 1e6)) ** SHY
        whole = weight.sum(axis=1, keepdims=True)
        share = np.divide(weight, whole, out=np.zeros_like(weight), where=whole > 0)
        tries = rng.poisson(arrived * (1.0 + self.repeats))[:, None] * share
        sound = ready & ~hung
        elsewhere = np.divide(weight * sound, whole, out=np.zeros_like(weight), where=whole > 0)
        elsewhere /= np.maximum(elsewhere.sum(axis=1, keepdims=True), 1e-12)
        tries = tries + self.again[:, None] * elsewhere

        pure = world.compute[:, None] * force.slow * np.exp(rng.normal(0.0, 0.03, share.shape))
        wanted = np.minimum((tries + self.queue) * pure, 1.0) * ready * ~hung * world.cpu[:, None]
        demand = np.bincount(world.machine, wanted.sum(axis=1), len(world.cores)) + force.hog
        demand = demand + np.bincount(world.machine, (force.idle * self.alive).sum(axis=1), len(world.cores))
        crowd = np.maximum(demand / world.cores, 1.0)[world.machine]
        self.starved = np.clip(1.0 - 1.0 / crowd + self.dice.normal(0.0, 0.02, len(crowd)), 0.0, 1.0)
        wait_below, fails_below = self._calls(arrived, rng)
        seconds = pure * (1.0 + (crowd - 1.0) * world.cpu)[:, None] + np.where(world.blocking, wait_below, 0.0)[:, None]
        able = np.where(ready & ~hung, 1.0 / seconds, 0.0)

        self.stuck += np.where(hung, tries, 0.0)
        # What has waited for long is asked of another replica too, where one has time for it, before its time is up.
        patience = np.maximum(Gateway().hedge_after, HEDGE_LATENCIES * world.slo)
        others = sound.any(axis=1) & world.idempotent & (patience < world.timeout)
        hedged = np.where(others[:, None], self.stuck * hung / patience[:, None], 0.0)
        late_stuck = self.stuck * np.minimum(1.0 / world.timeout, 1.0)[:, None] * (hung & ~others[:, None])
        self.stuck -= late_stuck + hedged
        load = self.queue + np.where(hung, 0.0, tries)
        done = np.minimum(load, able)
        left = load - done
        shed = np.maximum(left - world.queue[:, None], 0.0)
        left -= shed
        over = np.where(others[:, None], np.maximum(left - able * patience[:, None], 0.0), 0.0)
        spare = np.maximum(able - load, 0.0).sum(axis=1)
        over *= np.minimum(spare / np.maximum(over.sum(axis=1), 1e-12), 1.0)[:, None]
        left -= over
        self.again[:] = (hedged + over).sum(axis=1)
        longest = able * world.timeout[:, None]
        late = np.where(able > 0, np.maximum(left - longest, 0.0), 0.0)
        self.queue = left - late
        # A replica refuses at once what it could not answer in time (``runtime.shed``), as what its queue cannot take.
        shed = shed + late
        self.use += SMOOTH * (np.divide(tries, able, out=np.zeros_like(able), where=able > 0) - self.use)
        filled = np.minimum(self.use, BUSIEST)
        inner = np.where(able > 0, seconds * filled / (2.0 * (1.0 - filled)), 0.0)
        waited = np.divide(self.queue, able, out=np.zeros_like(able), where=able > 0) + inner
        self._answer(arrived, done, share, seconds, waited, inner, shed, late_stuck, wait_below, fails_below)
        self._use(done, pure, wanted, demand)
        self.arrived = arrived

    def _calls(self, arrived: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Per service: seconds it waits for what it calls, and the chance that such calls fail a request."""
        world, force = self.system, self.forces
        n = len(world.names)
        takes = self.latency[world.callee] + force.late
        lost = 1.0 - (1.0 - self.failed[world.callee]) * (1.0 - force.broken) * (1.0 - force.denied)
        lost = np.where(takes > PATIENCE, np.maximum(lost, 1.0 - PATIENCE / np.maximum(takes, 1e-9)), lost)
        self.calls = rng.poisson(arrived[world.caller] * world.fan).astype(np.float64)
        self.call_seconds = np.minimum(takes, PATIENCE) * (1.0 - force.denied)
        self.call_errors = np.clip(lost, 0.0, 1.0)
        wait = np.bincount(world.caller, world.fan * self.call_seconds, n)
        kept = np.log1p(-np.minimum(world.fan * world.passes * self.call_errors, 1.0 - 1e-9))
        return np.asarray(wait, dtype=np.float64), np.asarray(
            1.0 - np.exp(np.bincount(world.caller, kept, n)), dtype=np.float64
        )

    def _answer(
        self, arrived: Floats, done: Floats, share: Floats, seconds: Floats, waited: Floats, inner: Floats,
        shed: Floats, late: Floats, wait_below: Floats, fails_below: Floats,
    ) -> None:  # fmt: skip
        world, force, rng = self.system, self.forces, self.rng
        total = done.sum(axis=1)
        part = np.divide(done, total[:, None], out=np.zeros_like(done), where=total[:, None] > 0)
        hasty = np.where(force.hasty[:, None] > 0, np.exp(-force.hasty[:, None] / np.maximum(waited, 1e-6)), 0.0)
        # The gateway repeats a try that brought no answer, never what the model answered, an error or not.
        ends = (part * (1.0 - (1.0 - hasty) * (1.0 - force.cut))).sum(axis=1)
        lost = np.array([0.0] * len(total))
        for ended in self.ended:  # what it held is repeated elsewhere, or lost
            lost[ended.service] += 1.0 / max(float(world.replicas[ended.service]), 1.0)
        hit = np.minimum(1.0, ends + 0.5 * lost)
        in_the_end = np.where(world.idempotent & self.ready.any(axis=1), ends, hit)
        request_fails = 1.0 - (1.0 - force.spoilt) * (1.0 - fails_below) * (1.0 - world.failing)
        raises = 1.0 - (1.0 - (part * force.fail).sum(axis=1)) * (1.0 - request_fails)
        again = np.where(world.idempotent, RETRIES, 0.0) * (1.0 + 2.0 * (force.hasty > 0))
        unanswered = in_the_end ** (1.0 + again)
        final = unanswered + (1.0 - unanswered) * raises
        none: Flags = np.asarray(~self.ready.any(axis=1), dtype=np.bool_)
        final = np.where(none, 1.0, final)
        reach = np.minimum(hit, 0.999)
        self.repeats = np.minimum(reach * (1.0 - reach**again) / (1.0 - reach), 0.8 + 2.5 * (force.hasty > 0))
        count = rng.poisson(np.where(none, arrived, total / (1.0 + self.repeats))).astype(np.float64)
        self.refused = rng.binomial(count.astype(np.int64), world.refused) + np.round(shed.sum(axis=1))
        late_all = late.sum(axis=1)
        self.errors = rng.binomial(count.astype(np.int64), np.clip(final, 0.0, 1.0)) + np.round(late_all)
        self.answered = count + np.round(late_all) + np.round(shed.sum(axis=1))
        self.too_much = np.round(shed.sum(axis=1))
        below = np.bincount(world.caller, world.fan * world.passes * world.failing[world.callee], len(final))
        usual = np.minimum(world.failing + below, 1.0)
        own = np.divide(usual, final, out=np.zeros_like(final), where=final > 0)
        self.anyway = self.dice.binomial(self.errors.astype(np.int64), np.minimum(own, 1.0)).astype(np.float64)
        self.retried = rng.poisson(self.repeats * count).astype(np.float64)
        impatient = np.divide((part * hasty).sum(axis=1), hit, out=np.zeros_like(hit), where=hit > 0)
        self.given_up = self.repeats * np.minimum(impatient, 1.0)
        below = np.where(world.blocking, 0.0, wait_below)[:, None]
        each = NETWORK + seconds + waited + below
        self._users(each, inner, part, count, none, late_all)
        ok = np.maximum(part * count[:, None], 0.0)
        self.done = rng.poisson(ok * (1.0 + self.repeats[:, None])).astype(np.float64)
        chance = 1.0 - (1.0 - force.fail) * (
            1.0 - request_fails[:, None]
        )  # what nobody waits for is answered all the same
        self.done_errors = rng.binomial(self.done.astype(np.int64), np.clip(chance, 0.0, 1.0)).astype(np.float64)
        self.nans = rng.binomial(self.done.astype(np.int64), force.nan).astype(np.float64)
        self.compute = np.where(done > 0, seconds, np.nan)
        self.waited = np.where(done > 0, waited, np.nan)
        self.labels = rng.poisson(ok * world.labelled[:, None]).astype(np.float64)
        wrong = 1.0 - (1.0 - world.wrong[:, None]) * (1.0 - force.wrong) * (1.0 - force.nan)
        self.wrong = rng.binomial(self.labels.astype(np.int64), np.clip(wrong, 0.0, 1.0)).astype(np.float64)
        self._outputs(part, count)
        best = np.where(none, NETWORK, (part * each).sum(axis=1))
        self.latency = np.where(total > 0, best, np.where(none, NETWORK, self.latency))
        self.failed = final

    def _users(self, each: Floats, inner: Floats, part: Floats, count: Floats, none: Flags, late: Floats) -> None:
        """Quantiles over the replicas by their share of the answers, and the spread of one answer."""
        world, rng = self.system, self.rng
        order = np.argsort(each, axis=1)
        sorted_each = np.take_along_axis(each, order, axis=1)
        upto = np.cumsum(np.take_along_axis(part, order, axis=1), axis=1)
        rows = np.arange(len(each))
        at50 = np.argmax(upto >= 0.5, axis=1)
        at99 = np.argmax(upto >= 0.985, axis=1)
        few = np.maximum(count, 1.0)
        spread = world.spread
        middle = sorted_each[rows, at50] * np.exp(rng.normal(0, 1.0, len(each)) * 1.25 * spread / np.sqrt(few))
        top = sorted_each[rows, at99] + 3.0 * inner.max(axis=1)
        top = top * np.exp(2.0 * spread + rng.normal(0, 0.4, len(each)) * spread)
        seen = (count > 0) & ~none
        self.p50 = np.where(seen, middle, np.nan)
        self.p99 = np.where(seen, np.maximum(top, middle), np.nan)
        sigma = np.sqrt(spread[:, None] ** 2 + np.divide(inner, each, out=np.zeros_like(each), where=each > 0) ** 2)
        above = 0.5 * erfc(np.log(world.slo[:, None] / each) / sigma / np.sqrt(2.0))
        chance = np.clip((part * above).sum(axis=1), 0.0, 1.0)
        self.slow = rng.binomial(count.astype(np.int64), chance) + np.round(late)

    def _outputs(self, part: Floats, count: Floats) -> None:
        """How far the newest answers of what answers most are from its own before (``ops.answers``), among which the
        odd ones count as well. What is new has no answers of before: it is compared once it has given enough."""
        noise = np.abs(self.rng.normal(0.065, 0.015, len(count)))
        self.shifted = np.where(count > 0, np.minimum(noise, 1.0), np.nan)
        odd = part * self.forces.odd
        several = [s for s, models in enumerate(self.models) if len(set(models.values())) > 1]
        for s in sorted({*several, *(s for s, _ in self._odd), *np.flatnonzero(odd.sum(axis=1) > 0).tolist()}):
            runs = np.array([self.models[s][int(number)] for number in self.runs[s]])
            shares = {int(m): float(part[s][runs == m].sum()) for m in np.unique(runs)}
            most = max(shares, key=lambda m: shares[m])
            for model, share in shares.items():
                course = self._odd.setdefault((s, model), Oddness(0.0 if model > 1 else float(self.answers[s])))
                if share > 0:
                    course.add(float(count[s]) * share, float(odd[s][runs == model].sum()) / share)
                if model == most and count[s] > 0:
                    far = course.apart(self.seconds)
                    self.shifted[s] = np.nan if far is None else min(max(float(self.shifted[s]), far), 1.0)
        self.answers += count

    def _use(self, done: Floats, pure: Floats, wanted: Floats, demand: Floats) -> None:
        """Processors, memory, disks, GPUs."""
        world, force, rng = self.system, self.forces, self.rng
        self.processor = np.where(
            self.alive, done * pure * world.cpu[:, None] + rng.uniform(0.002, 0.01, done.shape) + force.idle, 0.0
        )
        grow = np.where(self.alive, force.leak, 0.0)
        warm = np.where(self.alive & (self.at - self.since < 30.0), 0.002 * self.base, 0.0)
        self.grown += grow + warm + rng.normal(0.0, 1e5, grow.shape)
        self.busy = np.clip(demand / world.cores + rng.normal(0.02, 0.01, len(demand)), 0.0, 1.0)
        self.xids += force.xid
        self.ecc += force.ecc
        self.disk = np.where(force.full, 1.0, np.minimum(self.disk, 0.985) + rng.normal(0, 1e-5, len(self.disk)))
        for s, r in zip(*np.nonzero(self.alive & (self.base + self.grown > world.limit[:, None])), strict=True):
            self.end(int(s), int(r), "oom", "the kernel ended it: memory limit reached")

    @property
    def rss(self) -> Floats:
        out: Floats = self.base + np.maximum(self.grown, 0.0)
        return out


class Oddness:
    """Answers or inputs of one kind since some are odd: how many, and how odd, in all. ``before``: how many had come by
    then, none of them odd."""

    def __init__(self, before: float) -> None:
        self._count, self._odd = [before], [0.0]

    def add(self, more: float, odd: float) -> None:
        """A second in which ``more`` came, of which ``odd`` is the share or distance."""
        self._count.append(self._count[-1] + more)
        self._odd.append(self._odd[-1] + more * odd)

    def apart(self, seconds: float) -> float | None:
        """How far the newest RECENT are from those of before which ``ops.answers`` has kept after ``seconds``: FORMER,
        or those of SPAN seconds; None while those are too few."""
        whole = self._count[-1]
        kept = min(max(float(FORMER), whole * min(1.0, SPAN / max(seconds, 1.0))), whole - RECENT)
        if kept < FEWEST:
            return None
        newest, middle, oldest = (
            float(np.interp(whole - back, self._count, self._odd)) for back in (0.0, RECENT, RECENT + kept)
        )
        return abs((newest - middle) / RECENT - (middle - oldest) / kept)
