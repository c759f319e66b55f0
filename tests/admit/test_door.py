"""The door: judged and recorded in one transaction; approval binds to a change; automation never outruns its limits."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace

from leptonai.admit import Door, bootstrap, issue
from leptonai.errors import Conflict, Denied, LeptonError, NotFound, SpecError
from leptonai.settings import Admit, Settings
from leptonai.store import Artifacts, Store
from leptonai.store.copy import tables
from leptonai.types import DeleteChange, DialChange, Proposal, Revision, Role, Scale, Spec, SpecChange, Token, Variant

SPEC = Spec(name="digits", variants=(Variant(model="sha256:" + "a" * 64),), scale=Scale(max=9))
SCALE = DialChange(service="digits", set={"main.replicas": 3})


def token(name: str = "ana", role: Role = "operator") -> Token:
    return issue(name, role, now=0.0)[1]


ANA, ROOT, OPS = token(), token("root", "admin"), token("ops")


def dump(store: Store) -> dict[str, object]:
    return {table: store._rows(f"SELECT * FROM {table}") for table in tables()}


class House:
    """A store, a clock that stands still, and the names that the reconcile loop was woken with."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.now = 1000.0
        self.woken: list[str] = []

    def door(self, artifacts: Artifacts | None = None, **rules: Any) -> Door:
        return Door(
            self.store,
            Settings(admit=Admit(**rules)),
            clock=lambda: self.now,
            on_change=self.woken.append,
            artifacts=artifacts,
        )

    def kinds(self) -> list[str]:
        return [e.kind for e in self.store.events()]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "store.db")
    yield made
    made.store.close()


def spec(timeout: float) -> Spec:
    return msgspec.structs.replace(SPEC, timeout=timeout)


def test_an_admitted_change_is_a_revision_a_proposal_an_event_and_a_wake_up(house: House) -> None:
    made = house.door().propose(SpecChange(spec=SPEC, base=0), ANA, "first")
    assert (made.status, made.by, made.reasons) == ("admitted", "human:ana", ("digits: created",))
    head = house.store.head("digits")
    assert head is not None and (head.number, head.spec, head.by, head.why) == (1, SPEC, "human:ana", "first")
    assert house.store.proposal(made.id) == made
    (event,) = house.store.events()
    assert (event.kind, event.subject, event.actor) == ("proposal.admitted", "digits", "human:ana")
    assert event.detail["hash"] == made.hash and event.detail["revision"] == 1
    assert house.woken == ["digits"]


def test_dials_are_set_with_owner_reason_and_expiry_and_make_no_revision(house: House) -> None:
    door = house.door()
    door.propose(SpecChange(spec=SPEC, base=0), ANA, "")
    dials = DialChange(service="digits", set={"main.replicas": 3, "main.epoch": 1, "evict.r1": 1}, ttl=60.0)
    made = door.propose(dials, OPS, "leak", by="incident:42")
    assert made.by == "incident:42"
    log = {d.path: d for d in house.store.dials("digits")}
    assert {(d.owner, d.reason, d.at) for d in log.values()} == {("incident:42", "leak", 1000.0)}
    assert (log["main.replicas"].expires, log["main.epoch"].expires) == (1060.0, None)
    assert len(house.store.revisions("digits")) == 1
    event = house.store.events(newest=True, limit=1)[0]
    assert event.detail["set"] == dials.set and event.detail["token"] == "ops"
    assert {"recent", "pace_count", "pace_seconds", "cooldown", "frozen"} <= event.detail.keys()


def test_one_dial_of_a_change_may_end_before_the_others(house: House) -> None:
    door = house.door()
    door.propose(SpecChange(spec=SPEC, base=0), ANA, "")
    both = DialChange(service="digits", set={"main.replicas": 3, "shed": 0.5}, ttl=60.0, sooner={"shed": 20.0})
    made = door.propose(both, OPS, "a surge", by="incident:42")
    assert made.reasons == ("main.replicas: 1 → 3 for 60 s", "shed: 0 → 0.5 for 20 s")
    assert {d.path: d.expires for d in house.store.dials("digits")} == {"main.replicas": 1060.0, "shed": 1020.0}
    assert house.store.events(newest=True, limit=1)[0].detail["sooner"] == {"shed": 20.0}


