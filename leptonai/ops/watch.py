"""The loop of ops: collect, detect, judge, diagnose, respond, verify. Nothing that fails in it stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leptonai.errors import LeptonError
from leptonai.ops import gpu
from leptonai.ops.alert.page import families
from leptonai.ops.alert.pager import Pager
from leptonai.ops.answers import Answers
from leptonai.ops.casebook import Casebook
from leptonai.ops.classify.files import FOLDER as CLASSIFIER
from leptonai.ops.classify.files import Newest
from leptonai.ops.collect import Collected, Collector
from leptonai.ops.control import Control, World
from leptonai.ops.detect import GOLDEN, Watcher, memory
from leptonai.ops.detect.base import base_tier
from leptonai.ops.detect.full import FullTier
from leptonai.ops.detect.tiers import Tiers
from leptonai.ops.detect.watcher import rehearsed
from leptonai.ops.diagnosis.files import RuleFiles
from leptonai.ops.edge import Edge
from leptonai.ops.exits import as_seen, exit_of_event, exit_of_replica
from leptonai.ops.feedback.listener import Listener
from leptonai.ops.feeds import Feeds
from leptonai.ops.judge import Memory, Trigger
from leptonai.ops.learn.learner import Learner
from leptonai.ops.logs.privacy import Masker
from leptonai.ops.lookout import Lookout
from leptonai.ops.modeltests import Rounds
from leptonai.ops.openers import Openers
from leptonai.ops.outcomes import Outcomes
from leptonai.ops.outside import Outside
from leptonai.ops.page import Family
from leptonai.ops.predictions import Follower, Line
from leptonai.ops.promises import EVERY as PROMISES_EVERY
from leptonai.ops.promises import FILE as PROMISES_FILE
from leptonai.ops.promises import Promises
from leptonai.ops.rollouts import Rollouts
from leptonai.ops.runbook import RunbookFiles
from leptonai.ops.scale import Scaler
from leptonai.ops.things import Thing, judge_thing
from leptonai.ops.verify import passed
from leptonai.ops.world import unscheduled, wished_replicas
from leptonai.protocols import TelemetryStore
from leptonai.settings import Settings
from leptonai.types import Alert, Anomaly, Event, Key, Replica, Signal

log = logging.getLogger(__name__)
FRESH_EXIT = 15.0  # seconds; an exit told by the log at our start is news only when it is younger
OF_SCALE = ("ready_count", "replica_request_rate_per_second", "replica_in_flight_count", "replica_cpu_ratio")
OF_REVISION = ("latency_p50_seconds", "latency_p99_seconds", "slow_ratio")
REHEARSE = 120.0  # seconds of a new revision that are learnt at once
MOST_PAGES = 10  # of events or feedback read in one round, so that a flood cannot stop the watch


class Watch:
    """All that ops knows. ``step`` is one round; the caller keeps the time."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        control: Control,
        store: TelemetryStore,
        clock: Callable[[], float],
        timeout: float | None = None,
        feeds: Feeds | None = None,
    ) -> None:
        """``timeout``: seconds a process may take to show its page, 80 % of the period unless given. ``feeds`` makes
        traces of the requests seen here; None: nobody does."""
        self.settings, self.control, self.store = settings, control, store
        self.rules = RuleFiles(home / "rules")
        pipeline = feeds.pipeline if feeds is not None else None
        self.learner = Learner(home, control)
        self.runbooks = RunbookFiles(home / "runbooks")
        shifts = pipeline.shifts if pipeline else None
        self.classifier = Newest(home / CLASSIFIER) if settings.ops.classifiers != "off" else Newest(None, None)
        self.answers = Answers()
        self.model_tests = Rounds(clock)
        self.casebook = Casebook(
            settings, control, store, shifts, self.rules, self.learner, self.runbooks, self._calls, self.classifier,
            self.answers.marked, home=str(home),
        )  # fmt: skip
        self.outside = Outside(settings.watch)
        of = settings.watch
        told = of.detector
        full = FullTier(
            patience=told.patience, every=told.every, day=told.day, weekly=told.weekly, holidays=of.holidays,
            offset=of.utc_offset, horizon=of.horizon, alpha=told.alpha, order=told.order,
        )  # fmt: skip
        tiers = Tiers(base_tier(told.patience, told.alpha, told.order), full, seats=of.seats)
        self.watcher = Watcher(tiers, score=settings.ops.anomaly_score, concern=self.outside.concern)
        self._learnt = home / memory.FILE
        memory.restore(self._learnt, self.watcher, clock())
        self._kept_at = clock()
        self._scaled: dict[Key, int] = {}  # service -> the replicas its signals were learnt with
        self.things: dict[str, Memory] = {}  # subject of an external incident -> what its judge remembers
        self.anomalies: list[Anomaly] = []  # open at the newest look
        self.outcomes = Outcomes()
        self.openers = Openers()
        self.listener = Listener(control, store)
        self._opinions: list[Signal] = []
        self._complaints: list[Signal] = []  # of issues: conditions may ask for them, no detector watches them
        self.lookouts: dict[Key, Lookout] = {}
        self.rollouts = Rollouts(control, home / "rollouts", home / "orders")
        self.promises = Promises(home / PROMISES_FILE, store, settings.ops.period)
        self.failures: dict[str, str] = {}  # stage -> what failed there last, until it works again
        self._clock = clock
        self._feeds = feeds
        if feeds is not None:
            feeds.receiver.tap = self.outside
        self._foreign: list[Trigger] = []
        gpus = gpu.Told(Path(settings.ops.gpus)) if settings.ops.gpus else None
        self._collector = Collector(timeout or 0.8 * settings.ops.period, str(home), gpus)
        self._follower = Follower(home / "run")
        self._scaler = Scaler(home / "scaler", settings, control)
        mask = pipeline.mask_text if pipeline else Masker().mask
        self.pager = Pager(settings, control, home / "alerts.json", mask, platform.node())
        self._edge = Edge(home, timeout or 0.8 * settings.ops.period)
        self._world = World()
        self._world_at = float("-inf")
        self._collected = Collected(at=float("-inf"), seconds=0.0)
        self._history: deque[Event] = deque(maxlen=200)
        self._judged_at = float("-inf")
        self._loaded = False
        self._told: set[str] = set()  # kinds of files that the audit log was told of
        self._event = self._feedback = 0

    async def step(self, now: float) -> None:
        """One round at ``now``. A stage that fails is told to the audit log once, and tried again in the next round."""
        for name, stage in (
            ("world", self._look_at_world),
            ("incidents", self._load),
            ("rules", self._read_rules),
            ("runbooks", self._read_runbooks),
            ("events", self._read_events),
            ("reviews", self._learn),
            ("collect", self._collect),
            ("labels", self._join_labels),
            ("issues", self._listen),
            ("tests", self._test),
            ("detect", self._detect),
            ("rollouts", self._roll),
            ("respond", self._respond),
            ("verify", self._verify),
            ("relearn", self._relearn),
            ("alert", self._alert),
            ("scale", self._scale),
        ):
            if name == "rollouts":  # what is decided now is dated now: reading the pages took its time
                now = max(now, self._clock())
            await self._stage(name, stage, now)

    def alerts(self) -> list[Alert]:
        return self.pager.alerts

    def families(self) -> list[Family]:
        """What ``/metrics`` of ops tells of promises and alerts."""
        return families({key: (s.requests, s.bad) for key, s in self.lookouts.items()}, self.pager.alerts)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if (learnt := self.watcher.learnt(self._clock(), self.settings.watch.state_bytes)) is not None:
                memory.write(self._learnt, learnt)
        with contextlib.suppress(OSError):
            self.promises.write(self.promises.snapshot(self.lookouts, self._clock()))
        self._scaler.keep(self._clock())
        self.model_tests.close()
        self._edge.close()
        self._collector.close()

    async def _stage(self, name: str, stage: Callable[[float], Awaitable[None]], now: float) -> None:
        try:
            await stage(now)
        except asyncio.CancelledError:
            raise
        except Exception as e:
            text = e.message if isinstance(e, LeptonError) else f"{type(e).__name__}: {e}"
            if self.failures.get(name) != text:
                self.failures[name] = text
                log.warning("%s: %s", name, text, exc_info=None if isinstance(e, LeptonError) else e)
                if not (isinstance(e, LeptonError) and e.retry):
                    with contextlib.suppress(LeptonError):
                        await self.control.record("ops.failed", "ops", {"stage": name, "error": text})
        else:
            if self.failures.pop(name, None) is not None:
                log.info("%s: works again", name)

    async def _look_at_world(self, now: float) -> None:
        self._world = await self.control.world()
        self._world_at = now
        keys = {s.key for s in self._world.services}
        for gone in self.lookouts.keys() - keys:
            del self.lookouts[gone]
        for service in self._world.services:
            lookout = self.lookouts.get(service.key)
            if lookout is None:
                lookout = self.lookouts[service.key] = Lookout(service, self.settings.ops)
                self.promises.restore(lookout, now)
            known = lookout.revisions[-1].number if lookout.revisions else 0
            if known != service.revision:
                lookout.revisions = tuple(await self.control.revisions(service.key))

    async def _load(self, now: float) -> None:
        if not self._loaded:
            await self.casebook.load(now)
            self._loaded = True

    async def _read_rules(self, now: float) -> None:
        """A broken file is a stage that fails: it is told once, and the others are in force all the same."""
        if self.classifier.look() and self.classifier.broken is not None:
            log.warning("classifier: %s", self.classifier.broken.message)
        if self.rules.look() or "rules" not in self._told:
            detail = {"rules": len(self.rules.book.rules), "trees": len(self.rules.book.trees)}
            await self._tell_files("rules", detail, self.rules.broken)
        self.openers.use(self.rules.book)
        for broken in self.rules.broken.values():
            raise broken

    def _calls(self, now: float) -> list[tuple[Key, Key]]:
        return self._feeds.calls(now) if self._feeds is not None else []

    async def _read_runbooks(self, now: float) -> None:
        """As with rules. A row may be for a cause that an operator's rules have."""
        if self.runbooks.look(self.rules.book.causes) or "runbooks" not in self._told:
            detail = {"files": sorted({row.source for row in self.runbooks.book.rows()})}
            await self._tell_files("runbooks", detail, self.runbooks.broken)
        for broken in self.runbooks.broken.values():
            raise broken

    async def _tell_files(self, what: str, detail: dict[str, Any], broken: Mapping[str, LeptonError]) -> None:
        """Once at our start, and whenever one has changed: `leptonai status` shows what is broken."""
        self._told.add(what)
        said = {path: error.message for path, error in broken.items()}
        with contextlib.suppress(LeptonError):
            await self.control.record(f"{what}.read", "ops", {**detail, "broken": said})

    async def _read_events(self, now: float) -> None:
        """Past our start, every exit is news; of those before it only the youngest that no incident tells of."""
        first = self._event == 0
        told = {
            a.labels.get("replica") for c in self.casebook.cases for a in c.incident.anomalies if "replica" in a.labels
        }
        for _ in range(MOST_PAGES):
            page = await self.control.events(self._event)
            for event in page:
                self._event = event.seq
                self._history.append(event)
                self.learner.hear(event)
                if (seen := self.lookouts.get(str(event.detail.get("service", "")))) is not None:
                    seen.hear(event)
                exit = exit_of_event(event)
                if exit is None or (first and (now - exit.at > FRESH_EXIT or exit.replica in told)):
                    continue
                service = str(event.detail.get("service") or event.subject)
                if (lookout := self.lookouts.get(service)) is not None:
                    lookout.ended(exit)
            if first or not page:
                break
        if first and not self._event:
            self._event = -1  # an empty log: everything that comes is news

    async def _learn(self, now: float) -> None:
        await self.learner.step(now, self.rules.book)

    async def _collect(self, now: float) -> None:
        world = self._world
        found = await self._collector.collect(world.services, world.replicas, world.gateways, now)
        self.store.write(found.signals)
        self.store.write(await self._edge.signals(now))
        stuck = Signal(name="gateway_trouble_count", labels={}, at=now, value=float(bool(world.trouble)))
        homeless = unscheduled(world.services, world.replicas, now)
        self.store.write([stuck, *homeless])
        self._collected = found
        self.rollouts.follow(world.services)
        self.outcomes.mirrored = any(s.canary is not None for s in world.services)
        self._follower.read(world.replicas, self.outcomes, self._answered)
        if self._feeds is not None:
            self._feeds.step(world.services, now)
            if self._feeds.pipeline is not None:
                self._feeds.pipeline.watch(world.replicas)
            called = self._feeds.dependencies.signals(now)
            self.store.write(called)
            self.openers.saw(called)
        told = self.answers.signals(now)
        self.store.write(told)
        self.openers.saw([*found.signals, *homeless, *told])

    def _answered(self, replica: Replica, line: Line) -> None:
        self.rollouts.saw(replica, line)
        self.answers.saw(replica, line)
        if self._feeds is not None:
            self._feeds.answered(replica, line)

    async def _join_labels(self, now: float) -> None:
        services = {s.key: s for s in self._world.services}
        for _ in range(MOST_PAGES):
            items, after = await self.control.feedback(self._feedback)
            self.listener.opinions.heard(items, self.outcomes.asked, services, now)
            self.outcomes.labelled(items, now)  # after them: a label takes its prediction with it
            if after == self._feedback:
                break
            self._feedback = after
        self.outcomes.expire(now)
        fresh = self.outcomes.fresh()
        self.listener.opinions.labelled(fresh, now)
        joined = [
            Signal(name="label_error_ratio", labels={"service": s, "digest": d}, at=now, value=wrong / n)
            for (s, d), (n, wrong) in fresh.items()
        ]
        self._opinions = self.listener.opinions.signals(services, now)
        self.store.write([*joined, *self._opinions])
        self.outcomes.forget(set(self.lookouts))
        self.answers.forget(set(self.lookouts))

    async def _listen(self, now: float) -> None:
        self._complaints = await self.listener.count({s.key for s in self._world.services}, now)
        self.store.write(self._complaints)
        await self.listener.verify(now)

    async def _test(self, now: float) -> None:
        self.model_tests.step(self._world.services, self._world.replicas, now)
        self.store.write(self.model_tests.signals(now))
        for key, lookout in self.lookouts.items():
            lookout.tested = self.model_tests.of(key)
        for key, kind, detail in self.model_tests.news():
            await self.control.record(kind, key, detail)

    async def _detect(self, now: float) -> None:
        found = self._collected
        if self._judged_at == found.at:
            return
        self._judged_at = found.at
        replicas = as_seen(self._world.replicas, found.unanswered, now)
        services = {s.key: s for s in self._world.services}
        awake = services.keys() - found.resting
        sick = [key for key in awake if self.casebook.open(key)]
        sick += self.casebook.opened(now, self.settings.watch.frozen)
        heard = [*found.signals, *self._opinions, *self.outside.take(now)]
        anomalies = self.anomalies = self.watcher.step(now, heard, expected=awake, frozen=sick)
        for about in self.outside.ended():
            self.watcher.end(about)
        self.openers.saw([*heard[len(found.signals) :], *self._complaints])
        here: dict[Key, list[Replica]] = {key: [] for key in awake}
        for replica in replicas:
            if replica.service in here:
                here[replica.service].append(replica)
        declared = self.openers.step(now, here)
        self._foreign = self._judge_things(now, anomalies)
        self._rate(now, anomalies, awake)
        for key, lookout in self.lookouts.items():
            if key in found.resting and lookout.quiet:
                continue
            lookout.wish(services.get(key, lookout.service), replicas, now)
            for replica in lookout.replicas:
                if (exit := exit_of_replica(replica)) is not None:
                    lookout.ended(exit)
            lookout.step(
                now, found, anomalies, self.watcher.golden(key), self.outcomes, self.store, declared.get(key, ())
            )

    def _judge_things(self, now: float, anomalies: Sequence[Anomaly]) -> list[Trigger]:
        """The triggers of what we do not serve: this machine, and everything that sends its signals."""
        mine: dict[str, list[Anomaly]] = {}
        for anomaly in anomalies:
            mine.setdefault(self.watcher.whose(anomaly), []).append(anomaly)
        out: list[Trigger] = []
        for subject in [s for s in self.watcher.about if "/external/" in s and (s in mine or self.things.get(s))]:
            thing = Thing(
                subject=subject, watched=len(self.watcher.about[subject]), anomalies=tuple(mine.get(subject, ()))
            )
            found, self.things[subject] = judge_thing(now, thing, self.things.get(subject, {}), self.settings.watch)
            out += found
        return out

    def _rate(self, now: float, anomalies: Sequence[Anomaly], awake: Collection[Key]) -> None:
        """Write down, per service, the share of its golden signals that are anomalous."""
        signals = []
        for key in awake:
            if watched := self.watcher.golden(key):
                odd = {a.signal.partition(":")[0] for a in anomalies if a.labels == {"service": key}}
                value = len(odd.intersection(GOLDEN)) / watched
                signals.append(Signal(name="anomaly_ratio", labels={"service": key}, at=now, value=value))
        self.store.write(signals)

    async def _roll(self, now: float) -> None:
        if self._world_at == self._judged_at:
            world, gateway = self._world, self._collected.lanes
            await self.rollouts.step(now, world.services, world.replicas, self.lookouts, gateway)

    async def _respond(self, now: float) -> None:
        if self._loaded:
            complete = min(self._collected.at, self._world_at)
            self.casebook.gateway = self._world.trouble
            self.casebook.frozen = self._world.frozen
            self.casebook.theirs = self._world.theirs
            await self.casebook.step(
                now, self.lookouts, self._collected.unanswered, complete, self._history, self._foreign
            )

    async def _alert(self, now: float) -> None:
        if not self._loaded:
            return
        expected = {key: (seen.last.burns, wished_replicas(seen.service) > 0) for key, seen in self.lookouts.items()}
        feeds = self._feeds
        await self.pager.step(
            now,
            [c.incident for c in self.casebook.cases if c.incident.id],
            expected,
            lambda: feeds.calls(now) if feeds else (),
            feeds.hosts if feeds else None,
        )

    async def _scale(self, now: float) -> None:
        if not self._loaded or self._collected.at != self._world_at:
            return  # without the wish and the incidents of this round, nothing is known to scale by
        automatic = [s.key for s in self._world.services if s.spec.scale.auto]
        trouble = {key: self.casebook.trouble(key) for key in automatic}
        held = await self._edge.held() if automatic else {}
        await self._scaler.step(now, self._world, self._collected, trouble, held)
        self.store.write(self._scaler.readings)

    async def _relearn(self, now: float) -> None:
        """What replicas do one by one means something else once there are more or fewer of them; and now and then what
        was learnt is written down."""
        for key, lookout in self.lookouts.items():
            wished = wished_replicas(lookout.service)
            if lookout.converged_since is None or not wished or wished == self._scaled.get(key, 0):
                continue
            if self._scaled.get(key):
                slots = self.watcher.of(key, OF_SCALE)
                self.watcher.relearn(slots, [], np.zeros((0, len(slots))))
            self._scaled[key] = wished
        if now - self.promises.kept_at >= PROMISES_EVERY:
            await asyncio.to_thread(self.promises.write, self.promises.snapshot(self.lookouts, now))
        if now - self._kept_at >= memory.EVERY:
            self._kept_at = now
            if (learnt := self.watcher.learnt(now, self.settings.watch.state_bytes)) is not None:
                await asyncio.to_thread(memory.write, self._learnt, learnt)

    async def _learn_again(self, lookout: Lookout, now: float) -> None:
        """A revision has proved itself: how fast it is is what is usual from now on, learnt from its own seconds."""
        since = max(lookout.converged_since or now, now - REHEARSE)
        slots, rows = [], []
        for slot in self.watcher.of(lookout.service.key, OF_REVISION):
            name, labels = self.watcher.identity(slot)
            for series in self.store.read(name, since, now + 1e-3, labels):
                if series.labels == labels:
                    slots.append(slot)
                    rows.append(dict(zip(series.at, series.value, strict=True)))
        if slots:
            at = sorted({t for row in rows for t in row})
            x = np.array([[row.get(t, np.nan) for row in rows] for t in at])
            self.watcher.take_over(slots, await asyncio.to_thread(rehearsed, len(slots), at, x, self.watcher.tiers))

    async def _verify(self, now: float) -> None:
        if not self._loaded or not self._collected.at == self._judged_at == self._world_at:
            return
        for key, lookout in self.lookouts.items():
            if key in self._collected.resting:
                continue
            burning = any(burn.severity is not None for burn in lookout.last.burns)
            trial = lookout.on_trial(self._collected, burning or self.casebook.open(key), now)
            head = next((r for r in lookout.revisions if r.number == lookout.service.revision), None)
            if head is None or head.verified is not None or lookout.service.canary is not None:
                continue
            digests = {v.digest for v in lookout.service.spec.variants}
            convicted = any(w.verdict == "convicted" and w.digest in digests for w in lookout.last.wrong)
            terms = passed(trial, lookout.service, convicted, now)
            if terms is not None:
                labels = {w.digest: [w.wrong, w.total] for w in lookout.last.wrong if w.digest in digests}
                detail = msgspec.json.encode({**terms, "labels": labels}).decode()
                await self.control.verify(key, head.number, detail)
                if any(r.verified is not None for r in lookout.revisions):
                    await self._learn_again(lookout, now)
                lookout.revisions = tuple(await self.control.revisions(key))
