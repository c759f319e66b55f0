"""``leptonai review``: what it says, and how it fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from leptonai.cli.main import run
from leptonai.client.learnt import HeldOut, Learnt, Reset, RuleLearnt
from leptonai.types import Action, Cause, Incident

if TYPE_CHECKING:
    from api_stage import Stage


def test_an_incident_is_reviewed_and_what_was_said_is_shown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "operator"))
    stage.store.put_incident(
        Incident(
            id=0, subject="default/service/digits", severity="critical", title="ill", began=1.0, opened=2.0,
            causes=(Cause(name="traffic_surge", subject="digits", confidence=0.9),),
            actions=(Action(remedy="evict", proposal="p", at=3.0),),
        )
    )  # fmt: skip
    assert run(["review", "1"]) == 0
    assert "Nobody has said anything" in capsys.readouterr().out
    given = ["--cause", "retry_storm", "--wrong", "traffic_surge", "--remedy", "evict=ineffective", "--note", "the app"]
    assert run(["review", "1", *given]) == 0
    assert "Noted of incident 1" in capsys.readouterr().out
    assert run(["review", "1"]) == 0
    shown = capsys.readouterr().out
    assert 'human:ana (operator): it was retry_storm, traffic_surge is wrong, evict was ineffective, "the app"' in shown
    assert run(["review", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["hypotheses"] == {"traffic_surge": False}
    for wrong, said in (
        (["--remedy", "evict"], "wanted NAME=VERDICT"),
        (["--remedy", "evict=nice"], "wanted NAME=VERDICT"),
        (["--right", "traffic_surge", "--wrong", "traffic_surge"], "right and wrong"),
        (["--cause", "weather"], "no such cause 'weather'"),
    ):
        assert run(["review", "1", *wrong]) == 2
        assert said in capsys.readouterr().err
    assert run(["review", "9", "--cause", "disk_full"]) == 4


def test_what_was_learnt_is_shown_taken_back_and_restored(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "operator"))
    assert run(["learnt"]) == 0
    assert "Nothing was learnt yet" in capsys.readouterr().out
    folder = stage.home / "learnt"
    folder.mkdir()
    rule = RuleLearnt(
        cause="retry_storm", about="service", when="slower", declared=0.98, alone=0.98, beside=0.28, right=0, wrong=0,
        right_beside=0, wrong_beside=20, limits={"retry_share >= 0.3": "retry_share >= 0.41"},
    )  # fmt: skip
    worth = HeldOut(incidents=20, before=0, after=19)
    found = Learnt(
        at=1.0, reviews=20, incidents=20, in_force=True, why="it holds on held-out incidents", rules=(rule,),
        orders={"memory_leak": (("evict", "restart"), ("restart", "evict"))}, total=worth, causes={"disk_full": worth},
    )  # fmt: skip
    (folder / "learnt.json").write_bytes(msgspec.json.encode(found))
    assert run(["learnt"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "20 reviews",
        "in force",
        "disk_full",
        "0.98",
        "0.28",
        "0/20",
        "became retry_share >= 0.41",
        "restart",
    ):
        assert text in shown
    stage.store.put_incident(
        Incident(id=0, subject="default/service/digits", severity="info", title="", began=1.0, opened=2.0)
    )
    assert run(["review", "1", "--cause", "disk_full"]) == 0
    assert run(["learnt", "reset", "--why", "a mistake"]) == 0
    kept = msgspec.json.decode((folder / "reset.json").read_bytes(), type=Reset)
    assert (kept.after, kept.by, kept.why) == (1, "human:ana", "a mistake")
    assert run(["learnt", "restore", "--why", "none"]) == 0
    assert msgspec.json.decode((folder / "reset.json").read_bytes(), type=Reset).after == 0
    assert run(["learnt", "reset", "--why", " "]) == 2
    assert [e.kind for e in stage.store.events(kind="learnt.")] == ["learnt.reset", "learnt.restored"]
    (folder / "learnt.json").write_bytes(b"{")
    capsys.readouterr()
    assert run(["learnt"]) == 1
    assert "cannot be read" in capsys.readouterr().err
