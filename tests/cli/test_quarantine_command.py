"""``leptonai quarantine``: set, shown, lifted; what is no rule is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from leptonai.cli.main import run

if TYPE_CHECKING:
    from api_stage import Stage


def test_rules_are_set_shown_and_lifted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "operator"))
    stage.service("digits")
    assert run(["quarantine", "digits"]) == 0
    assert "refuses no request" in capsys.readouterr().out
    assert run(["quarantine", "digits", "image.high > 508", "age.low<0", "--seconds", "60"]) == 0
    assert "digits refuses requests with image.high>508" in capsys.readouterr().out
    assert run(["quarantine", "digits", "age.low<0", "--lift", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"service": "digits", "quarantine": ["image.high>508"]}
    assert run(["quarantine", "digits", "--lift"]) == 0
    assert "refuses no request" in capsys.readouterr().out
    for wrong in (["image"], ["image.high>nan"]):
        assert run(["quarantine", "digits", *wrong]) == 2
        assert "no rule about an input" in capsys.readouterr().err
    assert run(["quarantine", "gone", "x.high>1"]) == 4
