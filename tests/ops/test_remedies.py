"""Each remedy holds to the suite, wishes what it says, and knows where it does not apply."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leptonai.admit import Door
from leptonai.errors import PluginError
from leptonai.ops.remedies import (
    OURS,
    Batching,
    Command,
    Degrade,
    Evict,
    FallbackOff,
    FallbackOn,
    Limits,
    Preempt,
    Quarantine,
    Recycle,
    Restart,
    Retrain,
    Rollback,
    Scale,
    Shed,
    ShiftWeight,
    Webhook,
    reversal_of,
    shown,
)
from leptonai.ops.respond import reverse
from leptonai.protocols import Remedy
from leptonai.settings import Settings
from leptonai.store import Store
from leptonai.testing.remedy_suite import Case, RemedySuite
from leptonai.types import (
    Auto,
    Cause,
    DialChange,
    Dials,
    Evidence,
    Fallback,
    Incident,
    JobChange,
    Revision,
    Service,
    Spec,
    SpecChange,
    Token,
    Variant,
    VariantDials,
)
from leptonai.types import Scale as Bounds

NOW = 10_000.0
OPS = Token(name="ops", role="operator", secret_sha256="", created=0.0)
ANA = Token(name="ana", role="admin", secret_sha256="", created=0.0)


def spec(number: int = 2, **more: Any) -> Spec:
    more.setdefault("variants", (Variant(model=f"sha256:{number:064x}"),))
    return Spec(name=more.pop("name", "digits"), **more)


def service(found: Spec | None = None, **dials: Any) -> Service:
    found = found or spec()
    variants = dials.pop("variants", {v.name: VariantDials(replicas=2) for v in found.variants})
    return Service(spec=found, dials=Dials(variants=variants, **dials), revision=2)


def revision(number: int, verified: bool, found: Spec | None = None) -> Revision:
    return Revision(
        service="digits", number=number, by="human:ana", why="", at=NOW - 100, spec=found or spec(number),
        verified=NOW - 50 if verified else None,
    )  # fmt: skip


def incident(cause: str = "hung_replica", subject: str = "r1", *evidence: dict[str, Any]) -> Incident:
    told = tuple(
        Evidence(id=f"e{n}", kind=str(data.pop("kind", "signal")), at=NOW, text="", data=data)
        for n, data in enumerate(map(dict, evidence), 1)
    )
    return Incident(
        id=7, subject="default/service/digits", severity="warning", title="t", began=NOW, opened=NOW,
        causes=(Cause(name=cause, subject=subject, confidence=0.95),), evidence=told,
    )  # fmt: skip


def wished(remedy: Remedy, found: Incident, seen: Service, *revisions: Revision) -> Any:
    """What it sets, or None."""
    proposal = remedy.propose(found, seen, revisions, (), NOW)
    return None if proposal is None else getattr(proposal.change, "set", proposal.change)


SURGE = incident("traffic_surge", "digits", {"traffic_ratio": 3.0})
TWO = spec(variants=(Variant(model=f"sha256:{1:064x}"), Variant(name="small", model=f"sha256:{2:064x}")))
STANDBY = {"main": VariantDials(replicas=2), "small": VariantDials(replicas=1, weight=0.0)}
LOW = service(spec(name="batch", priority=-1), variants={"main": VariantDials(replicas=5)})
CROWDED = incident("noisy_neighbour", "digits", {"neighbour": "batch", "neighbour_cpu_rise": 0.4})

MARKED = {"kind": "marked", "rules": "image.high>508 image.hash=0123456789abcdef", "refused_share": 0.15}
FULL = {"kind": "memory_share", "subject": "r2", "memory_share": 0.9}

CASES: dict[str, tuple[Remedy, Case]] = {
    "evict": (Evict(), Case(incident(), service(), ())),
    "recycle": (
        Recycle(),
        Case(incident("out_of_memory", "r1", FULL), service(), ()),
    ),
    "restart": (Restart(), Case(incident(), service(), ())),
    "scale": (Scale(), Case(SURGE, service(), ())),
    "rollback": (
        Rollback(),
        Case(incident("bad_revision_latency", "digits#2"), service(), (revision(1, True), revision(2, False))),
    ),
    "batching": (Batching(max_size=64), Case(SURGE, service(), (revision(2, False),))),
    "limits": (Limits(requests=64), Case(SURGE, service(), (revision(2, False),))),
    "shift_weight": (ShiftWeight(to="small", share=0.8), Case(SURGE, service(TWO), ())),
    "degrade": (Degrade(), Case(SURGE, service(TWO, variants=STANDBY), ())),
    "fallback_on": (
        FallbackOn(),
        Case(incident("dead_dependency", "digits"), service(spec(fallback=Fallback()), fallback=False), ()),
    ),
    "fallback_off": (FallbackOff(), Case(incident("data_drift", "digits"), service(spec(fallback=Fallback())), ())),
    "shed": (Shed(), Case(SURGE, service(), ())),
    "quarantine": (Quarantine(), Case(incident("poisoned_input", "digits", MARKED), service(), ())),
    "preempt": (shown(Preempt(), (LOW,)), Case(CROWDED, service(), ())),
    "command": (Command(run=("/bin/echo", "{service}", "{subject}")), Case(incident(), service(), ())),
    "retrain": (Retrain(pipeline="/p/{service}.yaml"), Case(incident("data_drift", "digits"), service(), ())),
    "webhook": (Webhook(url="http://127.0.0.1:1/hook"), Case(incident(), service(), ())),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
class TestEvery(RemedySuite):
    """The suite, over all of ours."""

    @pytest.fixture(autouse=True)
    def _named(self, name: str) -> None:
        self.found, self.situation = CASES[name]

    def remedy(self) -> Remedy:
        return self.found

    def case(self) -> Case:
        return self.situation

    def changes(self, case: Case) -> str:
        return "batch" if self.found.name == "preempt" else case.service.key

    def test_the_door_admits_it_and_what_takes_it_back(self, tmp_path: Any) -> None:
        """Its dials and specs are within the door's limits, and the reverse leads to what was."""
        case = self.case()
        with Store(tmp_path / "store.db") as store:
            clock = [NOW]
            door = Door(store, Settings(), clock=lambda: clock[0])
            wish = LOW if self.found.name == "preempt" else case.service
            for _ in range(wish.revision):
                head = store.head(wish.key)
                made = msgspec.structs.replace(wish.spec, timeout=20.0 + (head.number if head else 0))
                base = head.number if head else 0
                last = wish.spec if base == wish.revision - 1 else made
                door.propose(SpecChange(spec=last, base=base), ANA, "set the scene")
            initial = {f"{n}.replicas": float(d.replicas) for n, d in wish.dials.variants.items()}
            initial |= {f"{n}.weight": d.weight for n, d in wish.dials.variants.items()}
            if wish.spec.fallback is not None:
                initial["fallback"] = float(wish.dials.fallback)
            door.propose(DialChange(service=wish.key, set=initial), ANA, "set the scene")
            before = store.service(wish.key, NOW)
            assert before is not None
            history = store.revisions(wish.key)
            if self.found.name == "rollback":
                store.verify(wish.key, 1, NOW)
                rolled = msgspec.structs.replace(history[0], spec=spec(1), verified=NOW)
                history = [rolled, *history[1:]]
            proposal = self.remedy().propose(case.incident, case.service, history, (), NOW)
            assert proposal is not None
            answer = door.propose(proposal.change, OPS, proposal.why, by=proposal.by)
            assert answer.status == "admitted", answer.reasons
            after = store.service(wish.key, NOW)
            assert after is not None
            back = reverse(proposal.change, before)
            if reversal_of(self.found) == "none" or isinstance(proposal.change, JobChange):
                assert back is None
                return
            assert back is not None and after != before
            clock[0] += Settings().admit.cooldown
            assert door.propose(back, OPS, "it did not help", by=proposal.by).status == "admitted"
            restored = store.service(wish.key, clock[0])
            assert restored is not None
            assert (restored.spec, restored.dials) == (before.spec, before.dials)