def test_a_denied_proposal_is_recorded_and_changes_nothing(house: House) -> None:
    made = house.door().propose(SpecChange(spec=SPEC, base=0), token(role="viewer"), "")
    assert made.status == "denied"
    assert house.store.proposal(made.id) == made
    assert (house.kinds(), house.store.heads(), house.woken) == (["proposal.denied"], [], [])


def test_a_dry_run_says_what_would_happen_and_records_nothing(house: House) -> None:
    door = house.door(approval=("delete",))
    door.propose(SpecChange(spec=SPEC, base=0), ANA, "")
    house.woken.clear()
    before = dump(house.store)
    tried = door.propose(SpecChange(spec=spec(5.0), base=1), ANA, "", dry_run=True)
    assert (tried.status, tried.reasons, tried.dry_run) == ("admitted", ("timeout: 30.0 → 5.0",), True)
    assert door.propose(DeleteChange(service="digits", base=1), ANA, "", dry_run=True).status == "pending"
    with pytest.raises(Conflict):
        door.propose(SpecChange(spec=SPEC, base=9), ANA, "", dry_run=True)
    assert dump(house.store) == before
    assert house.woken == []


def test_a_structural_error_is_raised_and_leaves_nothing(house: House, tmp_path: Path) -> None:
    door = house.door(artifacts=Artifacts(tmp_path / "artifacts"))
    with pytest.raises(NotFound, match="no artifact sha256:aaaa"):
        door.propose(SpecChange(spec=SPEC, base=0), ANA, "")
    with pytest.raises(NotFound, match="no service"):
        door.propose(SCALE, ANA, "")
    with pytest.raises(SpecError, match="expires_in is 0"):
        door.propose(SCALE, ANA, "", expires_in=0.0)
    assert (house.store.proposals(), house.store.events(), house.woken) == ([], [], [])


def test_what_the_platform_cannot_have_is_refused_and_leaves_nothing(house: House) -> None:
    def fits(spec: Spec) -> None:
        if spec.name == "digits":
            raise SpecError("name: taken", hint="another one")

    door = Door(house.store, Settings(), clock=lambda: house.now, fits=fits)
    for dry_run in (False, True):
        with pytest.raises(SpecError, match="name: taken"):
            door.propose(SpecChange(spec=SPEC, base=0), ANA, "", dry_run=dry_run)
    past = Revision(service="digits", number=1, spec=SPEC, by="human:ana", why="", at=1.0)
    with pytest.raises(SpecError, match="name: taken"):
        door.adopt("digits", [past], {}, ROOT)
    assert (house.store.proposals(), house.store.events()) == ([], [])
    assert door.propose(SpecChange(spec=replace(SPEC, name="other"), base=0), ANA, "").status == "admitted"


def test_a_change_that_changes_nothing_makes_no_revision(house: House) -> None:
    door = house.door()
    for base in (0, 1):
        made = door.propose(SpecChange(spec=SPEC, base=base), ANA, "")
    assert (made.status, made.reasons) == ("admitted", ())
    assert len(house.store.revisions("digits")) == 1


@pytest.mark.parametrize(
    ("actor", "by", "found"),
    [
        (ANA, None, "human:ana"),
        (ANA, "human:ana", "human:ana"),
        (OPS, None, "ops"),
        (OPS, "incident:1", "incident:1"),
        (OPS, "scaler", "scaler"),
        (ANA, "incident:1", None),
        (ROOT, "scaler", None),
        (ANA, "human:root", None),
        (OPS, "human:ops", None),
        (OPS, "human:ana", None),
        (ANA, "", None),
    ],
)
def test_nobody_speaks_as_another_person(house: House, actor: Token, by: str | None, found: str | None) -> None:
    change = SpecChange(spec=SPEC, base=0)
    if found is None:
        with pytest.raises(Denied, match="may not propose as"):
            house.door().propose(change, actor, "", by=by)
        assert house.store.events() == []
    else:
        assert house.door().propose(change, actor, "", by=by).by == found


