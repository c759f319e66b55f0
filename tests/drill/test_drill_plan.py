"""Which drills are run: what was asked for becomes a plan, what makes no sense is refused with the reason."""

from pathlib import Path

import pytest

from leptonai.drill.campaign import done_before
from leptonai.drill.kinds import CONTROLS, FAULTS
from leptonai.drill.ledger import Ledger
from leptonai.drill.outcome import Outcome
from leptonai.drill.plan import Plan, kinds_of, make_plan, read_plan
from leptonai.errors import SpecError


def outcome(kind: str, seed: int = 0, **fields: object) -> Outcome:
    return Outcome(kind=kind, fault=kind, injected=1.0, target="r1", seed=seed, **fields)  # type: ignore[arg-type]


def test_a_game_day_is_read_and_its_order_is_the_seeds(tmp_path: Path) -> None:
    path = tmp_path / "friday.yaml"
    path.write_text("name: friday\nseeds: [3, 4]\nshuffle: true\ndrills: [kill, stop, leak, kill+drift, calm]\n")
    plan = read_plan(path)
    assert plan.names == ("kill", "stop", "leak", "kill+drift", "calm")
    assert plan.of(3) == plan.of(3) and sorted(plan.of(3)) == sorted(plan.drills)
    assert any(plan.of(seed) != list(plan.drills) for seed in (3, 4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("drills: [kil]", "no such fault 'kil'"),
        ("drills: []", "no drills"),
        ("drills: [kill, 3]", "Expected `str`"),
        ("drils: [kill]", "unknown field `drils`"),
        ("drills: [kill+stop+leak]", "breaks 3 things at once, the limit is 2"),
        ("drills: [kill+kill]", "names one fault twice"),
        ("drills: [kill+calm]", "a control breaks nothing"),
        ("drills: [slow+nan]", "one newest revision"),
        ("drills: [kill]\nseeds: []", "seeds are []"),
        ("drills: [kill]\nseeds: [1, 1]", "seeds are [1, 1]"),
        ("drills: [kill]\nrate: 0", "rate is 0 requests a second"),
        ("drills: [kill]\nname: ../x", "name is '../x'"),
        ("drills: [kill\n", "friday.yaml"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_the_file_and_the_reason(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "friday.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        read_plan(path)
    assert said in error.value.message and "friday.yaml" in error.value.message


def test_all_is_every_fault_and_every_control_and_live_only_what_touches_one_replica_and_heals() -> None:
    assert set(make_plan((), True, (0,), 20.0).drills) == {f.kind for f in (*FAULTS, *CONTROLS)}
    live = make_plan((), True, (0,), 20.0, live=True).drills
    assert live and {f.breaks for f in FAULTS if f.kind in live} == {"replica"}
    for refused in ("surge", "slow", "kill+stop", "calm"):
        with pytest.raises(SpecError, match="is not done to a service that people use"):
            make_plan((refused,), False, (0,), 20.0, live=True)
    assert [f.kind for f in kinds_of("leak + drift")] == ["leak", "drift"]


def test_what_was_kept_is_not_repeated_and_a_line_cut_off_by_a_kill_is(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "drill")
    assert ledger.read() == []
    for kind, seed in (("kill", 0), ("stop", 0), ("kill", 1)):
        ledger.append(outcome(kind, seed))
    with ledger.path.open("ab") as file:
        file.write(b'{"kind": "leak", "se')
    plan = Plan(drills=("kill", "stop+kill", "leak"), seeds=(0, 1))
    assert done_before(plan, ledger.read()) == {("kill", 0), ("stop+kill", 0), ("kill", 1)}
    ledger.append(outcome("leak", 1))
    assert [(o.kind, o.seed) for o in ledger.read()] == [("kill", 0), ("stop", 0), ("kill", 1), ("leak", 1)]
    ledger.clear()
    assert ledger.read() == []
    ledger.path.write_text('{"kind": 3}\n')
    with pytest.raises(SpecError, match=r"drill\.jsonl"):
        ledger.read()
