"""Random histories against a plain model in memory: nothing is lost, nothing is invented, reopening changes nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from leptonai.errors import Conflict, NotFound
from leptonai.store import Store
from leptonai.store.store import compact
from leptonai.testing.postgres import PostgresServer
from leptonai.types import Dial, DialChange, Proposal, Revision, Scale, Spec, Variant, effective_dials

KEYS = ("digits", "team/digits")
NOW = 50.0
DIALS = st.builds(
    lambda path, value, expires: Dial(path=path, value=value, owner="x", reason="", at=0.0, expires=expires),
    st.sampled_from(["main.replicas", "main.weight", "main.mirror", "main.epoch", "evict.r1", "evict.r2"]),
    st.integers(0, 5).map(float),
    st.none() | st.integers(0, 100).map(float),
)


def spec(key: str, timeout: int) -> Spec:
    workspace, _, name = key.rpartition("/")
    return Spec(
        name=name,
        workspace=workspace or "default",
        variants=(Variant(model="m"),),
        timeout=float(timeout + 1),
        scale=Scale(max=4),
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(DIALS, max_size=12))
def test_a_compacted_log_says_the_same_at_every_moment(log: list[Dial]) -> None:
    kept = compact(log)
    for now in range(-1, 102):
        assert effective_dials(spec("digits", 1), kept, now) == effective_dials(spec("digits", 1), log, now)
    assert compact(kept) == kept
    assert [d for d in log if any(d is k for k in kept)] == kept, "a part of the log, in its order"


class History(RuleBasedStateMachine):
    def place(self) -> str:
        return str(Path(self.folder.name) / "store.db")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.where = self.place()
        self.store = Store(self.where)
        self.history: dict[str, list[Revision]] = {key: [] for key in KEYS}
        self.log: dict[str, list[Dial]] = {key: [] for key in KEYS}
        self.proposals: dict[str, Proposal] = {}
        self.events = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def live(self, key: str) -> Revision | None:
        history = self.history[key]
        return history[-1] if history and history[-1].spec is not None else None

    @rule(key=st.sampled_from(KEYS), timeout=st.integers(0, 3), delete=st.booleans(), stale=st.integers(-2, 2))
    def revise(self, key: str, timeout: int, delete: bool, stale: int) -> None:
        head = self.live(key)
        base = head.number if head else 0
        wish = None if delete else spec(key, timeout)
        try:
            made = self.store.append_revision(key, wish, expected=base + stale, by="x", why="", at=1.0)
        except Conflict:
            assert stale, "only a change from another base conflicts"
        except NotFound:
            assert delete and head is None and not stale
        else:
            assert not stale
            assert made.number == len(self.history[key]) + 1
            self.history[key].append(made)
            if wish is None:
                self.log[key] = [d for d in self.log[key] if d.path.endswith(".epoch")]

    @rule(key=st.sampled_from(KEYS), data=st.data())
    def verify(self, key: str, data: st.DataObject) -> None:
        good = [i for i, r in enumerate(self.history[key]) if r.spec is not None]
        if good:
            i = data.draw(st.sampled_from(good))
            found = self.store.verify(key, i + 1, 7.0)
            self.history[key][i] = msgspec.structs.replace(self.history[key][i], verified=7.0)
            assert found == self.history[key][i]

    @rule(key=st.sampled_from(KEYS), dials=st.lists(DIALS, max_size=4))
    def turn(self, key: str, dials: list[Dial]) -> None:
        if self.live(key) is None:
            with pytest.raises(NotFound):
                self.store.append_dials(key, dials)
        else:
            self.store.append_dials(key, dials)
            self.log[key] += dials

    @rule(key=st.sampled_from(KEYS), gone=st.sets(st.sampled_from(["r1", "r2"])))
    def replicas_die(self, key: str, gone: set[str]) -> None:
        self.store.drop_evicts(key, gone)
        self.log[key] = [d for d in self.log[key] if d.path.removeprefix("evict.") not in gone]

    @rule(id=st.sampled_from("abc"), status=st.sampled_from(["pending", "admitted", "denied"]), fail=st.booleans())
    def propose(self, id: str, status: str, fail: bool) -> None:
        change = DialChange(service=KEYS[0], set={"main.weight": 1.0})
        proposal = Proposal(id=id, change=change, by="x", why="", at=1.0, expires=2.0, status=status)  # type: ignore[arg-type]
        try:
            with self.store.transaction():
                self.store.put_proposal(proposal)
                self.store.record("proposal", KEYS[0], {"id": id}, actor="x", at=1.0)
                if fail:
                    raise InterruptedError
        except InterruptedError:
            return
        self.proposals.pop(id, None)
        self.proposals[id] = proposal
        self.events += 1

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.where)

    @invariant()
    def the_store_says_what_happened(self) -> None:
        if not hasattr(self, "store"):
            return
        wishes = []
        for key in KEYS:
            assert self.store.revisions(key) == self.history[key]
            assert self.store.head(key) == self.live(key)
            assert self.store.dials(key) == compact(self.log[key])
            if (head := self.live(key)) and head.spec:
                service = self.store.service(key, NOW)
                assert service is not None
                assert service.dials == effective_dials(head.spec, self.log[key], NOW)
                wishes.append(service)
            ended = max((r.number for r in self.history[key] if r.spec is None), default=0)
            verified = [r for r in self.history[key] if r.verified is not None and r.number > ended]
            assert self.store.last_verified(key) == (verified[-1] if verified else None)
        assert self.store.services(NOW) == wishes
        assert self.store.proposals() == list(self.proposals.values())[::-1]
        assert [e.seq for e in self.store.events()] == list(range(1, self.events + 1))
        assert self.store.check_chain() is None


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_the_same_in_postgresql(postgres: PostgresServer) -> None:
    class Inside(History):
        def place(self) -> str:
            return postgres.schema()

    run_state_machine_as_test(Inside, settings=settings(max_examples=5, stateful_step_count=20, deadline=None))
