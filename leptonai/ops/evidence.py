"""From a scene to facts: each is one sentence with its numbers, numbered ``e1``, ``e2`` ..., and yields features."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from leptonai.ops.diagnosis.faulttree import About
from leptonai.ops.edge import HELD, REFUSED, STALE
from leptonai.ops.exits import SILENT_SECONDS, Exit
from leptonai.ops.judge import Trigger
from leptonai.ops.logs.said import in_words, of_calls
from leptonai.ops.modeltests import Round
from leptonai.ops.scene import Change, Marked, Scene, latest_change
from leptonai.ops.warned import FLAGS, LOST, Warned
from leptonai.types import Evidence, Replica, Spec

NEAR = 0.5  # of its memory limit, from which a replica is told of
FAILING = 0.01  # more of the answers are errors than before: tenfold the budget of an objective of 99.9 %
# Why a replica ended whose model could not be loaded: the code of the error in its failure.json (ARCHITECTURE).
# In a cluster it may be the image that cannot be had, or what it is to be started with.
UNLOADED = frozenset({"model", "spec", "plugin", "load_failed", "image_missing", "start_failed"})
PROVED = 2.0  # seconds before the onset at which a revision must have been verified: an onset is an estimate
READING = "signal"  # the kind of the facts that declared signals make


class Feature(NamedTuple):
    value: float | bool
    evidence: str


class Facts(NamedTuple):
    """``features``: (about, subject) -> name -> value and the evidence that says so."""

    evidence: tuple[Evidence, ...]
    features: Mapping[tuple[About, str], Mapping[str, Feature]]


class _Notes:
    def __init__(self, now: float) -> None:
        self._now = now
        self.evidence: list[Evidence] = []
        self.features: dict[tuple[About, str], dict[str, Feature]] = {}

    def add(
        self, about: About, subject: str, kind: str, text: str, at: float | None = None,
        **told: float | bool | str | None,
    ) -> None:  # fmt: skip
        """What is told is kept beside the text; of it, numbers and flags are features."""
        id = f"e{len(self.evidence) + 1}"
        known = {name: value for name, value in told.items() if value is not None}
        data: dict[str, Any] = {"about": about, "subject": subject, **known}
        moment = self._now if at is None else at
        self.evidence.append(Evidence(id=id, kind=kind, at=moment, text=text, data=data))
        of = self.features.setdefault((about, subject), {})
        of.update({name: Feature(value, id) for name, value in known.items() if not isinstance(value, str)})

    def flag(self, about: About, subject: str, name: str) -> None:
        """What the newest evidence says of something else besides."""
        self.features.setdefault((about, subject), {})[name] = Feature(True, self.evidence[-1].id)


def gather(scene: Scene) -> Facts:
    """Every fact of the scene, in a fixed order: what changed, the replicas, memory, compute, labels, users, host."""
    notes = _Notes(scene.now)
    key = scene.service.key
    change = latest_change(scene.revisions)
    if change is not None:
        _changed(scene, change, notes)
    lasted = scene.now - scene.onset
    notes.add("service", key, READING, f"It has lasted {lasted:.0f} s.", lasted_seconds=lasted)
    _exits(scene, notes)
    _silence(scene, notes)
    _starting(scene, notes)
    for warned in scene.warned:
        _warned(scene, warned, notes)
    _memory(scene, notes)
    if change is not None:
        _compared(scene, change, notes)
    _labels(scene, notes)
    _tested(scene, notes)
    _users(scene, notes)
    if scene.host_cpu is not None:
        text = f"The machine's processors were {scene.host_cpu:.0%} busy since the onset."
        notes.add("service", key, "host", text, host_cpu_ratio=scene.host_cpu)
    if scene.own_cpu is not None:
        _processors(scene, *scene.own_cpu, notes)
    if scene.neighbour is not None:
        other, rise = scene.neighbour
        text = f"Service {other} takes {rise:+.0%} of the machine's processors since the onset."
        notes.add("service", key, READING, text, neighbour_cpu_rise=rise, neighbour=other)
    if scene.blamed is not None:
        who = scene.blamed
        text = f"{who.node}, which it calls, explains {who.share:.0%} of the trouble: {'; '.join(who.told)}."
        notes.add(
            "service", key, "ranking", text, blamed_slow=0.0 if who.fails else who.share,
            blamed_failing=who.share if who.fails else 0.0,
        )  # fmt: skip
    if scene.marked is not None:
        _marked(scene, scene.marked, notes)
    for reading in scene.readings:
        notes.add(reading.about, reading.subject, READING, reading.text, **{reading.feature: reading.value})
    _edge(scene, notes)
    for shift in scene.logs:
        speaks = {f"calls_{said}_logged": True} if (said := of_calls(shift)) else {}
        notes.add("service", key, f"log_{shift.kind}", in_words(shift), shift.at, **speaks)
    for trigger in scene.triggers:
        _judged(trigger, key, notes)
    return Facts(tuple(notes.evidence), notes.features)


def _processors(scene: Scene, before: float, since: float, notes: _Notes) -> None:
    """Who takes more of them, it or everything else on the machine."""
    key = scene.service.key
    told = f"It takes {since:.0%} of the machine's processors since the onset, {before:.0%} before"
    if before > 0.0:
        notes.add("service", key, READING, f"{told}.", own_cpu_ratio=since / before)
    if scene.host_cpu is not None and scene.host_cpu_before is not None:
        rise = (scene.host_cpu - since) - (scene.host_cpu_before - before)
        notes.add("service", key, READING, f"{told}; everything else takes {rise:+.0%}.", others_cpu_rise=rise)


def _judged(trigger: Trigger, key: str, notes: _Notes) -> None:
    terms = trigger.terms
    if trigger.kind in ("burn_errors", "burn_latency"):
        what = "errors" if trigger.kind == "burn_errors" else "slow answers"
        text = (
            f"{terms.get('bad', 0)} of {terms.get('total', 0)} requests were {what}: the budget burns "
            f"{terms.get('burn_long', 0):.1f} times too fast over {terms.get('window')}, the limit is "
            f"{terms.get('factor', 0):.1f}."
        )
        notes.add("service", key, "burn", text, trigger.began)
    elif trigger.kind == "anomaly_rate":
        names = ", ".join(terms.get("anomalous", []))
        text = f"{terms.get('share', 0):.0%} of the golden signals are anomalous together: {names}."
        notes.add("service", key, "anomalies", text, trigger.began)
    elif trigger.kind == "declared":
        numbers = ", ".join(f"{n} {v:.3g}" for n, v in terms.items() if isinstance(v, float))
        about = trigger.subject or key
        told = {"condition": trigger.name, "replica": trigger.subject or None}
        text = f"{terms['text'].format(subject=about)} ({numbers})."
        notes.add("service", key, "condition", text, trigger.began, **told)
    elif trigger.kind == "service_absent":
        text = "Nothing is heard of the service although it is wished for."
        notes.add("service", key, "absent", text, trigger.began, absent=True)


def _starting(scene: Scene, notes: _Notes) -> None:
    present = list(_present(scene))
    starting = [r for r in present if r.state == "starting"]
    if present:
        text = f"{len(starting)} of {len(present)} replicas are starting."
        notes.add(
            "service", scene.service.key, READING, text, starting_share=len(starting) / len(present),
            replicas=len(present),
        )  # fmt: skip


def revision_subject(key: str, number: int) -> str:
    """How a revision is named as the subject of a cause: ``digits#4``."""
    return f"{key}#{number}"


