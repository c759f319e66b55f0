"""The kill switch over HTTP: at once, for all, told in the audit log, and only by who may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leptonai.admit.switch import Switch
from leptonai.errors import Denied
from leptonai.types import DialChange, Token

if TYPE_CHECKING:
    from api_stage import Stage

OPS = Token(name="ops", role="operator", secret_sha256="", created=0.0)


def test_it_is_turned_and_works_at_once(stage: Stage) -> None:
    stage.service()
    change = DialChange(service="digits", set={"main.replicas": 2.0})
    with stage.client("operator") as client:
        assert client.freeze().said == ""
        assert client.turn(True, "by hand").said == "human:operator: by hand"
        refused = stage.door.propose(change, OPS, "", by="incident:1")
        assert refused.status == "denied" and "human:operator: by hand" in refused.reasons[0]
        assert client.platform()["frozen"] == "human:operator: by hand"
        assert client.turn(False).said == ""
        assert stage.door.propose(change, OPS, "", by="incident:1").status == "admitted"
        kinds = [e.kind for e in client.events(subject="platform")]
        assert kinds == ["automation.frozen", "automation.thawed"]


def test_only_who_covers_everything_may_turn_it(stage: Stage) -> None:
    with stage.client("viewer") as client:
        assert client.freeze().said == ""
        with pytest.raises(Denied, match="operator"):
            client.turn(True)
    stage.token("operator", "operator", ("team",))
    with stage.client("operator") as client, pytest.raises(Denied, match="workspace"):
        client.turn(True)


def test_a_touched_file_is_enough_and_what_cannot_be_read_counts_as_on(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "frozen"
    switch = Switch(path)
    assert switch.said() == ""
    path.touch()
    assert switch.said() == f"{path} is there"
    path.unlink()
    path.mkdir()
    assert "cannot be read" in switch.said()


def test_broken_files_of_ops_are_told_by_the_platform(stage: Stage) -> None:
    with stage.client() as client:
        assert client.platform()["ops"]["broken"] == {}
        for broken in ({"a.yaml": "a.yaml: nonsense"}, {}):
            stage.store.record("runbooks.read", "ops", {"broken": broken}, actor="ops", at=stage.now())
            assert client.platform()["ops"]["broken"] == broken
