"""Issues over the API and the command line, the form for users, and how much of all that is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from leptonai.cli.main import run
from leptonai.client.wire import FeedbackRequest, IssueRequest, IssueVerdict
from leptonai.errors import LeptonError
from leptonai.store import Store
from leptonai.types import Ack, DialChange, Feedback, Incident, Proposal, Review, Survey

if TYPE_CHECKING:
    from api_stage import Stage

ATTACK = "<script>alert(1)</script> ![x](http://evil.example) call +49 170 1234567 slow"


def complain(stage: Stage, *notes: str) -> None:
    stage.now.offset += 1000.0  # the pace of feedback is that of tests
    with stage.client("operator") as client:
        client.send_feedback(
            [FeedbackRequest(about=f"id{n}", service="digits", note=note) for n, note in enumerate(notes)]
        )


def test_an_issue_is_led_from_complaints_to_a_repair_that_helped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.service()
    complain(stage, "answers are slow", "so slow answers", "sevens are read as ones", ATTACK)
    with stage.client("operator") as client:
        client.send_feedback(
            [FeedbackRequest(about="x", service="digits", rating=5.0, note="answers are slow but fine")]
        )
        slow = next(i for i in client.issues() if i.title == "answers are slow")
        assert (slow.count, slow.state) == (2, "open")
        assert "slow" in slow.terms
        assert "1234567" not in str(client.issues()), "texts are masked"
        monkeypatch.setenv("LEPTONAI_HOST", stage.url)
        monkeypatch.setenv("LEPTONAI_TOKEN", stage.secrets["operator"])
        assert run(["issues"]) == 0
        assert "answers are slow" in capsys.readouterr().out
        assert run(["issues", str(slow.id), "--owner", "ana", "--state", "in_work"]) == 0
        assert "in work, owner ana" in capsys.readouterr().out
        assert run(["issues", str(slow.id), "--revision", "7"]) == 4
        assert "no revision 7" in capsys.readouterr().err
        assert run(["issues", str(slow.id), "--revision", "1"]) == 0
        verdict = IssueVerdict(fell=True, before=0.02, after=0.001, chance=0.001)
        with stage.http("operator") as http:
            judged = http.post(f"/issues/{slow.id}/verdict", content=msgspec.json.encode(verdict)).json()
            again = http.post(f"/issues/{slow.id}/verdict", content=msgspec.json.encode(verdict))
        assert (judged["state"], judged["before"], judged["after"]) == ("closed", 0.02, 0.001)
        assert again.status_code == 409
        complain(stage, "slow answers again")
        assert client.issue(slow.id).state == "open"
        kinds = [e.kind for e in client.why("digits") if e.kind.startswith("issue.")]
        assert kinds == ["issue.changed", "issue.changed", "issue.verified"]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "nothing is to change"),
        ({"state": "fixed"}, "which revision repairs it"),
        ({"revision": 1}, "state fixed only"),
        ({"owner": "x" * 101}, "101 characters"),
        ({"note": "x" * 1001}, "1001 characters"),
        ({"state": "gone"}, "Invalid enum value"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused(stage: Stage, wish: dict[str, Any], said: str) -> None:
    stage.service()
    complain(stage, "slow answers")
    with stage.http("operator") as http:
        answer = http.post("/issues/1", json=wish)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_another_workspace_sees_and_changes_none_of_it(stage: Stage) -> None:
    stage.service()
    complain(stage, "slow answers")
    stage.token("plant", "operator", ("plant",))
    with stage.client("plant") as plant:  # type: ignore[arg-type]
        assert plant.issues() == []
        with pytest.raises(LeptonError, match="no issue 1"):
            plant.change_issue(1, IssueRequest(owner="me"))


def browser(stage: Stage, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=stage.url, headers={"origin": stage.url, **headers}, trust_env=False)


def token(page: str) -> str:
    found = re.search('name="token" value="([^"]+)"', page)
    assert found
    return found[1]


def test_a_form_is_served_answered_and_safe(stage: Stage) -> None:
    stage.service(survey=Survey(open=True, question="<b>Good?</b>"))
    with browser(stage) as user:
        page = user.get("/survey/digits")
        assert "&lt;b&gt;Good?" in page.text
        assert "<b>" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        form = {"token": token(page.text), "rating": "1", "text": ATTACK}
        thanks = user.post("/survey/digits", data=form)
        assert (thanks.status_code, "alert(1)" in thanks.text) == (200, False)
        ((_, kept),) = stage.store.feedback()[0]
        assert (kept.about, kept.rating, kept.service, kept.note) == ("survey:digits", 1.0, "digits", ATTACK)
        assert [i.count for i in stage.store.issues()] == [1]
        for wrong, status in (
            ({"token": "1.ab"}, 403), ({"token": ""}, 403), ({"rating": "9"}, 400), ({"rating": "x"}, 400),
            ({"text": "x" * 2001}, 400), ({"text": "x" * 20_000}, 413),
        ):  # fmt: skip
            assert user.post("/survey/digits", data=form | wrong).status_code == status
        assert user.post("/survey/digits", data=form, headers={"origin": "http://evil.example"}).status_code == 403
        assert user.post("/survey/digits", content=b"\xff\xfe=1").status_code in (400, 403)
        stage.now.offset += 13 * 3600
        assert user.post("/survey/digits", data=form).status_code == 403, "too old"


def test_a_form_that_is_not_open_is_not_there_and_a_flood_is_bounded(stage: Stage) -> None:
    stage.service()
    stage.service("asked", survey=Survey(open=True))
    with browser(stage) as user:
        assert "您对 asked 的回答满意吗" in user.get("/survey/asked", headers={"accept-language": "zh-CN"}).text
        for path in ("/survey/digits", "/survey/nobody", "/survey/a/b"):
            answer = user.get(path)
            assert answer.status_code == 404
        form = {"token": token(user.get("/survey/asked").text), "rating": "3"}
        answers = [user.post("/survey/asked", data=form) for _ in range(8)]
    assert [a.status_code for a in answers] == [200] * 5 + [429] * 3
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_what_is_kept_is_bounded_and_what_somebody_cares_for_stays(tmp_path: Path) -> None:
    now = 1000.0
    with Store(tmp_path / "s.db") as store:
        for n in range(30):
            store.append_feedback(Feedback(about=f"id{n}", by="a", at=now + n))
        first = Incident(id=0, subject="default/service/d", severity="info", title="", began=1.0, opened=1.0)
        made = [store.put_incident(msgspec.structs.replace(first, closed=None if n == 3 else 9.0)) for n in range(20)]
        store.append_ack(Ack(incident=1, by="a", at=1.0))
        store.append_review(Review(incident=2, by="a", at=1.0, analysis=""))
        change = DialChange(service="d", set={"main.replicas": 1.0})
        for n in range(20):
            wait = Proposal(id=f"p{n}", change=change, by="a", why="", at=now + n, expires=now + 900)
            store.put_proposal(wait)
            if n % 4:
                store.put_proposal(msgspec.structs.replace(wait, status="admitted"))
        for _ in range(80):
            store.put_incident(msgspec.structs.replace(made[3], title=f"{_}"))
        assert store._one("SELECT count(*) FROM incidents WHERE id = 4") == 50
        gone = store.tidy(feedback=10, proposals=8, incidents=5, before=0.0)
        assert [i.about for _, i in store.feedback()[0]] == [f"id{n}" for n in range(20, 30)]
        kept = [i.id for i in store.incidents(limit=100)]
        assert kept == [20, 19, 18, 17, 16, 4, 2, 1], "the newest, and what is open, reviewed, acknowledged"
        assert [p.id for p in store.proposals(status="pending")] == ["p16", "p12", "p8", "p4", "p0"]
        assert gone["feedback"] == 20
        assert store.tidy(feedback=10, proposals=8, incidents=5, before=0.0) == dict.fromkeys(gone, 0)
        assert store.tidy(feedback=10, proposals=100, incidents=5, before=now + 25)["feedback"] == 5
        assert store.put_incident(first).id == 21, "numbers are not given again"
        for table, where in (("feedback", "seq = 30"), ("proposals", "id = 'p0'"), ("incidents", "id = 1")):
            with pytest.raises(LeptonError, match="append-only"):
                store._rows(f"DELETE FROM {table} WHERE {where}")