@pytest.mark.parametrize("wrong", [{"options": {"x": object()}}, {"batching": None}])
def test_a_change_that_cannot_be_stored_is_a_spec_error(house: House, wrong: dict[str, Any]) -> None:
    bad = msgspec.structs.replace(SPEC, variants=(msgspec.structs.replace(SPEC.variants[0], **wrong),))
    with pytest.raises(SpecError, match="cannot be stored"):
        house.door().propose(SpecChange(spec=bad, base=0), ANA, "")
    assert house.store.events() == []


# --- approval ------------------------------------------------------------------------------------------------------


def _hash(dials: dict[str, float]) -> str:
    change = DialChange(service="digits", set=dials)
    return Proposal(id="x", change=change, by="x", why="", at=0.0, expires=0.0).hash


def test_a_pending_change_waits_and_is_admitted_once_by_an_admin_naming_its_hash(house: House) -> None:
    door = house.door(approval=("scale",), cooldown=10.0)
    door.propose(SpecChange(spec=SPEC, base=0), ANA, "")
    made = door.propose(SCALE, OPS, "load", by="incident:2")
    assert made.status == "pending" and made.reasons[-1] == "main.replicas: 1 → 3"
    assert house.store.dials("digits") == []
    refusals = [
        (made.id, made.hash, ANA, "is a operator; this needs admin"),
        (made.id, made.hash, token("ops", "admin"), "only a person approves"),
        (made.id, _hash({"main.replicas": 9}), ROOT, "the approval is for change"),
        (made.id, "", ROOT, "the approval is for change"),
        (made.id, "é", ROOT, "the approval is for change"),
    ]
    for id, hash, actor, said in refusals:
        with pytest.raises(Denied, match=said):
            door.approve(id, hash, actor)
        assert house.store.proposal(made.id) == made, "it still waits"
    house.now += 100.0
    approved = door.approve(made.id, made.hash, ROOT)
    assert (approved.status, approved.approved_by, approved.by) == ("admitted", "human:root", "incident:2")
    (dial,) = house.store.dials("digits")
    assert (dial.value, dial.owner, dial.at) == (3.0, "incident:2", 1100.0)
    assert house.kinds()[1:] == ["proposal.pending", "proposal.admitted"]
    assert house.woken == ["digits", "digits"]
    with pytest.raises(Denied, match="is already admitted"):
        door.approve(made.id, made.hash, ROOT)
    with pytest.raises(NotFound, match="no proposal 'p-x'"):
        door.approve("p-x", made.hash, ROOT)


def test_an_approval_in_a_changed_world_is_judged_again(house: House) -> None:
    door = house.door(approval=("delete",))
    door.propose(SpecChange(spec=SPEC, base=0), ANA, "")
    made = door.propose(DeleteChange(service="digits", base=1), ANA, "")
    door.propose(SpecChange(spec=spec(5.0), base=1), ANA, "")
    with pytest.raises(Conflict, match="from revision 1, but the head is 2"):
        door.approve(made.id, made.hash, ROOT)
    assert house.store.proposal(made.id).status == "denied"
    assert house.store.head("digits") is not None


def test_a_late_approval_is_denied_and_silence_is_never_consent(house: House) -> None:
    door = house.door(approval=("spec",))
    late = door.propose(SpecChange(spec=SPEC, base=0), ANA, "", expires_in=10.0)
    lost = door.propose(SpecChange(spec=SPEC, base=0), ANA, "", expires_in=20.0)
    assert door.expire() == []
    house.now += 10.0
    with pytest.raises(Denied, match="can no longer be approved"):
        door.approve(late.id, late.hash, ROOT)
    assert house.store.proposal(late.id).status == "expired"
    house.now += 10.0
    assert [p.id for p in door.expire()] == [lost.id]
    assert door.expire() == []
    assert house.store.heads() == []
    with pytest.raises(Denied, match="is already expired"):
        door.approve(lost.id, lost.hash, ROOT)


# --- undo, tokens --------------------------------------------------------------------------------------------------