def _changed(scene: Scene, change: Change, notes: _Notes) -> None:
    key, made = scene.service.key, change.revision
    age = scene.onset - made.at
    when = f"{age:.0f} s before" if age >= 0 else f"{-age:.0f} s after"
    text = f"Revision {made.number} by {made.by} ({made.why or 'no reason given'}) was made {when} the onset."
    verified = made.verified is not None and made.verified <= scene.onset - PROVED
    if verified:
        text += " It had been verified good before."
    notes.add(
        "service", key, "change", text, made.at, change_age_seconds=age, change_verified=verified,
        revision=str(made.number), by=made.by, why=made.why or None,
    )  # fmt: skip


def _exits(scene: Scene, notes: _Notes) -> None:
    key = scene.service.key
    for exit in scene.exits:
        text = f"Replica {exit.replica} {_how(exit)}."
        notes.add(
            "replica", exit.replica, "exit", text, exit.at, gone=True, killed=exit.killed,
            out_of_memory=exit.out_of_memory, crashes=exit.attempt, put_out=exit.reason == "evicted" or None,
        )  # fmt: skip
    text = f"{len(scene.exits)} replica(s) of the service ended since the onset."
    notes.add("service", key, READING, text, lost_replicas=len(scene.exits))
    change = latest_change(scene.revisions)
    if change is not None:
        since = change.revision.at - 1.0  # a cluster's times are whole seconds, rounded down
        mine = [e for e in scene.exits if e.digest == change.variant.digest and e.at > since and not e.killed]
        if mine:
            subject = revision_subject(key, change.revision.number)
            text = f"{len(mine)} replica(s) of revision {change.revision.number} ended by themselves since it was made."
            unloaded = len([e for e in mine if e.reason in UNLOADED])
            notes.add(
                "revision", subject, "failed_starts", text, mine[-1].at, failed_starts=len(mine), load_failures=unloaded
            )