def test_every_remedy_of_ours_is_in_the_table() -> None:
    assert sorted(CASES) == sorted(OURS)


def test_only_replicas_that_are_not_on_their_way_out_are_evicted() -> None:
    assert wished(Evict(), incident(), service(evict=("r1",))) is None
    assert wished(Evict(), incident(subject="digits"), service()) is None
    assert wished(Evict(), incident(subject="digits#2"), service()) is None
    assert wished(Evict(), incident(), service()) == {"evict.r1": 1.0}


def test_the_fullest_replica_is_recycled_before_its_limit() -> None:
    full = [
        {"kind": "memory_share", "subject": r, "memory_share": s} for r, s in (("r1", 0.7), ("r2", 0.85), ("r3", 0.95))
    ]
    found = incident("out_of_memory", "r9", *full)
    assert wished(Recycle(), found, service()) == {"evict.r3": 1.0}
    assert wished(Recycle(), found, service(evict=("r3",))) == {"evict.r2": 1.0}
    assert wished(Recycle(above=0.96), found, service()) is None
    newer = incident("out_of_memory", "r9", *full, {"kind": "memory_share", "subject": "r3", "memory_share": 0.5})
    assert wished(Recycle(), newer, service()) == {"evict.r2": 1.0}, "the newest reading counts"