def test_undo_proposes_what_was_before(house: House) -> None:
    door = house.door()
    for missing in ("digits", "team/x"):
        with pytest.raises(NotFound, match="no service"):
            door.undo(missing, ANA)
    door.propose(SpecChange(spec=spec(1.0), base=0), ANA, "")
    with pytest.raises(NotFound, match="nothing before revision 1"):
        door.undo("digits", ANA)
    door.propose(SpecChange(spec=spec(2.0), base=1), ANA, "")
    assert door.undo("digits", token(role="viewer")).status == "denied"
    made = door.undo("digits", ANA, "it was slow")
    assert (made.status, made.why) == ("admitted", "undo of revision 2: back to 1. it was slow")
    wish = house.store.service("digits", house.now)
    assert wish is not None and (wish.revision, wish.spec.timeout) == (3, 1.0)
    assert door.undo("digits", ANA).why == "undo of revision 3: back to 2", "an undo is a change too"
    door.propose(DeleteChange(service="digits", base=4), ANA, "")
    assert door.undo("digits", ANA).reasons == ("digits: created",)
    head = house.store.head("digits")
    assert head is not None and (head.number, head.spec) == (6, spec(2.0))


def test_undo_takes_back_the_newest_change_of_a_person_whichever_half_it_was(house: House) -> None:
    door = house.door(cooldown=0.0)

    def replicas() -> int:
        wish = house.store.service("digits", house.now)
        assert wish is not None
        return wish.dials.variants["main"].replicas

    door.propose(SpecChange(spec=spec(1.0), base=0), ANA, "")
    door.propose(SpecChange(spec=spec(2.0), base=1), ANA, "")
    door.propose(SCALE, ANA, "")
    door.propose(SCALE, ANA, "again: changes nothing")
    door.propose(DialChange(service="digits", set={"main.epoch": 1, "evict.r1": 1}), ANA, "nothing to take back")
    door.propose(DialChange(service="digits", set={"main.weight": 2.0}), OPS, "", by="incident:1")
    assert replicas() == 3
    made = door.undo("digits", ANA)
    assert (made.status, made.why) == ("admitted", "undo of main.replicas 3: back to 1")
    assert made.reasons == ("main.replicas: 3 → 1",)
    assert replicas() == 1
    assert door.undo("digits", ANA).why == "undo of main.replicas 1: back to 3"
    assert replicas() == 3
    wish = house.store.service("digits", house.now)
    assert wish is not None and (wish.revision, wish.dials.variants["main"].weight) == (2, 2.0), "the rest stays"


def test_what_a_custom_resource_says_is_undone_like_a_persons_word_and_delays_nobody(house: House) -> None:
    door = house.door(pace_count=1)
    door.propose(SpecChange(spec=spec(1.0), base=0), ANA, "")
    made = door.propose(SpecChange(spec=spec(2.0), base=1), OPS, "generation 7", by="gitops:models/digits@7")
    assert (made.status, made.by) == ("admitted", "gitops:models/digits@7")
    assert door.world("digits", house.now).recent == ()
    remedy = DialChange(service="digits", set={"main.epoch": 1})
    assert door.propose(remedy, OPS, "", by="incident:1").status == "admitted"
    assert door.undo("digits", ANA).why == "undo of revision 2: back to 1"
    with pytest.raises(Denied, match="may not propose as"):
        door.propose(SCALE, ANA, "", by="gitops:models/digits@7")


def test_undo_never_takes_back_what_somebody_else_did_since(house: House) -> None:
    door = house.door(cooldown=0.0)
    door.propose(SpecChange(spec=spec(1.0), base=0), ANA, "")
    door.propose(SpecChange(spec=spec(2.0), base=1), ANA, "")
    door.propose(SpecChange(spec=spec(1.0), base=2), OPS, "slow", by="incident:1")
    with pytest.raises(Conflict, match="revision 2 is not in force any more; incident:1 made revision 3: slow"):
        door.undo("digits", ANA)
    door.propose(SCALE, ANA, "")
    door.propose(DialChange(service="digits", set={"main.replicas": 5}), OPS, "load", by="incident:2")
    with pytest.raises(Conflict, match="set to 3 and is 5 by now: incident:2"):
        door.undo("digits", ANA)
    door.propose(DialChange(service="digits", set={"main.weight": 4}, ttl=9.0), ANA, "")
    house.now += 10.0
    with pytest.raises(Conflict, match="set to 4 and is 1 by now: it ran out"):
        door.undo("digits", ANA)
    door.propose(SpecChange(spec=msgspec.structs.replace(SPEC, name="auto"), base=0), OPS, "", by="incident:2")
    with pytest.raises(NotFound, match="no change of a person to take back"):
        door.undo("auto", ANA)