def _warned(scene: Scene, warned: Warned, notes: _Notes) -> None:
    key, at = scene.service.key, warned.at
    told = {"reason": warned.reason, "said": warned.said, "node": warned.node or None}
    if warned.replica:
        about = {FLAGS[warned.reason]: True} if warned.reason in FLAGS else {}
        notes.add("replica", warned.replica, "cluster_replica", warned.text(scene.now), at, **told, **about)
    elif warned.node:
        here = warned.among(r.id for r in scene.replicas)
        notes.add("service", key, "cluster_node", warned.text(scene.now, here), at, **told, names=", ".join(here))
        for replica in here if warned.reason in LOST and warned.over is None else ():
            notes.flag("replica", replica, "node_lost")
    else:
        notes.add("service", key, "cluster_service", warned.text(scene.now), at, **told)


def _how(exit: Exit) -> str:
    if exit.out_of_memory:
        how = "was killed for want of memory"
    elif exit.signal is not None:
        how = f"was ended by {_signal(exit.signal)}"
    elif exit.code is not None:
        how = f"exited with code {exit.code}"
    else:
        how = f"ended ({exit.reason or 'no reason known'})"
    return f"{how}, which nothing here had asked for" + (f": {exit.detail}" if exit.detail else "")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _present(scene: Scene) -> Iterator[Replica]:
    return (r for r in scene.replicas if not r.gone and r.state != "stopping")


def _silence(scene: Scene, notes: _Notes) -> None:
    present = list(_present(scene))
    silent = {r.id for r in present if scene.unanswered.get(r.id, 0.0) >= SILENT_SECONDS or r.reason == "hung"}
    for replica in present:
        if replica.id not in silent:
            continue
        siblings = [r for r in present if r.id != replica.id]
        share = len([r for r in siblings if r.id in silent]) / len(siblings) if siblings else 0.0
        seconds = scene.unanswered.get(replica.id)
        told = " The platform's own probe says it hangs." if replica.reason == "hung" else ""
        waits = f"has not answered for {seconds:.1f} s" if seconds is not None else "does not answer"
        others = f"{len(siblings) - len(silent - {replica.id})} of {len(siblings)} siblings answer"
        notes.add(
            "replica", replica.id, "silence",
            f"Replica {replica.id} {waits} while its process is alive; {others}.{told}",
            gone=False, hung=replica.reason == "hung", unanswered_seconds=seconds, siblings_silent_share=share,
        )  # fmt: skip


def _memory(scene: Scene, notes: _Notes) -> None:
    for replica, share in sorted(scene.memory.items()):
        if share >= NEAR:
            text = f"Replica {replica} holds {share:.0%} of its memory limit."
            notes.add("replica", replica, "memory_share", text, gone=False, memory_share=min(share, 1.0))
    present = [r.id for r in _present(scene)]
    leaks = [leak for leak in scene.leaks if leak.replica in present]
    for leak in leaks:
        most = scene.memory.get(leak.replica)
        left = leak.rss * (1.0 / most - 1.0) / leak.slope if most and leak.slope > 0 else None
        beside = f", of its siblings by {leak.siblings / 1e6:.2f} MB/s" if len(present) > 1 else ""
        text = f"The memory of replica {leak.replica} grows by {leak.slope / 1e6:.2f} MB/s over {leak.seconds:.0f} s"
        notes.add(
            "replica", leak.replica, "memory", f"{text}{beside}; it holds {leak.rss / 1e6:.0f} MB.",
            gone=False, leaking=True, rss_slope_bytes_per_second=leak.slope, full_in_seconds=left,
        )  # fmt: skip
    if leaks:
        text = f"{len(leaks)} of {len(present)} replicas leak."
        notes.add(
            "service", scene.service.key, "leaks", text, leaking_share=len(leaks) / len(present), replicas=len(present)
        )
        change = latest_change(scene.revisions)
        if change is not None and len(leaks) * 2 > len(present) > 1:
            subject = revision_subject(scene.service.key, change.revision.number)
            text = f"The replicas that leak run revision {change.revision.number}."
            notes.add("revision", subject, "leaks", text, most_leak=True)


