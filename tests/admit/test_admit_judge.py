"""The judge, question by question: who, in time, well-formed, not too much, approved."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.admit import World, diff, issue, judge, kinds
from leptonai.errors import Conflict, LeptonError, NotFound, SpecError
from leptonai.settings import Admit
from leptonai.types import (
    Batching,
    Change,
    DeleteChange,
    Dial,
    DialChange,
    Proposal,
    Resources,
    Revision,
    Role,
    Rollout,
    Scale,
    Slo,
    Spec,
    SpecChange,
    Token,
    Variant,
)

NOW = 1000.0
MODEL = "sha256:" + "a" * 64
SPEC = Spec(name="digits", variants=(Variant(model=MODEL),), scale=Scale(min=1, max=4, replicas=2))
SLOWER = msgspec.structs.replace(SPEC, timeout=60.0)
SCALE = DialChange(service="digits", set={"main.replicas": 3})


def token(role: Role = "operator", workspaces: tuple[str, ...] = ("*",)) -> Token:
    return issue("ana", role, workspaces, now=0.0)[1]


def history(*specs: Spec | None) -> tuple[Revision, ...]:
    return tuple(
        Revision(service="digits", number=i, by="human:ana", why="", at=0.0, spec=s) for i, s in enumerate(specs, 1)
    )


def proposal(change: Change = SCALE, by: str = "human:ana", **fields: Any) -> Proposal:
    return Proposal(**{"id": "p", "change": change, "by": by, "why": "", "at": NOW, "expires": NOW + 900} | fields)


def world(*specs: Spec | None, **fields: Any) -> World:
    rules = {k: fields.pop(k) for k in tuple(fields) if k in Admit.__struct_fields__}
    return World(now=NOW, admit=Admit(**rules), history=history(*(specs or (SPEC,))), **fields)


def recent(*seconds_ago: float, service: str = "other") -> tuple[Proposal, ...]:
    change = DialChange(service=service, set={"main.replicas": 1})
    return tuple(proposal(change, by="incident:1", at=NOW - s, status="admitted") for s in seconds_ago)


# --- who -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [SCALE, SpecChange(spec=SLOWER, base=1), DeleteChange(service="digits", base=1)])
@pytest.mark.parametrize(("role", "status"), [("viewer", "denied"), ("operator", "admitted"), ("admin", "admitted")])
def test_a_viewer_changes_nothing_an_operator_everything(change: Change, role: Role, status: str) -> None:
    found, reasons = judge(proposal(change), token(role), world())
    assert found == status
    assert reasons == (("token 'ana' is a viewer; this needs operator",) if role == "viewer" else ())


@pytest.mark.parametrize(
    ("workspaces", "key", "may"),
    [
        (("*",), "digits", True),
        (("team",), "digits", False),
        (("default",), "digits", True),
        ((), "digits", False),
        (("team",), "team/digits", True),
        (("default",), "team/digits", False),
        (("a", "team"), "team/digits", True),
    ],
)
def test_a_token_reaches_its_workspaces_only(workspaces: tuple[str, ...], key: str, may: bool) -> None:
    change = DialChange(service=key, set={"main.replicas": 3})
    status, reasons = judge(proposal(change), token(workspaces=workspaces), world())
    assert status == ("admitted" if may else "denied")
    assert may or "may not change workspace" in reasons[0]


@pytest.mark.parametrize("how", [{"revoked": True}, {"expires": NOW}])
def test_a_dead_token_is_refused(how: dict[str, Any]) -> None:
    status, reasons = judge(proposal(), msgspec.structs.replace(token(), **how), world())
    assert (status, reasons) == ("denied", ("token 'ana' is revoked or has expired",))


def test_who_may_not_learns_nothing_about_the_world() -> None:
    stale = proposal(SpecChange(spec=SLOWER, base=7))
    assert judge(stale, token("viewer"), world())[0] == "denied", "no Conflict that tells the head's number"


# --- in time, well-formed ------------------------------------------------------------------------------------------


def test_a_proposal_is_judged_until_it_expires() -> None:
    assert judge(proposal(expires=NOW + 0.1), token(), world())[0] == "admitted"
    assert judge(proposal(expires=NOW), token(), world()) == ("expired", ("it expired 0 s ago: propose it again",))


def variant(**fields: Any) -> Spec:
    return msgspec.structs.replace(SPEC, variants=(Variant(**{"model": MODEL} | fields),))


def changed(**fields: Any) -> Spec:
    return msgspec.structs.replace(SPEC, **fields)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (changed(name="Digits"), "Digits"),
        (changed(name="x" * 41), "xxx"),
        (changed(workspace="../etc"), "../etc"),
        (changed(variants=()), "variants"),
        (changed(variants=(Variant(model=MODEL), Variant(model=MODEL))), "main"),
        (variant(name="a.b"), "a.b"),
        (variant(name="evict"), "evict"),
        (variant(model="digits.onnx"), "digits.onnx"),
        (variant(model="sha256:abc"), "sha256:abc"),
        (changed(scale=Scale(min=-1)), "scale.min"),
        (changed(scale=Scale(min=5, max=4, replicas=5)), "scale"),
        (changed(scale=Scale(min=0, max=0, replicas=0)), "scale.max"),
        (changed(scale=Scale(min=1, max=4, replicas=9)), "scale.replicas"),
        (changed(timeout=0.0), "timeout"),
        (changed(timeout=float("nan")), "timeout"),
        (changed(drain=float("inf")), "drain"),
        (changed(slo=Slo(availability=1.0)), "slo.availability"),
        (changed(slo=Slo(latency=-1.0)), "slo.latency"),
        (changed(rollout=Rollout(surge=-1)), "rollout.surge"),
        (variant(batching=Batching(max_size=0)), "batching.max_size"),
        (variant(resources=Resources(cpu=-1.0)), "resources.cpu"),
    ],
)
def test_a_malformed_spec_names_what_is_wrong(spec: Spec, said: str) -> None:
    with pytest.raises(SpecError) as failed:
        judge(proposal(SpecChange(spec=spec, base=1)), token(), world())
    assert said in failed.value.message


@pytest.mark.parametrize(
    ("change", "history", "error", "said"),
    [
        (SpecChange(spec=SLOWER, base=0), (SPEC,), Conflict, "from revision 0, but the head is 1"),
        (SpecChange(spec=SLOWER, base=1), (SPEC, SPEC), Conflict, "from revision 1, but the head is 2"),
        (SpecChange(spec=SLOWER, base=2), (SPEC, None), Conflict, "from revision 2, but the head is 0"),
        (DeleteChange(service="digits", base=2), (SPEC,), Conflict, "from revision 2, but the head is 1"),
        (DeleteChange(service="digits", base=0), (SPEC, None), NotFound, "no service 'digits'"),
        (SCALE, (SPEC, None), NotFound, "no service 'digits'"),
    ],
)
def test_a_change_is_made_from_the_head(
    change: Change, history: tuple[Spec | None, ...], error: type[LeptonError], said: str
) -> None:
    with pytest.raises(error, match=said):
        judge(proposal(change), token(), world(*history))


def test_a_deleted_service_is_created_again_from_base_0() -> None:
    assert judge(proposal(SpecChange(spec=SPEC, base=0)), token(), world(SPEC, None))[0] == "admitted"


@pytest.mark.parametrize(
    ("dials", "said"),
    [
        ({}, "no dial is set"),
        ({"main.replicas": 0}, "main.replicas is 0; it must be between 1 and 4 (scale.min and scale.max)"),
        ({"main.replicas": 5}, "main.replicas is 5; it must be between 1 and 4 (scale.min and scale.max)"),
        ({"main.replicas": 2.5}, "main.replicas is 2.5; it must be a whole number"),
        ({"main.weight": -0.1}, "main.weight is -0.1"),
        ({"main.weight": float("nan")}, "main.weight is nan"),
        ({"main.mirror": 1.1}, "main.mirror is 1.1; it must be between 0 and 1"),
        ({"canary.weight": 1.0}, "no dial 'canary.weight'; its variants are main"),
        ({"main.color": 1.0}, "no dial 'main.color'"),
        ({"main": 1.0}, "no dial 'main'"),
        ({"evict.r1": 0.0}, "evict.r1 = 0 is no evict"),
        ({"evict.": 1.0}, "evict. = 1 is no evict"),
        ({"evict.r1.epoch": 1.0}, "is no evict"),
        ({"main.weight": 1.0, "main.replicas": 99.0}, "main.replicas is 99"),
    ],
)
def test_a_dial_is_known_and_within_its_bounds(dials: dict[str, float], said: str) -> None:
    with pytest.raises(SpecError) as failed:
        judge(proposal(DialChange(service="digits", set=dials)), token(), world())
    assert said in failed.value.message


def test_an_epoch_only_rises() -> None:
    log = (Dial(path="main.epoch", value=3, owner="x", reason="", at=0.0),)
    for value in (2.0, 3.0):
        with pytest.raises(Conflict, match="epoch is already 3"):
            judge(proposal(DialChange(service="digits", set={"main.epoch": value})), token(), world(dials=log))
    assert judge(proposal(DialChange(service="digits", set={"main.epoch": 4.0})), token(), world(dials=log))[0] == (
        "admitted"
    )


@pytest.mark.parametrize("sooner", [{"shed": 0.0}, {"shed": 61.0}, {"shed": float("nan")}, {"main.weight": 5.0}])
def test_what_ends_sooner_is_set_and_ends_before_the_rest(sooner: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="sooner has"):
        judge(proposal(DialChange(service="digits", set={"shed": 0.5}, ttl=60.0, sooner=sooner)), token(), world())


@pytest.mark.parametrize("ttl", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ttl_is_a_length_of_time(ttl: float) -> None:
    with pytest.raises(SpecError, match="ttl is"):
        judge(proposal(DialChange(service="digits", set={"main.weight": 1.0}, ttl=ttl)), token(), world())


# --- too much ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"frozen": True}, "the kill switch is on"),
        ({"recent": recent(*range(1, 11))}, "pace: 10 automatic proposals in the last 60 s, the limit is 10"),
        ({"recent": recent(*range(1, 11))}, "again in 50.0 s"),
        ({"recent": recent(1, 2), "pace_count": 2, "pace_seconds": 5.0}, "again in 3.0 s"),
        ({"recent": recent(4, service="digits")}, "digits was changed automatically 4.0 s ago, the limit is 10 s"),
    ],
)
def test_automation_is_bound_and_people_are_not(facts: dict[str, Any], said: str) -> None:
    status, reasons = judge(proposal(by="incident:7"), token(), world(**facts))
    assert status == "denied"
    assert said in reasons[0]
    assert judge(proposal(by="human:ana"), token(), world(**facts))[0] == "admitted"


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"recent": recent(*range(1, 10))},
        {"recent": recent(*range(60, 90))},
        {"recent": recent(10, service="digits")},
    ],
)
def test_automation_within_its_limits_is_admitted(facts: dict[str, Any]) -> None:
    assert judge(proposal(by="incident:7"), token(), world(**facts)) == ("admitted", ())


def test_a_custom_resource_is_bound_by_the_kill_switch_and_by_approval_but_not_by_pace() -> None:
    """A cluster applies what people wrote: twenty of them at once are no runaway automation."""
    asked = proposal(SpecChange(spec=SLOWER, base=1), by="gitops:models/digits@7")
    assert judge(asked, token(), world(recent=recent(*range(1, 11))))[0] == "admitted"
    assert judge(asked, token(), world(recent=recent(1, service="digits")))[0] == "admitted"
    status, reasons = judge(asked, token(), world(frozen=True))
    assert status == "denied" and "the kill switch is on" in reasons[0]
    assert judge(asked, token(), world(approval=("spec",)))[0] == "pending"


# --- approval ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "specs", "found"),
    [
        (SpecChange(spec=SLOWER, base=1), (SPEC,), {"spec"}),
        (SpecChange(spec=SPEC, base=2), (SPEC, SLOWER), {"spec", "rollback"}),
        (SpecChange(spec=SPEC, base=1), (SPEC,), {"spec"}),
        (DeleteChange(service="digits", base=1), (SPEC,), {"delete"}),
        (SCALE, (SPEC,), {"dial", "scale"}),
        (DialChange(service="digits", set={"evict.r1": 1, "main.epoch": 2}), (SPEC,), {"dial", "evict", "restart"}),
        (DialChange(service="digits", set={"main.weight": 1, "main.mirror": 0}), (SPEC,), {"dial", "weight", "mirror"}),
    ],
)
def test_a_change_has_names_and_each_can_ask_for_approval(
    change: Change, specs: tuple[Spec, ...], found: set[str]
) -> None:
    assert kinds(change, history(*specs)) == found
    for name in found:
        status, reasons = judge(proposal(change), token("admin"), world(*specs, approval=(name,)))
        assert (status, reasons) == (
            "pending",
            (f"waits for an admin's approval: {name} is listed in settings admit.approval",),
        )
    others = tuple({"spec", "rollback", "delete", "scale", "evict", "dial"} - found)
    assert judge(proposal(change), token(), world(*specs, approval=others))[0] == "admitted"


def test_an_approved_proposal_needs_an_admin_and_is_beyond_pace_but_not_beyond_the_kill_switch() -> None:
    approved = proposal(by="incident:7", approved_by="human:ana")
    facts: dict[str, Any] = {"approval": ("scale",), "recent": recent(1, service="digits")}
    assert judge(approved, token("operator"), world(**facts))[0] == "denied"
    assert judge(approved, token("admin"), world(**facts))[0] == "admitted"
    assert judge(approved, token("admin"), world(**facts, frozen=True))[0] == "denied"


# --- what it changes -----------------------------------------------------------------------------------------------


def test_a_diff_has_one_line_a_field_and_hides_the_environment() -> None:
    after = changed(
        timeout=5.0,
        variants=(
            Variant(model="sha256:" + "b" * 64, env={"KEY": "secret"}, options={"depth": 2}),
            Variant(name="canary", model=MODEL),
        ),
    )
    lines = diff(SpecChange(spec=after, base=1), world().service)
    assert "timeout: 30.0 → 5.0" in lines
    assert f"main.model: {MODEL} → sha256:{'b' * 64}" in lines
    assert "main.options.depth: unset → 2" in lines
    assert "main.env.KEY: changed" in lines
    assert f"canary.model: unset → {MODEL}" in lines
    assert "secret" not in "".join(lines)
    assert diff(SpecChange(spec=SPEC, base=1), world().service) == ()
    assert diff(SpecChange(spec=SPEC, base=0), world(SPEC, None).service) == ("digits: created",)
    assert diff(DeleteChange(service="digits", base=1), world().service) == ("digits: deleted",)
    dials = DialChange(service="digits", set={"main.replicas": 3, "main.weight": 1, "evict.r1": 1}, ttl=60.0)
    assert diff(dials, world().service) == ("evict.r1: 0 → 1 for 60 s", "main.replicas: 2 → 3 for 60 s")


@given(
    st.builds(
        proposal,
        st.sampled_from([SCALE, SpecChange(spec=SLOWER, base=1), DeleteChange(service="digits", base=1)]),
        st.sampled_from(["human:ana", "incident:1"]),
        expires=st.sampled_from([NOW - 1, NOW + 1]),
        approved_by=st.sampled_from([None, "human:bob"]),
    ),
    st.sampled_from(["viewer", "operator", "admin"]),
    st.booleans(),
    st.sets(st.sampled_from(["dial", "spec", "delete"])),
    st.integers(0, 12),
)
def test_admitted_means_every_question_was_answered_yes(
    asked: Proposal, role: Role, frozen: bool, approval: set[str], load: int
) -> None:
    facts = world(frozen=frozen, approval=tuple(approval), recent=recent(*range(1, load + 1)))
    status, reasons = judge(asked, token(role), facts)
    needs_approval = bool(kinds(asked.change) & approval)
    automatic = asked.by == "incident:1"
    ranks = ["viewer", "operator", "admin"]
    may = ranks.index(role) >= (2 if asked.approved_by else 1)
    good = may and asked.expires > NOW and not (automatic and frozen)
    good = good and not (automatic and load >= 10 and not asked.approved_by)
    if status == "admitted":
        assert good and (asked.approved_by or not needs_approval) and reasons == ()
    elif status == "pending":
        assert good and needs_approval and not asked.approved_by
    else:
        assert not good and len(reasons) == 1
