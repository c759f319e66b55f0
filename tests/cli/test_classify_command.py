"""``leptonai classify`` from beginning to end: trained on simulated worlds, shown, judged on drills, or refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from leptonai.cli.classify import OWN, dealt
from leptonai.cli.main import run
from leptonai.drill.outcome import Outcome
from leptonai.ops.classify.files import OURS, SHIPPED, load
from leptonai.ops.classify.samples import drilled
from leptonai.types import Cause, Evidence, Incident

LEARN, JUDGE = 16, 30  # worlds: what comes of so few is worth nothing, that it comes is


def leptonai(home: Path, *arguments: str) -> str:
    """What a process of its own prints: training forks, and a test process has threads."""
    done = subprocess.run(
        [sys.executable, "-c", "from leptonai.cli import main; main()", "--home", str(home), "classify", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def ledger(folder: Path, *rows: tuple[str, str, dict[str, float]]) -> Path:
    """Outcomes of drills, as ``drill --out`` writes them: (truth, said by the rules, features)."""
    lines = []
    for n, (truth, said, features) in enumerate(rows, 1):
        incident = Incident(
            id=n, subject="default/service/digits", severity="critical", title="t", began=1.0, opened=2.0,
            features=features, causes=(Cause(name=said, subject="digits", confidence=0.9),),
        )  # fmt: skip
        outcome = Outcome(
            kind="disk", fault="disk full", injected=100.0 * n, target="t", truth=(truth,) if truth else (),
            incident=n, incidents=(incident,),
        )  # fmt: skip
        lines.append(msgspec.json.encode(outcome) + b"\n")
    path = folder / "drills" / "drill.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


FULL, SURGE = {"disk_used": 0.99, "disk_rise": 0.3, "error_share": 0.5}, {"rate_shift": 2.0, "queue_shift": 3.0}


def here(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str) -> str:
    """The same in this process: nothing else forks."""
    assert run(["--home", str(home), "classify", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.timeout(900)  # eight seconds of a core
def test_trained_shown_and_judged_on_drills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = leptonai(tmp_path, "train", "--simulated", str(LEARN), "--judge", str(JUDGE), "--seed", "3", "--json")
    said = json.loads(out)
    assert said["kept"] in ("", "1") and 0 <= said["after"]["macro_f1"] <= 1 and said["after"]["incidents"] >= 15
    shown = here(capsys, tmp_path, "show")
    assert ("Version 1" if said["kept"] else f"Version {OURS}") in shown and "incidents that it has not seen" in shown
    drills = ledger(
        tmp_path, ("disk_full", "disk_full", FULL), ("traffic_surge", "retry_storm", SURGE), ("", "unknown", SURGE)
    )
    found = json.loads(here(capsys, tmp_path, "evaluate", "--drills", str(tmp_path), "--json"))
    rules = found["scores"]["rules"]
    assert (rules["incidents"], rules["first"]) == (2, 0.5), "a control is no labelled incident"
    low, high = rules["first_interval"]
    assert low < 0.5 < high and {"ensemble", "svm", "forest", "net", "classifiers alone"} <= found["scores"].keys()
    text = here(capsys, tmp_path, "evaluate", "--drills", str(drills))
    assert "Beside the rules alone" in text and "traffic_surge" in text


def test_what_is_no_ledger_of_drills_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    ledger(tmp_path / "none", ("", "unknown", SURGE))
    for path, says in ((tmp_path / "x.jsonl", "no outcomes of drills"), (tmp_path / "none" / "drills", "no labelled")):
        assert run(["--home", str(tmp_path), "classify", "train", "--simulated", "0", "--drills", str(path)]) == 2
        assert says in capsys.readouterr().err
    assert run(["--home", str(tmp_path), "classify", "evaluate", "--drills", str(tmp_path / "gone")]) == 2


def test_a_drill_s_incident_is_labelled_with_what_was_injected(tmp_path: Path) -> None:
    """With the rules' own say where the evidence has it: the causes on record may be the pool's."""
    path = ledger(tmp_path, ("disk_full", "traffic_surge", FULL))
    (sample,) = drilled([path])
    assert (sample.cause, sample.also, sample.last) == ("disk_full", ("disk_full",), True)
    told = msgspec.json.decode(path.read_bytes(), type=Outcome)
    votes = {"votes": {"rules": {"disk_full": 0.75, "unknown": 0.25}}}
    fact = Evidence(id="e1", kind="classifiers", at=1.0, text="t", data=votes)
    incident = msgspec.structs.replace(told.incidents[0], evidence=(fact,))
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(told, incidents=(incident,))))
    (again,) = drilled([path])
    assert again.rules.max() == 0.75


def test_every_fourth_that_was_lived_through_judges_and_is_not_learnt_from(tmp_path: Path) -> None:
    """No incident is on both sides, and each that is learnt from counts as often as every other."""
    lived = drilled([ledger(tmp_path, *[("disk_full", "disk_full", FULL)] * 6)])
    learn, judges = dealt(lived)
    assert [s.incident for s in judges] == [lived[3].incident]
    assert Counter(s.incident for s in learn) == {s.incident: OWN for s in lived if s is not lived[3]}


def test_one_ships_that_is_small_and_says_how_good_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert SHIPPED.stat().st_size < 1_500_000
    made = load(SHIPPED)
    held = made.about["held_out"]
    assert isinstance(held, dict) and held["incidents"] >= 150 and held["macro_f1"] > 0.8
    assert f"Version {OURS}" in here(capsys, tmp_path, "show")