def _compared(scene: Scene, change: Change, notes: _Notes) -> None:
    subject = revision_subject(scene.service.key, change.revision.number)
    new, old = change.variant.digest, change.previous or ""
    number = change.revision.number
    if new in scene.compute and scene.compute.get(old, 0.0) > 0:
        a, b = scene.compute[new], scene.compute[old]
        text = f"One call of revision {number} computes {_ms(a)}, of the one before {_ms(b)}: {a / b:.1f} times."
        notes.add("revision", subject, "compute", text, compute_ratio=a / b, compute_excess_seconds=a - b)
        text = f"The newest change of what runs made one call {a / b:.1f} times as long."
        notes.add("service", scene.service.key, READING, text, change_compute_ratio=a / b)
    if new in scene.errors:
        share = scene.errors[new]
        before = scene.errors.get(old, scene.before.error)
        text = f"Revision {number} answers {share:.1%} of requests with an error"
        text += f"; before it, it was {before:.1%}." if before is not None else "."
        notes.add(
            "revision", subject, "errors", text, error_share=share,
            error_excess=share - (before or 0.0), previous_fails_too=(before or 0.0) > share / 2,
        )  # fmt: skip
    former = scene.former.get(new)
    if former is not None and former.seconds > 0:
        base = scene.compute.get(old, 0.0)
        ratio = former.compute / base if former.compute is not None and base > 0 else None
        text = f"Revision {number} had answered for {former.seconds:.0f} s before the onset"
        said = [f"its calls computed {ratio:.1f} times as long as those of the one before"] if ratio is not None else []
        said += [f"{former.error:.1%} of its answers were errors"] if former.error is not None else []
        text += f": {', '.join(said)}." if said else "."
        notes.add(
            "revision", subject, "former", text, former_seconds=former.seconds, former_compute_ratio=ratio,
            former_error_share=former.error,
        )  # fmt: skip


def _labels(scene: Scene, notes: _Notes) -> None:
    """Of what runs or shall run: a digest that was convicted and rolled back explains nothing that came after it."""
    here = {r.digest for r in _present(scene)} | {v.digest for v in scene.service.spec.variants}
    for seen in [w for w in scene.wrong if w.digest in here]:
        named = [
            r for r in scene.revisions if r.spec is not None and seen.digest in {v.digest for v in r.spec.variants}
        ]
        if not named or not seen.total:
            continue
        number = named[-1].number
        text = (
            f"Of {seen.total} labelled answers of revision {number}, {seen.wrong} are wrong ({seen.ratio:.0%}); "
            f"{seen.tolerable:.0%} would be tolerable. The labels speak for {seen.verdict!r}."
        )
        notes.add(
            "revision", revision_subject(scene.service.key, number), "labels", text,
            wrong_answers=seen.verdict == "convicted", label_error_share=seen.ratio, labels=seen.total,
        )  # fmt: skip
        if seen.verdict == "convicted":
            text = "Labels convict what runs" + (", which they had cleared before." if seen.cleared else ".")
            notes.add(
                "service", scene.service.key, READING, text, convicted_answers=True,
                cleared_answers=seen.cleared or None,
            )  # fmt: skip