def test_scale_stays_within_the_bounds_and_out_of_the_autoscaler_s_hands() -> None:
    assert wished(Scale(), SURGE, service()) == {"main.replicas": 6.0}, "as many times as the traffic"
    assert wished(Scale(factor=1.5), SURGE, service()) == {"main.replicas": 3.0}
    assert wished(Scale(), SURGE, service(spec(scale=Bounds(max=5)))) == {"main.replicas": 5.0}
    assert wished(Scale(), SURGE, service(spec(scale=Bounds(max=3)))) is None, "even so many would not carry it"
    full = incident("cpu_starvation", "digits", {"host_cpu_ratio": 0.97})
    assert wished(Scale(), full, service()) is None, "there is no processor for one more"
    below = {"traffic_ratio": 2.0, "dependency_slowdown": 4.0, "dependency_delay": 0.3}
    assert wished(Scale(), incident("traffic_surge", "digits", below), service()) is None, "what it calls is behind"
    assert wished(Scale(), incident("traffic_surge", "digits", {**below, "dependency_slowdown": 1.2}), service())
    assert wished(Scale(), SURGE, service(spec(scale=Bounds(max=2, replicas=2)))) is None, "at its maximum"
    auto = spec(scale=Bounds(min=1, auto=Auto()))
    assert wished(Scale(), SURGE, service(auto)) is None, "the autoscaler is at work"
    floor = service(auto, variants={"main": VariantDials(replicas=1)})
    assert wished(Scale(), SURGE, floor) == {"main.replicas": 3.0}, "it has not moved off its floor"
    pinned = service(auto, variants={"main": VariantDials(replicas=2, auto=False)})
    assert wished(Scale(), SURGE, pinned) == {"main.replicas": 6.0}
    assert wished(Scale(), SURGE, service(variants={"main": VariantDials(replicas=0)})) is None, "nobody wakes it"


@pytest.mark.parametrize(
    ("revisions", "to"),
    [
        ((revision(1, True), revision(2, False)), 1),
        ((revision(1, True), revision(2, True, spec(9)), revision(3, False)), 9),  # the newest verified one
        ((revision(1, False), revision(2, False)), None),  # none was ever found good
        ((revision(1, True, spec(2)), revision(2, False)), None),  # it runs the same bytes
        ((revision(1, True),), None),  # an old view: its base would be refused
    ],
)
def test_rollback_goes_to_the_newest_verified_spec_that_runs_something_else(
    revisions: tuple[Revision, ...], to: int | None
) -> None:
    head = revisions[-1].spec
    assert head is not None
    seen = Service(spec=head, dials=service(head).dials, revision=max(2, revisions[-1].number))
    change = wished(Rollback(), incident("bad_revision_errors", f"digits#{revisions[-1].number}"), seen, *revisions)
    assert change == (None if to is None else SpecChange(spec=spec(to), base=seen.revision))


