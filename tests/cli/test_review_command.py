"""``leptonai review``: what it says, and how it fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from leptonai.cli.main import run
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