def _tested(scene: Scene, notes: _Notes) -> None:
    """What failed in the newest model tests, by revision and by replica."""
    by_digest: dict[str, list[Round]] = {}
    for found in scene.tested:
        by_digest.setdefault(found.digest, []).append(found)
    for digest, rounds in by_digest.items():
        common = set.intersection(*({t.test for t in r.fails} for r in rounds))
        revision = next((r for r in reversed(scene.revisions) if r.spec and _runs(r.spec, digest)), None)
        for number, found in enumerate(rounds):
            for test in found.fails:
                said = f"Model test {test.test} fails on {test.failed} of {test.asked} examples at"
                if test.test in common and number == 0 and revision is not None:
                    who = f"all {len(rounds)} replicas of revision {revision.number} that were tested"
                    notes.add(
                        "revision", revision_subject(scene.service.key, revision.number), "model_test",
                        f"{said} {who}: {test.text}.", found.at, test=test.test, fails_tests=test.wrong or None,
                        slow_in_tests=None if test.wrong else True, passed_tests=any(r.passed for r in rounds),
                    )  # fmt: skip
                if test.test not in common or (found.passed and len(rounds) == 1):
                    text = f"{said} replica {found.replica}: {test.text}."
                    notes.add(
                        "replica", found.replica, "model_test", text, found.at, test=test.test, gone=False,
                        fails_tests_alone=(test.wrong and test.test not in common) or None,
                        failed_tests_since=(test.wrong and found.passed) or None,
                    )  # fmt: skip


def _runs(spec: Spec, digest: str) -> bool:
    return any(v.digest == digest for v in spec.variants)


def _users(scene: Scene, notes: _Notes) -> None:
    key, before, after = scene.service.key, scene.before, scene.after
    if before.rate and after.rate is not None:
        ratio = after.rate / before.rate
        text = f"{after.rate:.1f} requests/s came since the onset, {before.rate:.1f} before: {ratio:.2f} times."
        notes.add("service", key, "traffic", text, traffic_ratio=ratio)
    if before.rate and (load := scene.load) is not None:
        notes.add("service", key, "load" if load.too_much else READING, load.text, **load.told(before.rate))
    if before.p50 and after.p50 is not None:
        ratio = after.p50 / before.p50
        past = (after.slow or 0.0) - (before.slow or 0.0)
        text = f"Users wait {_ms(after.p50)} in the median since the onset, {_ms(before.p50)} before."
        if after.slow:
            limit = _ms(scene.service.spec.slo.latency)
            text += f" {after.slow:.1%} of the answers take longer than the promised {limit}."
        slower = ratio >= 1.5 or past > 1.0 - scene.service.spec.slo.latency_objective
        notes.add("service", key, "latency", text, latency_ratio=ratio, slower=slower)
    if after.error:
        was = f", {before.error:.1%} before" if before.error is not None else ""
        text = f"{after.error:.1%} of the answers are errors since the onset{was}."
        excess = after.error - (before.error or 0.0)
        notes.add(
            "service", key, "error_ratio", text,
            user_error_share=after.error, user_error_excess=excess, failing=excess >= FAILING,
        )  # fmt: skip
    if scene.own_compute is not None and scene.own_compute[0] > 0:
        a, b = scene.own_compute[1], scene.own_compute[0]
        text = f"What ran before the onset computes {_ms(a)} a call since then, {_ms(b)} before."
        notes.add("service", key, "own_compute", text, own_compute_ratio=a / b)


def _marked(scene: Scene, found: Marked, notes: _Notes) -> None:
    """``refused_share``: of all requests, what refusing them would cost, where it is known how many fail."""
    refused = found.share * scene.after.error if scene.after.error is not None else None
    text = (
        f"{found.caught} of {found.failed} failed requests have {' or '.join(found.rules)}, "
        f"none of {found.answered} that were answered has."
    )
    notes.add(
        "service", scene.service.key, "marked", text, marked_share=found.share, rules=" ".join(found.rules),
        refused_share=refused,
    )  # fmt: skip


def _edge(scene: Scene, notes: _Notes) -> None:
    """What stood between users and the trouble: no rule uses it, whoever reads the incident wants to know."""
    key, said = scene.service.key, []
    if HELD in scene.edge:
        said.append(f"held up to {scene.edge[HELD]:.0f} requests at once until a replica was ready")
    if STALE in scene.edge:
        said.append(f"gave up to {scene.edge[STALE]:.1f} old answers a second, marked as such")
    if REFUSED in scene.edge:
        said.append(f"refused up to {scene.edge[REFUSED]:.1f} requests a second that nobody could take in time")
    if said:
        notes.add("service", key, "edge", f"The edge {', and '.join(said)}.", **scene.edge)
    if scene.gateway:
        notes.add("service", key, "gateway", f"The gateway's newest configuration is not in force: {scene.gateway}.")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
