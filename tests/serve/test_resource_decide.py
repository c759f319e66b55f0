"""What is done about a custom resource and what it is told, for every way that it and others change a service."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from leptonai.admit import Door
from leptonai.client.wire import ServiceView
from leptonai.errors import LeptonError
from leptonai.serve.resource.decide import AGAIN, PENDING, Decision, Known, Refused, Word, decide, failed, rivals
from leptonai.serve.resource.form import ADOPT, FINALIZER, KEEP, Declared, read
from leptonai.serve.resource.status import HELD, patch, status
from leptonai.settings import Admit, Settings
from leptonai.store import Store
from leptonai.types import (
    Cause,
    DeleteChange,
    Dials,
    Incident,
    Replica,
    Revision,
    Service,
    Spec,
    SpecChange,
    Token,
    Variant,
    VariantDials,
)

Json = dict[str, Any]

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
BY = "gitops:models/digits@1"


def obj(model: str = A, generation: int = 1, **more: Any) -> Json:
    meta: Json = {
        "name": "digits", "namespace": "models", "uid": "u1", "generation": generation,
        "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FINALIZER],
    }  # fmt: skip
    meta |= more.pop("metadata", {})
    return {"metadata": meta, "spec": {"model": model} | more.pop("spec", {}), **more}


def said(model: str) -> Spec:
    return Spec(name="digits", variants=(Variant(model=model),))


def revision(number: int, model: str | None, by: str = BY, why: str = "") -> Revision:
    spec = None if model is None else said(model)
    return Revision(service="digits", number=number, by=by, why=why, at=float(number), spec=spec)


def word(model: str = A, history: tuple[Revision, ...] = (), **more: Any) -> Decision:
    known = {k: more.pop(k) for k in ("rival", "pending", "refused", "running") if k in more}
    return decide(read(obj(model, **more)), Known(history, **known), now=100.0)


ADOPTS = {"annotations": {ADOPT: "true"}}
GOING = {"deletionTimestamp": "2026-01-02T00:00:00Z"}
ADMITTED = {"status": {"admittedGeneration": 1, "service": "digits"}}
WAITED = {"status": {"admittedGeneration": 1, "observedGeneration": 2, "revision": 1, "service": "digits"}}
OTHER = "human:ana"
FIRST, SECOND = revision(1, A), revision(2, B, "gitops:models/digits@2")


@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        (word(spec={"slo": {"latencyy": 1}}), "Invalid", "Service/digits: slo.latencyy: unknown field"),
        (word("./model.onnx"), "Invalid", "is no digest"),
        (word(spec={"name": "No"}), "Invalid", "letter first"),
        (word(history=(FIRST,)), "Synced", "revision 1 runs as generation 1 says"),
        (word(history=(revision(1, A, OTHER),)), "Taken", "exists: revision 1 is of human:ana; annotate"),
        (word(history=(revision(1, A, OTHER),), metadata=ADOPTS), "Synced", "revision 1"),
        (word(history=(revision(1, A, "gitops:models/digits2@1"),)), "Taken", "gitops:models/digits2@1"),
        (word(rival="older"), "Taken", "Service/older declares digits already"),
        (
            word(B, (FIRST, SECOND, revision(3, A, "incident:7", "errors")), generation=2),
            "RolledBack",
            "revision 3 of incident:7 is in force instead: errors",
        ),
        (word(history=(FIRST, revision(2, C, OTHER, "by hand"))), "Overridden", "until this resource changes"),
        (word(history=(FIRST, revision(2, None, OTHER))), "Pending", ""),
        (word(history=(FIRST, revision(2, None, OTHER)), **ADMITTED), "Deleted", "human:ana deleted digits"),
        (word(spec={"name": "other"}, **ADMITTED), "Renamed", "cannot become other"),
        (word(refused=Refused(1, Word(False, "Denied", "frozen"), 101.0, 5.0)), "Denied", "frozen"),
        (word(B, (FIRST, revision(2, C, OTHER)), generation=2, **WAITED), "Overridden", "revision 2 of human:ana"),
        (word(B, (FIRST, revision(2, None, OTHER)), generation=2, **WAITED), "Deleted", "human:ana deleted digits"),
        (word(metadata=GOING, history=(FIRST,), running=2, **ADMITTED), "Deleting", "2 left"),
    ],
)
def test_the_word_says_who_is_right_and_why(found: Decision, reason: str, words: str) -> None:
    assert found.word.reason == reason and words in found.word.message
    assert found.word.ok == (reason == "Synced")


@pytest.mark.parametrize(
    ("found", "change", "finalizer"),
    [
        (word(metadata={"finalizers": []}), None, True),
        (word(), SpecChange(spec=said(A), base=0), None),
        (word(B, (FIRST,), generation=2), SpecChange(spec=said(B), base=1), None),
        (word(history=(revision(4, B, OTHER),), metadata=ADOPTS), SpecChange(spec=said(A), base=4), None),
        (word(history=(FIRST, revision(2, C, OTHER))), None, None),
        (word(B, history=(FIRST, SECOND, revision(3, A, "rollout")), generation=2), None, None),
        (word(B, history=(FIRST, SECOND, revision(3, A, "rollout")), generation=3), SpecChange(spec=said(B), base=3),
         None),
        (word(B, (FIRST,), generation=2, **WAITED), SpecChange(spec=said(B), base=1), None),
        (word(B, (FIRST, revision(2, C, OTHER)), generation=3, **WAITED), SpecChange(spec=said(B), base=2), None),
        (word(history=(), **ADMITTED), SpecChange(spec=said(A), base=0), None),  # a store that was lost
        (word(refused=Refused(1, Word(False, "Denied", ""), 99.0, 5.0)), SpecChange(spec=said(A), base=0), None),
        (word(refused=Refused(0, Word(False, "Denied", ""), 101.0, 5.0)), SpecChange(spec=said(A), base=0), None),
        (word(metadata=GOING, history=(FIRST,)), DeleteChange(service="digits", base=1), None),
        (word(metadata=GOING, history=(FIRST, revision(2, C, OTHER))), DeleteChange(service="digits", base=2), None),
        (word(metadata=GOING, history=(FIRST, revision(2, None)), running=1, **ADMITTED), None, None),
        (word(metadata=GOING, history=(FIRST, revision(2, None)), **ADMITTED), None, False),
        (word(metadata=GOING, history=(revision(1, A, OTHER),), running=3), None, False),
        (word(metadata=GOING | ADOPTS, history=(revision(1, A, OTHER),), running=3), None, False),
        (word(metadata=GOING | ADOPTS, history=(revision(1, A, OTHER),), **ADMITTED),
         DeleteChange(service="digits", base=1), None),
        (word(metadata=GOING | {"finalizers": []}, history=(FIRST,)), None, None),
        (word(metadata=GOING | {"annotations": {KEEP: "true"}}, history=(FIRST,), running=2, **ADMITTED), None, False),
        (word(metadata=GOING, history=(FIRST,), rival="older"), None, False),
    ],
)  # fmt: skip
def test_one_step_at_a_time(found: Decision, change: Any, finalizer: bool | None) -> None:
    assert found.change == change and found.finalizer == finalizer


def test_what_is_refused_is_tried_later_each_time_and_a_new_generation_at_once() -> None:
    one, pauses, refused = read(obj()), [], None
    for _ in range(9):
        refused = failed(one, refused, "Denied", "no", 100.0)
        pauses.append(refused.again - 100.0)
    assert pauses == sorted(pauses) and pauses[0] == AGAIN[0] and pauses[-1] == AGAIN[1]
    fresh = failed(one._replace(generation=2), refused, "Denied", "no", 100.0)
    assert fresh.again - 100.0 == AGAIN[0]


def test_who_was_admitted_first_has_the_service_then_the_older() -> None:
    base = read(obj())
    young = base._replace(uid="u2", name="young", made="2026-02-01T00:00:00Z", spec=said(A))
    assert rivals([young, base]) == {"u2": "digits"}
    taken = young._replace(status={"admittedGeneration": 1, "service": "digits"})
    assert rivals([base, taken]) == {"u1": "young"}
    assert rivals([base, young._replace(spec=replace(said(A), name="young"))]) == {}


# --- what is told ----------------------------------------------------------------------------------------------------


def view(ready: int, wanted: int, *replicas: Replica) -> ServiceView:
    service = Service(spec=said(A), dials=Dials(variants={"main": VariantDials(replicas=wanted)}), revision=3)
    return ServiceView(
        service=service, replicas=replicas, ready=ready, wanted=wanted, status="", url="http://gateway/services/digits"
    )


def replica(state: Any, reason: str = "", detail: str = "") -> Replica:
    made = Replica(id="digits-1", service="digits", variant="main", digest="d", epoch=0, state=state, since=0.0)
    return replace(made, reason=reason, detail=detail)


SYNCED = Word(True, "Synced", "revision 3 runs as generation 1 says")
HUNG = Incident(
    id=7, subject="default/service/digits", severity="critical", title="digits answers nothing", began=50.0,
    opened=51.0, causes=(Cause(name="hung_replica", subject="digits", confidence=0.9),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "word", "incident", "state", "reason", "ready"),
    [
        (view(2, 2), SYNCED, None, "Ready", None, True),
        (view(0, 0), SYNCED, None, "Asleep", "ScaledToZero", True),
        (view(1, 2), SYNCED, None, "Starting", "Starting", False),
        (view(0, 1, replica("starting", "unschedulable", "no cpu")), SYNCED, None, "Starting", "Unschedulable", False),
        (view(0, 1, replica("failed", "image_missing", "no such")), SYNCED, None, "Failed", "ImageMissing", False),
        (view(1, 2, replica("failed", "oom"), replica("ready")), SYNCED, None, "Degraded", "Oom", False),
        (view(0, 1, replica("failed", "oom")), SYNCED, HUNG, "Failed", "HungReplica", False),
        (view(0, 1, replica("failed", "oom")), SYNCED, replace(HUNG, causes=()), "Failed", "Oom", False),
        (view(1, 1), SYNCED, replace(HUNG, causes=()), "Ready", "Unknown", True),
        (view(2, 2), SYNCED, HUNG, "Ready", "HungReplica", True),
        (view(2, 2), Word(False, "RolledBack", "by incident:7"), HUNG, "Ready", "RolledBack", True),
        (None, Word(False, "Invalid", "unknown field"), None, "Refused", "Invalid", False),
        (None, Word(False, "ApprovalNeeded", "p-1"), None, "Waiting", "ApprovalNeeded", False),
        (None, Word(False, "Deleted", "human:ana"), None, "Deleted", "Deleted", False),
    ],
)
def test_a_status_says_state_and_reason(
    seen: ServiceView | None, word: Word, incident: Incident | None, state: str, reason: str | None, ready: bool
) -> None:
    made = status(read(obj()), word, seen, incident, 100.0)
    assert (made["state"], made.get("reason")) == (state, reason)
    conditions = {c["type"]: c["status"] for c in made["conditions"]}
    assert conditions == {"Synced": str(word.ok), "Ready": str(ready)}
    assert made.get("incident", {}).get("id") == (incident.id if incident else None)
    assert made.get("admittedGeneration") == (1 if word.ok or word.reason in HELD else None)
    if seen:
        assert made["ready"] == f"{seen.ready}/{seen.wanted}" and made["revision"] == 3


def test_a_cause_is_told_with_what_the_cluster_says_of_the_replica_that_is_missing() -> None:
    made = status(read(obj()), SYNCED, view(0, 1, replica("failed", "image_missing", "no such")), HUNG, 100.0)
    assert made["message"] == "digits answers nothing; 0 of 1 replicas are ready; digits-1: no such"
    assert status(read(obj()), SYNCED, view(2, 2), HUNG, 100.0)["message"] == "digits answers nothing"


def test_a_status_is_written_once_and_keeps_the_time_of_each_change() -> None:
    first = status(read(obj()), SYNCED, view(1, 2), HUNG, 100.0)
    again = read(obj(status=first))
    assert status(again, SYNCED, view(1, 2), HUNG, 200.0) == first, "nothing new, nothing to write"
    later = status(again, SYNCED, view(2, 2), None, 200.0)
    since = {c["type"]: c["lastTransitionTime"] for c in later["conditions"]}
    assert since == {"Synced": "1970-01-01T00:01:40Z", "Ready": "1970-01-01T00:03:20Z"}
    told = patch(first, later)["status"]
    assert told["incident"] is None and told["reason"] is None and told["ready"] == "2/2"
    assert {k: v for k, v in told.items() if v is not None} == later


def test_a_revision_that_is_held_counts_as_admitted_and_keeps_its_service() -> None:
    held = status(read(obj()), Word(False, "RolledBack", ""), view(2, 2), None, 100.0)
    assert (held["admittedGeneration"], held["service"]) == (1, "digits")
    refused = read(obj(generation=2, status=held))
    after = status(refused, Word(False, "Invalid", ""), view(2, 2), None, 100.0)
    assert (after["admittedGeneration"], after["observedGeneration"], after["state"]) == (1, 2, "Ready")


# --- any history, with the real door ---------------------------------------------------------------------------------


class World:
    """A cluster with one resource, the door and the store, and everybody who may change the service."""

    def __init__(self, folder: str) -> None:
        self.now = 1000.0
        self.store = Store(Path(folder) / "store.db")
        self.frozen = ""
        self.door = Door(
            self.store, Settings(admit=Admit(pace_count=10_000, cooldown=0.0)), clock=lambda: self.now,
            frozen=lambda: self.frozen,
        )  # fmt: skip
        self.obj: Json | None = None
        self.refused: Refused | None = None
        self.generation = self.uid = 0
        self.spoke: tuple[str, str | None] = ("nobody", None)  # who changed the wish last, and to which model

    def close(self) -> None:
        self.store.close()

    def propose(self, change: Any, by: str | None) -> str:
        name = "ana" if by is None else "ops"
        token = Token(name=name, role="admin" if by is None else "operator", secret_sha256="", created=0.0)
        return self.door.propose(change, token, "why", by=by).status

    def model(self) -> str | None:
        head = self.store.head("digits")
        return head.spec.variants[0].model if head and head.spec else None

    # what people and machines do

    def apply(self, model: str) -> None:
        """kubectl apply."""
        if self.obj is None:
            self.uid, self.generation = self.uid + 1, 1
            self.obj = obj(model, metadata={"uid": f"u{self.uid}", "finalizers": []})
            self.spoke = ("resource", model)
        elif not self.obj["metadata"].get("deletionTimestamp") and self.obj["spec"]["model"] != model:
            self.obj["spec"]["model"] = model
            self.obj["metadata"]["generation"] += 1
            self.spoke = ("resource", model)

    def delete(self) -> None:
        if self.obj is not None and not self.obj["metadata"].get("deletionTimestamp"):
            self.obj["metadata"] |= GOING
            self.obj["metadata"]["generation"] += 1
            self.spoke = ("resource", None)

    def others(self, by: str | None, model: str | None) -> None:
        head = self.store.head("digits")
        if head is None or model == self.model():
            return
        change = DeleteChange(service="digits", base=head.number) if model is None else SpecChange(
            spec=said(model), base=head.number
        )  # fmt: skip
        ends = self.obj is not None and "deletionTimestamp" in self.obj["metadata"] and self.owned()
        if self.propose(change, by) == "admitted" and not ends:
            self.spoke = (by or "human", model)

    def owned(self) -> bool:
        """Whether the service, as it lives now, was ever the resource's: it ends with it then."""
        history = self.store.revisions("digits")
        ended = max((r.number for r in history if r.spec is None), default=0)
        return any(r.by.startswith("gitops:") for r in history if r.number > ended)

    def freeze(self, on: bool) -> None:
        self.frozen = "human:ana: wait" if on else ""

    def restart(self) -> None:
        self.refused = None

    def lose_status(self) -> None:
        if self.obj is not None:
            self.obj.pop("status", None)

    # what we do

    def step(self) -> bool:
        """One look, and a word about it; whether anything was done."""
        if self.obj is None:
            return False
        self.now += 1.0
        one = read(copy.deepcopy(self.obj))
        found = decide(one, Known(self.store.revisions("digits"), refused=self.refused), self.now)
        if found.finalizer is not None:
            self.obj["metadata"]["finalizers"] = [FINALIZER] if found.finalizer else []
            if not found.finalizer:
                self.obj = None
            return True
        word = found.word
        if found.change is not None:
            try:
                outcome = self.propose(found.change, one.by)
            except LeptonError as e:
                outcome = e.message
            if outcome != "admitted":
                self.refused = failed(one, self.refused, "Denied", outcome, self.now)
                word = self.refused.word
        elif word.ok:
            self.refused = None
        if word.reason != PENDING.reason:
            self.tell(one, word)
        return found.change is not None or word.reason == PENDING.reason

    def tell(self, one: Declared, word: Word) -> None:
        assert self.obj is not None
        head, seen = self.store.head("digits"), None
        if head is not None and head.spec is not None and (word.ok or word.reason in HELD or one.admitted):
            seen = view(1, 1)
            seen = replace(seen, service=replace(seen.service, revision=head.number))
        self.obj["status"] = status(one, word, seen, None, self.now)

    def settle(self) -> None:
        for _ in range(12):
            if not self.step():
                return
        raise AssertionError("it never comes to rest: a hot loop")