def test_tokens_are_random_hashed_and_named(house: House) -> None:
    secret = bootstrap(house.store, 0.0)
    found = house.store.token_by_secret(secret, 1.0)
    assert found is not None and (found.name, found.role, found.workspaces) == ("admin", "admin", ("*",))
    again = bootstrap(house.store, 0.0)
    assert house.store.token_by_secret(secret, 1.0) is None, "a new one replaces it"
    assert house.store.token_by_secret(again, 1.0) is not None
    assert len({issue("x", "viewer", now=0.0)[0] for _ in range(20)}) == 20
    assert len(secret) >= 43, "256 bits"
    assert house.kinds() == ["token.issued"] * 2
    for name in ("", "a b", "human:ana", "x" * 64, "../x"):
        with pytest.raises(SpecError, match="token name"):
            issue(name, "viewer", now=0.0)
    with pytest.raises(SpecError, match="ttl of token"):
        issue("x", "viewer", ttl=0.0, now=0.0)


# --- random histories ----------------------------------------------------------------------------------------------

ACTS = st.tuples(
    st.floats(0.0, 4.0),  # seconds since the act before
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["human:ana", "incident:1", "incident:2"]),
    st.integers(0, 3),
)


@hypothesis_settings(max_examples=25, deadline=None)
@given(acts=st.lists(ACTS, max_size=30))
def test_automation_never_outruns_pace_and_cool_down(tmp_path_factory: pytest.TempPathFactory, acts: Any) -> None:
    house = House(tmp_path_factory.mktemp("pace") / "store.db")
    with house.store:
        door = house.door(pace_count=3, pace_seconds=10.0, cooldown=5.0)
        for name in "abc":
            door.propose(SpecChange(spec=msgspec.structs.replace(SPEC, name=name), base=0), ANA, "")
        said, times = [], []
        for wait, name, by, value in acts:
            house.now += wait
            change = DialChange(service=name, set={"main.weight": float(value)})
            made = door.propose(change, ANA if by == "human:ana" else OPS, "", by=by)
            said.append(made)
            if by != "human:ana" and made.status == "admitted":
                assert all(house.now - t >= 5.0 for t, n in times if n == name), "cool-down of one service"
                times.append((house.now, name))
                assert sum(house.now - t < 10.0 for t, _ in times) <= 3, "pace over all services"
            assert by != "human:ana" or made.status == "admitted"
            last = next((d.value for d in house.store.dials(name) if d.path == "main.weight"), None)
            good = [p for p in said if p.service == name and p.status == "admitted"]
            assert last == (good[-1].change.set["main.weight"] if good else None)  # type: ignore[union-attr]
        assert house.kinds() == ["proposal.admitted"] * 3 + [f"proposal.{p.status}" for p in said]
        assert house.store.check_chain() is None


def test_a_full_disk_admits_nothing_by_half(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("NOT TESTED: a full disk needs root and mount -t tmpfs")
    try:
        house = House(folder / "store.db")
        with house.store:
            door = house.door()
            number = 0
            with pytest.raises(LeptonError) as failed:
                while True:
                    door.propose(SpecChange(spec=spec(10.0 + number), base=number), ANA, "w" * 5000)
                    number += 1
            assert failed.value.code == "disk_full"
            assert number > 0
            assert len(house.store.revisions("digits")) == len(house.store.events()) == len(house.woken) == number
            assert len(house.store.proposals(limit=1000)) == number
    finally:
        subprocess.run(["umount", str(folder)], check=True)
