"""Every command over a real API: what it prints, in words and in JSON, and how it fails."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from leptonai.cli.main import COMMANDS, leptonai, run
from leptonai.platforms.memory import Behaviour
from leptonai.types import Action, Cause, Evidence, Incident

if TYPE_CHECKING:
    from api_stage import Stage

MODEL = "class Model:\n    def predict(self, x: int) -> int:\n        return x\n"


@pytest.fixture
def shell(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "admin"))
    monkeypatch.setenv("LEPTONAI_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.py").write_text(MODEL)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        return code, said.out, said.err

    return call


def ok(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 0, err
    return out


def test_a_service_is_led_through_its_life_in_sentences(shell: Any) -> None:
    assert "No service yet" in ok(shell("ls"))
    out = ok(shell("deploy", "digits.py", "--replicas", "2", "--why", "first"))
    assert "digits revision 1: 2 of 2 ready." in out
    assert "/predict" in out
    assert "digits" in ok(shell("ls"))
    assert "digits: 3 of 3 ready" in ok(shell("scale", "digits", "3"))
    assert "ready" in ok(shell("restart", "digits"))
    status = ok(shell("status", "digits"))
    assert "revision  1 (none verified yet)" in status
    assert "human:ana" in status
    assert "first" in status
    (Path("digits.py")).write_text(MODEL.replace("return x", "return 2 * x"))
    assert "revision 2" in ok(shell("deploy", "digits.py"))
    assert "undo of revision 2: back to 1. digits revision 3: 3 of 3 ready" in ok(shell("undo", "digits"))
    why = ok(shell("why", "digits"))
    assert why.count("proposal.admitted") == 5
    assert "plan.start" in why
    assert "started main" in ok(shell("logs", "digits"))
    ok(shell("scale", "digits", "1"))
    assert "undo of main.replicas 1: back to 3. digits revision 3: 3 of 3" in ok(shell("undo", "digits"))
    assert "brings it back" in ok(shell("delete", "digits"))
    assert "undo of revision 4: back to 3. digits revision 5" in ok(shell("undo", "digits"))
    assert "services  1, all as wished" in ok(shell("status"))


def test_a_deploy_tells_what_it_sets_back_to_defaults_without_values_of_env(shell: Any) -> None:
    """A model file says nothing of what a text said before: that is no secret, and `undo` brings it back."""
    Path("service.yaml").write_text("name: kept\nmodel: digits.py\nscale: {max: 8}\nenv: {API_TOKEN: plainly}\n")
    code, _, err = shell("deploy", "service.yaml")
    assert code == 0 and "note:" not in err, "there was nothing before"
    code, _, err = shell("deploy", "digits.py", "--name", "kept")
    assert code == 0 and "plainly" not in err
    assert "note: digits.py does not say, so kept has the default again:" in err
    assert "scale.max: 8 → 64" in err and "main.env.API_TOKEN: unset" in err
    ok(shell("undo", "kept"))
    assert json.loads(ok(shell("status", "kept", "--json")))["service"]["service"]["spec"]["scale"]["max"] == 8
    code, _, err = shell("deploy", "service.yaml")
    assert code == 0 and "note:" not in err, "the text says all that is there"


def test_every_reading_command_speaks_json(shell: Any) -> None:
    ok(shell("deploy", "digits.py", "--json"))
    assert [v["service"]["spec"]["name"] for v in json.loads(ok(shell("ls", "--json")))] == ["digits"]
    assert json.loads(ok(shell("status", "--json")))["services"][0]["ready"] == 1
    assert json.loads(ok(shell("status", "digits", "--json")))["revisions"][0]["number"] == 1
    assert json.loads(ok(shell("scale", "digits", "2", "--json")))["wanted"] == 2
    assert json.loads(ok(shell("why", "digits", "--json")))[0]["kind"] == "proposal.admitted"
    assert json.loads(ok(shell("logs", "digits", "--json")))[0]["replica"].startswith("digits")
    assert json.loads(ok(shell("incidents", "--json"))) == []
    assert len(json.loads(ok(shell("proposals", "--json")))) == 2
    assert "ticket=" in json.loads(ok(shell("console", "--json")))["url"]
    assert json.loads(ok(shell("token", "create", "ben", "--json")))["token"]["role"] == "viewer"
    assert {t["name"] for t in json.loads(ok(shell("token", "ls", "--json")))} == {"ana", "ben"}
    assert json.loads(ok(shell("token", "revoke", "ben", "--json")))["revoked"] is True
    assert json.loads(ok(shell("delete", "digits", "--json"))) == {"deleted": "digits"}


def test_a_starter_folder_is_ready_to_deploy(shell: Any) -> None:
    out = ok(shell("create", "--name", "greeter", "--type", "service"))
    assert "leptonai deploy greeter" in out
    assert "greeter revision 1: 1 of 1 ready" in ok(shell("deploy", "greeter"))
    code, _, err = shell("create", "--name", "greeter", "--type", "service")
    assert code == 5
    assert "exists already" in err
    assert shell("create", "--name", "Bad Name")[0] == 2


def test_a_recommender_comes_trained_and_is_ready_to_deploy(shell: Any) -> None:
    pytest.importorskip("torch", reason="torch is not installed: the recommender's folder is not trained here")
    out = ok(shell("create", "--name", "recommendation", "--type", "service"))
    assert "ratings left out" in out
    assert "recommendation revision 1: 2 of 2 ready" in ok(shell("deploy", "recommendation"))


def test_a_service_of_another_workspace_is_named_with_it(shell: Any) -> None:
    ok(shell("deploy", "digits.py", "--workspace", "team", "--name", "numbers"))
    assert "team/numbers" in ok(shell("ls"))
    assert "team/numbers: 2 of 2 ready" in ok(shell("scale", "team/numbers", "2"))
    assert "team/numbers: 1 of 1 ready" in ok(shell("scale", "numbers", "1", "--workspace", "team"))


def test_incidents_are_listed_told_and_judged(shell: Any, stage: Stage) -> None:
    assert "No incident so far." in ok(shell("incidents"))
    assert shell("report")[0] == 4
    now = time.time()
    incident = Incident(
        id=0,
        subject="default/service/digits",
        severity="critical",
        title="digits answers wrongly",
        began=now - 20,
        opened=now - 15,
        diagnosed=now - 10,
        mitigated=now - 5,
        closed=now - 1,
        evidence=(Evidence(id="e1", kind="labels", at=now, text="31 of 80 labelled answers were wrong"),),
        causes=(Cause(name="bad_revision", subject="digits#2", confidence=0.9, evidence=("e1",)),),
        actions=(Action(remedy="rollback", proposal="p-1", at=now - 8, verdict="effective"),),
    )
    stage.store.put_incident(incident)
    listed = ok(shell("incidents"))
    for word in ("closed", "digits answers wrongly", "bad_revision (90%)", "rollback (effective)"):
        assert word in listed
    assert "No incident is open." in ok(shell("incidents", "--open"))
    told = ok(shell("report", "1"))
    assert "31 of 80 labelled answers were wrong" in told
    assert json.loads(ok(shell("incidents", "1", "--json")))["id"] == 1
    assert shell("report", "7")[0] == 4
    assert ok(shell("feedback", "incident:1", "--verdict", "right")) == "Noted.\n"
    assert ok(shell("feedback", "r1", "--label", "7")) == "Noted.\n"
    assert [f.label for _, f in stage.store.feedback()[0]] == [None, 7]


def test_a_proposal_that_waits_is_approved_by_its_hash(
    shell: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(shell("deploy", "digits.py"))
    stage.door._admit = msgspec.structs.replace(stage.door._admit, approval=("delete",))
    code, _, err = shell("delete", "digits")
    assert code == 5
    assert "waits for approval" in err
    assert "leptonai approve p-" in err
    pending = json.loads(ok(shell("proposals", "--status", "pending", "--json")))
    number, hash = pending[0]["id"], pending[0]["hash"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, _, err = shell("approve", number)
    assert code == 2 and f"hash {hash[:12]}" in err and "nobody answered" in err
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert shell("approve", number)[0] == 1
    with stage.http() as http:
        short = http.post(f"/proposals/{number}/approve", json={"hash": hash[:12]})
        assert short.status_code == 403 and "64 characters, 12 came" in short.json()["error"]
        assert http.get(f"/proposals/{number}").json()["hash"] == hash, "what an approval over HTTP has to name"
    assert "admitted" in ok(shell("approve", number, "--yes"))
    code, _, err = shell("approve", number, "--yes")
    assert code == 3 and "already admitted" in err


# arguments, exit code, what the message names
BAD: list[tuple[list[str], int, str]] = [
    (["deploy", "nothing.onnx"], 2, "nothing.onnx"),
    (["forecast", "x" * 3000], 2, "File name too long"),
    (["import", "x" * 3000], 2, "File name too long"),
    (["deploy", "bad.yaml"], 2, "colour"),
    (["deploy", "broken.yaml"], 2, "broken.yaml"),
    (["deploy", "digits.py", "--name", "Not A Name"], 2, "Not A Name"),
    (["deploy", "digits.py", "--replicas", "two"], 2, "two"),
    (["deploy", "empty.onnx"], 2, "empty.onnx"),
    (["deploy", "model.pkl"], 2, "trust"),
    (["status", "nobody"], 4, "nobody"),
    (["logs", "nobody"], 4, "nobody"),
    (["scale", "nobody", "1"], 4, "nobody"),
    (["scale", "served", "1000"], 2, "1000"),
    (["undo", "served"], 4, "served"),
    (["undo", "served", "--to", "9"], 4, "9"),
    (["undo", "nobody"], 4, "nobody"),
    (["delete", "nobody"], 4, "nobody"),
    (["restart", "nobody"], 4, "nobody"),
    (["incidents", "9"], 4, "9"),
    (["feedback", "incident:9", "--verdict", "right"], 4, "9"),
    (["feedback", "r1"], 2, "says nothing"),
    (["token", "create", "ana"], 5, "ana"),
    (["token", "revoke", "nobody"], 4, "nobody"),
    (["approve", "p-0", "--yes"], 4, "p-0"),
    (["frobnicate"], 2, "frobnicate"),
    (["ls", "--colour"], 2, "--colour"),
    (["scale", "served"], 2, "REPLICAS"),
    (["--token", "wrong", "ls"], 3, "not known"),
    (["--host", "http://127.0.0.1:1", "ls"], 6, "127.0.0.1:1"),
    (["--home", "digits.py/home", "up"], 6, "digits.py/home"),
    (["deploy", "/dev/null"], 2, "/dev/null"),
]


def test_each_mistake_has_its_exit_code_its_words_and_its_json_shape(shell: Any, stage: Stage) -> None:
    stage.service("served")
    for name, text in (("bad.yaml", "name: x\nmodel: digits.py\ncolour: red\n"), ("broken.yaml", "name: [\n")):
        Path(name).write_text(text)
    Path("empty.onnx").write_bytes(b"")
    Path("model.pkl").write_bytes(b"\x80\x04N.")
    for arguments, expected, names in BAD:
        code, out, err = shell(*arguments)
        assert (code, out) == (expected, ""), (arguments, err)
        assert err.splitlines()[-2].startswith("error: ") or "\nerror: " in "\n" + err, err
        assert names in err, arguments
        code, out, err = shell(*arguments, "--json")
        body = json.loads(err.splitlines()[-1])
        assert (code, out) == (expected, "")
        assert {"error", "code", "hint", "retry"} <= set(body)
        assert names in body["error"] + body["hint"]


def test_a_read_only_token_reads_and_no_more(shell: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.service("served")
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("eve", "viewer"))
    assert "served" in ok(shell("ls"))
    for arguments in (["scale", "served", "2"], ["delete", "served"], ["deploy", "digits.py"], ["token", "ls"]):
        code, _, err = shell(*arguments)
        assert code == 3
        assert "viewer" in err
        assert "hint: " in err


def test_a_model_that_cannot_start_ends_the_wait_with_the_reason(shell: Any, stage: Stage) -> None:
    stage.platform.world.behaviour = lambda variant: Behaviour(start_delay=9.0, exit_after=0.0)
    code, _, err = shell("deploy", "digits.py")
    assert code == 6
    assert "revision 1 of digits cannot start" in err
    assert "leptonai logs digits" in err


def test_an_unexpected_error_is_one_line_and_a_file(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("leptonai.client.Client.services", fails)
    code, out, err = shell("ls")
    assert (code, out) == (1, "")
    assert err.startswith("error: unexpected RuntimeError: a mistake of ours\nhint: ")
    path = Path(err.strip().rpartition(" ")[2])
    assert "Traceback" in path.read_text()
    path.unlink()


def test_every_command_tells_an_example_and_takes_json() -> None:
    import click

    context = click.Context(leptonai)
    for name in COMMANDS:
        command = leptonai.get_command(context, name)  # type: ignore[attr-defined]
        assert command is not None, name
        assert "Example:" in (command.help or ""), name
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            assert "--json" in {o for p in leaf.params for o in p.opts}, leaf.name
            assert "Example:" in (leaf.help or ""), leaf.name