def test_a_revision_that_no_longer_runs_is_not_rolled_back() -> None:
    revisions = (revision(1, True), revision(2, False), revision(3, False, spec(1)))
    seen = Service(spec=spec(1), dials=service().dials, revision=3)
    assert wished(Rollback(), incident("bad_revision_errors", "digits#2"), seen, *revisions) is None


def test_weight_is_shifted_only_to_a_variant_that_can_answer() -> None:
    assert wished(ShiftWeight(to="small", share=0.5), SURGE, service(TWO, variants=STANDBY)) == {
        "main.weight": 0.5, "small.weight": 0.5
    }  # fmt: skip
    assert wished(Degrade(), SURGE, service(TWO, variants=STANDBY)) == {"main.weight": 0.0, "small.weight": 1.0}
    assert wished(Degrade(), SURGE, service(TWO)) is None, "no variant stands by"
    gone = STANDBY | {"small": VariantDials(replicas=0, weight=0.0)}
    assert wished(Degrade(to="small"), SURGE, service(TWO, variants=gone)) is None
    assert wished(ShiftWeight(to="other"), SURGE, service(TWO)) is None
    full = {"main": VariantDials(weight=0.0), "small": VariantDials(weight=1.0)}
    assert wished(Degrade(to="small"), SURGE, service(TWO, variants=full)) is None, "it has all of them"


def test_the_fallback_is_switched_only_where_there_is_one_and_it_stands_otherwise() -> None:
    has = spec(fallback=Fallback())
    assert wished(FallbackOn(), SURGE, service()) is None
    assert wished(FallbackOn(), SURGE, service(has)) is None
    assert wished(FallbackOff(), SURGE, service(has, fallback=False)) is None
    assert wished(FallbackOff(), SURGE, service(has)) == {"fallback": 0.0}


def test_what_is_refused_is_what_came_in_addition() -> None:
    assert wished(Shed(), SURGE, service()) == {"shed": 0.67}
    assert wished(Shed(), incident("retry_storm", "digits", {"retry_share": 1.0}), service()) == {"shed": 0.5}
    storm = {"retry_share": 2.0, "traffic_ratio": 0.6}
    assert wished(Shed(), incident("retry_storm", "digits", storm), service()) == {"shed": 0.67}, "fewer are answered"
    both = {"retry_share": 1.0, "traffic_ratio": 2.0}
    assert wished(Shed(), incident("retry_storm", "digits", both), service()) == {"shed": 0.75}
    assert wished(Shed(), incident("traffic_surge", "digits", both), service()) == {"shed": 0.5}, "hedges cost nothing"
    again = {"repeated_share": 0.8, "traffic_ratio": 1.1}
    assert wished(Shed(), incident("retry_storm", "digits", again), service()) == {"shed": 0.8}, "the clients' own"
    assert wished(Shed(), incident("retry_storm", "digits"), service()) == {"shed": 0.5}
    assert wished(Shed(), incident("traffic_surge", "digits", {"traffic_ratio": 1000.0}), service()) == {"shed": 0.9}
    assert wished(Shed(share=0.2), SURGE, service()) == {"shed": 0.2}
    assert wished(Shed(), SURGE, service(shed=0.7)) is None, "as much is refused already"


FLOOD = {
    "kind": "load", "arrivals_per_second": 100.0, "arrivals_ratio": 5.0, "waiting_count": 80.0,
    "carried_per_second": 50.0,
}  # fmt: skip


def test_what_the_replicas_do_not_carry_is_refused_so_that_what_waits_is_worked_off() -> None:
    """Of 100 a second, 40 less the 10 that work off the queue in eight seconds; what answers alone say is 1.2 times."""
    flood = incident("traffic_surge", "digits", {"traffic_ratio": 1.2}, FLOOD)
    assert wished(Shed(), flood, service()) == {"shed": 0.7}
    assert wished(Shed(), incident("traffic_surge", "digits", {"traffic_ratio": 10.0}, FLOOD), service()) == {
        "shed": 0.9
    }
    assert wished(Shed(), flood, service(shed=0.5)) == {"shed": 0.85}, "a hundred are let in, as many were refused"
    nobody = {**FLOOD, "carried_per_second": 0.0}
    assert wished(Shed(), incident("cold_start_storm", "digits", nobody), service()) == {"shed": 0.9}


