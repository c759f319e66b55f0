"""leptonai runbook: files are checked, rows shown, and a plan previewed without a change."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from leptonai.cli.main import run
from leptonai.cli.runbook import spelled
from leptonai.ops.respond import Sight, plans
from leptonai.ops.runbook import shipped
from leptonai.types import Cause, Dials, Incident, Service, Spec, Variant, VariantDials


def ask(home: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(["--home", str(home), "runbook", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_files_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("hung_replica: {steps: [restart]}")
    assert ask(tmp_path, capsys, "check", str(path)) == (0, "Nothing is wrong: 1 row(s), 1 step(s).\n", "")
    path.write_text("hung_replica: {steps: [evict, evict]}")
    code, _, err = ask(tmp_path, capsys, "check", str(path))
    assert code == 9 and "hung_replica: step evict is there twice" in err and "hint: `tries: 2`" in err
    folder = tmp_path / "runbooks"
    folder.mkdir()
    path.rename(folder / "ours.yaml")
    assert ask(tmp_path, capsys, "check")[0] == 9


def test_rows_are_shown_as_they_are_in_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(tmp_path, capsys, "show", "--json")
    assert code == 0 and {row["cause"] for row in json.loads(out)} >= {"hung_replica", "unknown"}
    folder = tmp_path / "runbooks"
    folder.mkdir()
    (folder / "a.yaml").write_text(
        "hung_replica: {owner: night shift, approval: always, steps: [{do: restart, verify: {seconds: 60, "
        "signals: {error_ratio: {below: 0.01}}}}]}"
    )
    code, out, _ = ask(tmp_path, capsys, "show", "hung_replica")
    assert code == 0 and "night shift" in out and "approval always" in out and "error_ratio <= 0.01" in out
    code, _, err = ask(tmp_path, capsys, "show", "high_latency")
    assert code == 4 and "no cause 'high_latency'" in err


def test_a_preview_spells_each_step(tmp_path: Path) -> None:
    variant = Variant(model=f"sha256:{1:064x}")
    service = Service(
        spec=Spec(name="digits", variants=(variant,)),
        dials=Dials(variants={"main": VariantDials(replicas=2)}),
        revision=1,
    )
    incident = Incident(
        id=3, subject="default/service/digits", severity="warning", title="", began=0.0, opened=0.0,
        causes=(Cause(name="traffic_surge", subject="digits", confidence=0.9),),
    )  # fmt: skip
    row = shipped().row("traffic_surge", "warning")
    sight = Sight(service=service, collected=0.0, firing=True)
    scale, degrade, shed = (spelled(step, plan) for step, plan in plans(incident, sight, 0.0, row))
    assert scale["preview"] == ["main.replicas: 2 → 3 for 1800 s"] and scale["risk"] == "low"
    assert degrade["not"] == "it does not apply"
    assert shed["preview"] == ["shed: 0 → 0.5 for 120 s"]
    assert msgspec.json.encode([scale, degrade, shed])
