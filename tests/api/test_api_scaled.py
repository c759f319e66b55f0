"""Replicas that somebody else sets: what is wished is what that one wants, and no dial of ours is turned in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leptonai.cli.main import run
from leptonai.errors import Conflict
from leptonai.types import DialChange, Scale

if TYPE_CHECKING:
    from api_stage import Stage


def test_who_sets_the_replicas_is_told_and_his_number_is_the_wish(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.service(scale=Scale(owner="keda", min=1, max=9))
    with stage.client() as client:
        ours = client.service("digits")
        assert (ours.scaled_by, ours.wanted) == ("", 1), "no platform where somebody else does"
        client.scale("digits", 2)
        stage.platform.world.scaled["digits"] = {"main": 4}
        seen = client.service("digits")
        assert (seen.scaled_by, seen.wanted) == ("keda", 4)
        assert seen.service.dials.variants["main"].replicas == 4
        assert "of 4 ready" in seen.status
        args = ["--host", stage.url, "--token", stage.secrets["admin"], "status", "digits"]
        assert run(args) == 0
        assert "replicas  set by keda, 1 to 9" in capsys.readouterr().out.splitlines()


def test_replicas_that_somebody_else_sets_are_refused_and_every_other_dial_is_not(stage: Stage) -> None:
    stage.service(scale=Scale(owner="keda", max=9))
    stage.platform.world.scaled["digits"] = {"main": 4}
    with stage.client() as client:
        with pytest.raises(Conflict, match="replicas of digits are set by keda") as told:
            client.scale("digits", 2)
        assert told.value.code == "scaled_elsewhere" and "scale.owner: leptonai" in told.value.hint
        with pytest.raises(Conflict):
            client.wish(DialChange(service="digits", set={"main.weight": 0.5, "main.replicas": 2.0}), "both at once")
        assert client.wish(DialChange(service="digits", set={"main.epoch": 1.0}), "restart").status == "admitted"