def test_more_replicas_are_asked_for_and_the_rest_refused_until_they_are_there() -> None:
    flood = incident("traffic_surge", "digits", {"traffic_ratio": 1.2}, FLOOD)
    proposal = Scale(refuse=60.0).propose(flood, service(), (), (), NOW)
    assert proposal is not None
    wanted = DialChange(
        service="digits", set={"main.replicas": 8.0, "shed": 0.7}, ttl=1800.0, sooner={"shed": 60.0}
    )  # fmt: skip
    assert proposal.change == wanted and "70% of the requests are refused" in proposal.why
    back = DialChange(service="digits", set={"main.replicas": 2.0, "shed": 0.0}, ttl=1800.0, sooner={"shed": 60.0})
    assert reverse(proposal.change, service()) == back
    assert wished(Scale(), flood, service()) == {"main.replicas": 8.0}, "only where the runbook says so"
    assert wished(Scale(refuse=60.0), SURGE, service()) == {"main.replicas": 6.0}, "nobody knows what is too much"
    fits = {**FLOOD, "arrivals_per_second": 35.0, "waiting_count": 1.0}
    assert wished(Scale(refuse=60.0), incident("traffic_surge", "digits", fits), service()) == {"main.replicas": 8.0}
    small = service(spec(scale=Bounds(max=4)))
    assert wished(Scale(refuse=60.0), flood, small) is None, "four carry 80 of the 100: five would be needed"


def test_replicas_that_only_start_are_not_taken_for_slow_ones() -> None:
    """Two of four are ready and carry 25 each: five are needed, and eight may be."""
    half = {**FLOOD, "carrying_count": 2.0}
    wide = service(spec(scale=Bounds(max=8)), variants={"main": VariantDials(replicas=4)})
    assert wished(Scale(), incident("traffic_surge", "digits", half), wide) == {"main.replicas": 8.0}
    full = {**FLOOD, "carrying_count": 4.0}
    assert wished(Scale(), incident("traffic_surge", "digits", full), wide) is None, "ten would be needed"


def test_where_somebody_else_sets_the_replicas_only_what_is_too_much_is_refused() -> None:
    def asked(remedy: Scale, found: Incident, seen: Service) -> Any:
        proposal = remedy.propose(found, seen, (), (), NOW, theirs=frozenset({"digits"}))
        return proposal and proposal.change

    flood = incident("traffic_surge", "digits", {"traffic_ratio": 1.2}, FLOOD)
    keda = service(spec(scale=Bounds(owner="keda", auto=Auto())))
    refusal = DialChange(service="digits", set={"shed": 0.7}, ttl=60.0)
    assert asked(Scale(refuse=60.0), flood, keda) == refusal, "above its floor too: he goes on as we refuse"
    assert asked(Scale(), flood, keda) is None, "nothing is left to ask for"
    assert asked(Scale(refuse=60.0), SURGE, keda) is None, "nobody knows what is too much"
    assert asked(Scale(refuse=60.0), flood, msgspec.structs.replace(keda, dials=service(shed=0.9).dials)) is None
    small = service(spec(scale=Bounds(owner="keda", max=4)))
    assert asked(Scale(refuse=60.0), flood, small) is None, "what he may start would not carry it"
    mine = service(spec(scale=Bounds(owner="keda")))
    assert wished(Scale(), flood, mine) == {"main.replicas": 8.0}, "on this platform it is us who set them"