MODELS = st.sampled_from([A, B, C])
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), MODELS),
        st.tuples(st.just("apply"), MODELS),
        st.tuples(st.just("delete")),
        st.tuples(st.just("others"), st.sampled_from([None, "incident:7", "rollout"]), MODELS),
        st.tuples(st.just("others"), st.none(), st.none()),
        st.tuples(st.just("freeze"), st.booleans()),
        st.tuples(st.just("restart")),
        st.tuples(st.just("step")),
    ),
    max_size=14,
)
few = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@few
@given(ACTS, st.booleans())
def test_the_newest_word_counts_whatever_happened_before(acts: list[tuple[Any, ...]], forgets: bool) -> None:
    """Who changed the wish last has it: the resource once per generation, though the door would not have it at first;
    others until it changes again, or is deleted. No look ever proposes what was settled, nobody's service is deleted
    but the resource's own, and each generation is admitted once."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        try:
            for name, *arguments in acts:
                getattr(world, name)(*arguments)
                world.settle()  # we look whenever something changes
                if forgets and not world.refused:
                    world.lose_status()
                    world.settle()
            world.freeze(False)
            world.now += 2 * AGAIN[1]
            world.settle()
            by, model = world.spoke
            deleted_by_hand = by == "human" and model is None
            if not (deleted_by_hand and forgets):  # with the status lost, nothing says that it was admitted before
                assert world.model() == model, world.spoke
            made = [r.by for r in world.store.revisions("digits") if r.by.startswith("gitops:") and r.spec]
            ended = [r.number for r in world.store.revisions("digits") if r.spec is None]
            assert len(made) == len(set(made)) or ended, "one revision for each generation of a life"
            numbers = len(world.store.revisions("digits"))
            for _ in range(5):
                world.now += 10.0
                assert not world.step()
            assert len(world.store.revisions("digits")) == numbers
        finally:
            world.close()
