"""Drills as an operator runs them: on a copy, resumed, and on a service that people use."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from leptonai.cli.session import Session
from leptonai.drill.campaign import _take_down, fit_to_be_drilled
from leptonai.drill.command import drill
from leptonai.drill.ledger import Ledger
from leptonai.drill.screen import Plain
from leptonai.drill.stage import SERVICE, environment, stage
from leptonai.errors import Denied, SpecError
from leptonai.ops.classify import CLASSES
from leptonai.ops.classify.opinion import OPINION
from leptonai.ops.classify.samples import drilled

LEPTONAI = str(Path(sys.executable).parent / "leptonai")


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LEPTONAI, "drill", *arguments], env=environment(home), capture_output=True, text=True, timeout=200
    )


@pytest.mark.world
@pytest.mark.timeout(240)
def test_a_drill_on_a_copy_is_measured_kept_labelled_and_not_repeated(tmp_path: Path) -> None:
    done = run("kill", "--json", "--seed", "3", "--out", str(tmp_path), home=tmp_path / "none")
    told = json.loads(done.stdout)
    (outcome,) = told["outcomes"]
    assert done.returncode == 0, done.stderr + done.stdout
    assert (outcome["cause"], outcome["remedy"], outcome["seed"]) == ("replica_killed", "none: reconciled", 3)
    assert outcome["first"] and outcome["sent"] > 0 and outcome["failed"] == 0 and outcome["harm"] == []
    assert told["score"]["first"]["share"] == 1.0 and told["baselines"]["always-restart"]["cause"] == 0.0
    (kept,) = Ledger(tmp_path, "drill").read()
    assert kept.incidents[0].causes[0].name == "replica_killed" and kept.incidents[0].features
    (learnt,) = drilled([tmp_path])
    assert learnt.cause == "replica_killed" and learnt.rules.argmax() == CLASSES.index("replica_killed")
    assert any(e.kind == OPINION and "only told" in e.text for e in kept.incidents[0].evidence), "what ships votes not"
    again = run("kill", "--json", "--seed", "3", "--resume", "--out", str(tmp_path), home=tmp_path / "none")
    assert again.returncode == 0 and json.loads(again.stdout)["outcomes"] == told["outcomes"]
    assert "starting the platform" in done.stderr and "starting the platform" not in again.stderr
    assert sorted(p.name for p in (tmp_path / "drills").iterdir()) == ["drill.jsonl"]


@pytest.mark.world
@pytest.mark.timeout(240)
def test_a_service_that_people_use_is_drilled_within_rails(tmp_path: Path) -> None:
    with stage(tmp_path / "home", 1, 40.0, Plain(Console(file=io.StringIO()))) as where:
        done = run("stop", "--live", SERVICE, "--yes", "--json", home=where.home)
        (outcome,) = json.loads(done.stdout)["outcomes"]
        assert (outcome["cause"], outcome["remedy"], outcome["harm"]) == ("hung_replica", "evict", []), done.stderr
        assert outcome["sent"] > 0 and outcome["first"]  # as the gateway counted them
        assert where.client.reviews(outcome["incident"])[0].cause == "hung_replica"
        where.client.scale(SERVICE, 1, why="thrift")
        where.client.wait_ready(SERVICE)
        with pytest.raises(Denied, match="1 ready"):
            fit_to_be_drilled(where.client, SERVICE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stop", "--live", "digits"], "--live breaks digits for its users: stop"),
        (["surge", "--live", "digits", "--yes"], "is not done to a service that people use"),
        (["kil"], "no such fault 'kil'"),
        ([], "the plan has no drills"),
        (["kill", "--all"], "--all names every fault"),
        (["kill", "--game-day", "x.yaml"], "--game-day names its faults itself"),
        (["--game-day", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_drilled_is_refused_before_anything_is_started(arguments: list[str], said: str) -> None:
    answer = CliRunner().invoke(drill, arguments, obj=Session(None, None, None))
    assert isinstance(answer.exception, SpecError) and said in answer.exception.message


def test_every_kind_is_on_its_page_with_its_answers_and_bounds() -> None:
    from leptonai.drill.kinds import CONTROLS, FAULTS

    page = (Path(__file__).parents[2] / "docs" / "drills.md").read_text()
    for f in FAULTS:
        causes, remedies = " or ".join(f.causes), " or ".join(f.remedies)
        row = f"| `{f.kind}` | {f.title} | {causes} | {remedies} | {f.severity} | {f.detect:g} s | {f.recover:g} s |"
        assert row in page
    assert all(f"`{c.kind}`" in page for c in CONTROLS)
    shown = CliRunner().invoke(drill, ["--list"], obj=Session(None, None, None))
    assert shown.exit_code == 0 and all(f.kind in shown.output for f in FAULTS)


def test_what_a_killed_run_left_is_taken_down_first(tmp_path: Path) -> None:
    home, note = tmp_path / "left", tmp_path / "all.home"
    home.mkdir()
    (home / "something").write_text("x")
    note.write_text(str(home))
    with contextlib.suppress(OSError):
        _take_down(note)
    assert not home.exists() and not note.exists()
