"""Silences, acknowledgements, rules: the calls and the commands, by whom they may be made, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from leptonai.cli.main import run
from leptonai.store import Store
from leptonai.types import Incident, Silence

if TYPE_CHECKING:
    from api_stage import Stage

INCIDENT = Incident(id=0, subject="default/service/digits", severity="critical", title="ill", began=1.0, opened=2.0)


def ask(**more: Any) -> dict[str, Any]:
    return {"matchers": ["service=digits"], "seconds": 60.0, "comment": "a new disk"} | more


def test_a_silence_is_made_listed_ended_and_told_in_the_audit_log(stage: Stage) -> None:
    with stage.http("operator") as http, stage.http("viewer") as reader:
        made = http.post("/silences", json=ask()).json()
        assert made["ends"] == pytest.approx(stage.now() + 60.0, abs=10.0)
        assert (made["id"], made["by"], made["matchers"][0]["value"]) == (1, "human:operator", "digits")
        assert [s["id"] for s in reader.get("/silences").json()] == [1]
        assert [s["id"] for s in http.get("/alerts/desk").json()["silences"]] == [1]
        ended = http.delete("/silences/1").json()
        assert http.delete("/silences/1").json() == ended
        assert reader.get("/silences").json() == []
        assert [s["id"] for s in reader.get("/silences?over=true").json()] == [1]
        assert http.delete("/silences/2").status_code == 404
        kinds = [e["kind"] for e in http.get("/events?kind=silence.").json()]
    assert kinds == ["silence.made", "silence.ended"]


def test_silences_outlive_the_process(tmp_path: Path, stage: Stage) -> None:
    with stage.http("operator") as http:
        made = http.post("/silences", json=ask()).json()
    path = tmp_path / "another.db"
    found = stage.store.silence(1)
    with Store(path) as store:
        assert store.put_silence(msgspec.structs.replace(found, id=0)) == found
    with Store(path) as store:
        assert store.silence(1) == msgspec.convert(made, Silence)
        assert store.silences(after=found.ends) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"matchers": []}, "0 matchers"),
        ({"matchers": ["service=x"] * 21}, "21 matchers"),
        ({"matchers": ["nonsense"]}, "'nonsense' is no matcher"),
        ({"matchers": ['service=~"("']}, "no regular expression"),
        ({"matchers": ['service=~".*"']}, "agree with every alert"),
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": 1e9}, "at most"),
        ({"comment": " "}, "comment of 1 to 1000"),
        ({"comment": "x" * 1001}, "comment of 1 to 1000"),
        ({"starts": 5.0}, "starts is 5"),
    ],
)
def test_a_silence_that_cannot_be_meant_is_refused(stage: Stage, wrong: dict[str, Any], said: str) -> None:
    with stage.http("operator") as http:
        answer = http.post("/silences", json=ask(**wrong))
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_a_token_of_one_workspace_silences_sees_and_ends_only_its_own(stage: Stage) -> None:
    stage.token("plant", "operator", ("plant",))
    with stage.http("operator") as everybody, stage.http("plant") as plant:  # type: ignore[arg-type]
        assert plant.post("/silences", json=ask()).status_code == 403  # the default workspace
        mine = plant.post("/silences?workspace=plant", json=ask(matchers=["service=press"])).json()
        assert {"label": "workspace", "op": "=", "value": "plant"} in mine["matchers"]
        assert plant.post("/silences", json=ask(matchers=["workspace=other", "service=x"])).status_code == 403
        theirs = everybody.post("/silences", json=ask()).json()
        assert [s["id"] for s in plant.get("/silences").json()] == [mine["id"]]
        assert plant.delete(f"/silences/{theirs['id']}").status_code == 404


def test_an_incident_is_taken_once_it_is_there_and_as_long_as_it_is_open(stage: Stage) -> None:
    made = stage.store.put_incident(INCIDENT)
    with stage.http("operator") as http:
        assert http.post("/incidents/1/ack", json={"comment": "mine"}).json()["by"] == "human:operator"
        assert [a["incident"] for a in http.get("/alerts/desk").json()["acks"]] == [1]
        assert http.post("/incidents/9/ack", json={}).status_code == 404
        stage.store.put_incident(msgspec.structs.replace(made, closed=9.0))
        assert http.post("/incidents/1/ack", json={}).status_code == 409
        assert [e["kind"] for e in http.get("/events?subject=digits").json()] == ["incident.acknowledged"]


def test_the_commands_say_what_they_did(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "admin"))
    monkeypatch.setenv("LEPTONAI_HOME", str(tmp_path))
    stage.store.put_incident(INCIDENT)
    stage.service("digits")

    def call(*arguments: str) -> tuple[int, str]:
        code = run(list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = call("silence", "create", 'service="digits"', "--for", "2h", "--comment", "a new disk")
    assert (code, "Silence 1 holds until" in said) == (0, True)
    assert "a new disk" in call("silence", "ls")[1]
    assert call("silence", "end", "1") == (0, "Silence 1 is over.\n")
    assert "Nothing is silenced" in call("silence", "ls")[1]
    assert call("silence", "create", "service=x", "--for", "soon", "--comment", "x")[0] == 2
    assert "is yours" in call("ack", "1", "--comment", "looking")[1]
    assert call("ack", "7")[0] == 4
    assert "alert: SloErrorsBurn" in call("alerts", "rules", "digits")[1]
    assert call("alerts", "rules", "letters")[0] == 4
    assert call("alerts")[0] == 7  # ops does not run here, and that is told