def test_what_only_failing_requests_have_is_put_in_quarantine_unless_it_is_common() -> None:
    both = {"quarantine.image.high>508": 1.0, "quarantine.image.hash=0123456789abcdef": 1.0}
    found = incident("poisoned_input", "digits", MARKED)
    assert wished(Quarantine(), found, service()) == both
    assert wished(Quarantine(most=0.1), found, service()) is None, "it would take more requests than that"
    unknown = {name: value for name, value in MARKED.items() if name != "refused_share"}
    assert wished(Quarantine(), incident("poisoned_input", "digits", unknown), service()) is None
    assert wished(Quarantine(), incident("poisoned_input", "digits"), service()) is None, "nothing is known"
    assert wished(Quarantine(), found, service(quarantine=("image.high>508",))) == {
        "quarantine.image.hash=0123456789abcdef": 1.0
    }
    full = tuple(f"image.high>{n}" for n in range(7))
    assert wished(Quarantine(), found, service(quarantine=full)) is None, "no room for all of them"
    own = Quarantine(where=("age.low<0",), seconds=60.0)
    assert wished(own, incident("poisoned_input", "digits"), service()) == {"quarantine.age.low<0": 1.0}
    for where in (("age",), ("age.low<0",) * 9):
        with pytest.raises(ValueError, match="where has"):
            Quarantine(where=where)


def test_a_neighbour_makes_room_only_when_it_is_less_important_and_keeps_one() -> None:
    assert wished(shown(Preempt(), (LOW,)), CROWDED, service()) == {"main.replicas": 2.0}
    assert wished(Preempt(), CROWDED, service()) is None, "nobody is shown"
    equal = Service(spec=spec(name="batch"), dials=LOW.dials, revision=2)
    assert wished(shown(Preempt(), (equal,)), CROWDED, service()) is None
    bounded = Service(
        spec=spec(name="batch", priority=-1, scale=Bounds(min=5, replicas=5)), dials=LOW.dials, revision=2
    )
    assert wished(shown(Preempt(), (bounded,)), CROWDED, service()) is None
    last = service(spec(name="batch", priority=-1), variants={"main": VariantDials(replicas=1)})
    assert wished(shown(Preempt(), (last,)), CROWDED, service()) is None
    assert wished(shown(Preempt(), (LOW,)), incident("noisy_neighbour", "digits"), service()) is None, "none is named"


def test_a_spec_is_not_changed_in_the_middle_of_a_rollout_or_beyond_its_bounds() -> None:
    from leptonai.types import Canary

    head = revision(2, False)
    trying = msgspec.structs.replace(service(), canary=Canary(stable=spec(1).variants, revision=1))
    assert wished(Batching(max_size=64), SURGE, trying, head) is None
    assert wished(Batching(max_size=10**9), SURGE, service(), head) is None
    assert wished(Batching(), SURGE, service(), head) is None, "nothing is given"


def test_a_command_is_a_list_and_names_only_what_is_known() -> None:
    change = wished(Command(run=("/bin/echo", "{service}", "{cause}: {subject}")), incident(), service())
    assert isinstance(change, JobChange) and change.job.command == ("/bin/echo", "digits", "hung_replica: r1")
    for run in ((), ("echo",), ("/bin/echo", "{password}"), ("/bin/echo", "{0}")):
        with pytest.raises(ValueError, match=r"absolute path|may name"):
            Command(run=run)
    with pytest.raises(ValueError, match="http://"):
        Webhook(url="file:///etc/passwd")


def test_a_remedy_of_a_package_is_looked_at_before_it_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    from leptonai.ops import remedies

    class Point:
        name = value = "somebody:Theirs"

        def __init__(self, made: object) -> None:
            self.made = made

        def load(self) -> Any:
            return lambda: self.made

    class Theirs:
        name, risk = "theirs", "low"

        def propose(self, *args: Any) -> None:
            return None

    class Same(Theirs):
        name = "evict"

    class Reckless(Theirs):
        risk = "none whatever"

    for made, says in ((Same(), "takes the name"), (Reckless(), "risk"), (object(), "has name None")):
        monkeypatch.setattr(remedies, "entry_points", lambda group, made=made: [Point(made)])
        with pytest.raises(PluginError, match=says):
            remedies.load_remedies()
    monkeypatch.setattr(remedies, "entry_points", lambda group: [Point(Theirs())])
    found = remedies.load_remedies()
    assert set(found) == {*OURS, "theirs"} and reversal_of(found["theirs"]) == "none"  # type: ignore[arg-type]
