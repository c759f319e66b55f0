"""Whatever is sent, the answer is one JSON shape that says what was wrong and what to do; nothing is changed by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from leptonai.types import Dial, DialChange, Incident, Spec, SpecChange, Variant

if TYPE_CHECKING:
    from api_stage import Stage

DIGEST = "sha256:" + "0" * 64


def proposal(change: Any, **more: Any) -> dict[str, Any]:
    return {"change": msgspec.to_builtins(change), "why": "a test", **more}


def spec(**more: Any) -> Any:
    return msgspec.to_builtins(SpecChange(spec=Spec(name="new", variants=(Variant(model=DIGEST),)), base=0)) | more


SCALE = DialChange(service="digits", set={"main.replicas": 2})
INCIDENT = Incident(id=0, subject="default/service/digits", severity="info", title="t", began=0.0, opened=1.0)

# method, path, body, status, what the message must name
CASES: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/nowhere", None, 404, "/api/v1/nowhere"),
    ("PUT", "/services", None, 405, "PUT"),
    ("PATCH", "/services/digits", b"{}", 405, "PATCH"),
    ("OPTIONS", "/services", None, 405, "OPTIONS"),
    ("GET", "/services/none", None, 404, "none"),
    ("GET", "/services/none/revisions", None, 404, "none"),
    ("GET", "/services/none/replicas", None, 404, "none"),
    ("GET", "/services/none/logs", None, 404, "none"),
    ("GET", "/services/digits/logs?replica=x", None, 404, "x"),
    ("GET", "/services/digits/logs?limit=many", None, 400, "limit"),
    ("GET", "/services/digits/logs?limit=-1", None, 400, "limit"),
    ("GET", "/feedback?after=-272987920206505213952", None, 400, "2^63"),
    ("GET", "/incidents/272987920206505213952", None, 400, "2^63"),
    ("GET", "/services/digits?colour=red", None, 400, "colour"),
    ("GET", f"/logs?template=1{'0' * 28}", None, 400, "template"),
    ("GET", "/services/digits/logs?since=nan", None, 400, "since is nan"),
    ("GET", "/traces?slower_than=inf", None, 400, "slower_than is inf"),
    ("GET", "/graph?seconds=1e400", None, 400, "seconds"),
    ("GET", "/services/digits?workspace=nobody", None, 404, "nobody/digits"),
    ("POST", "/services/digits/revisions/9/verify", {}, 404, "9"),
    ("POST", "/services/digits/revisions/one/verify", {}, 404, "one"),
    ("POST", "/proposals", b"{", 400, "JSON"),
    ("POST", "/proposals", b"", 400, "JSON"),
    ("POST", "/proposals", b"\xff\xfe", 400, "JSON"),
    ("POST", "/proposals", b"NaN", 400, "JSON"),
    ("POST", "/proposals", b"[" * 100_000, 400, "object"),
    ("POST", "/proposals", [], 400, "object"),
    ("POST", "/proposals", {"why": "x"}, 400, "change"),
    ("POST", "/proposals", {"change": {"type": "explode"}, "why": ""}, 400, "explode"),
    ("POST", "/proposals", proposal(SCALE, colour="red"), 400, "colour"),
    ("POST", "/proposals", proposal(SCALE, why="x" * 3000), 400, "2000"),
    ("POST", "/proposals", proposal(SCALE, expires_in=-1), 400, "expires_in"),
    ("POST", "/proposals", proposal(SCALE, by="incident:1"), 403, "incident:1"),
    ("POST", "/proposals", proposal(DialChange(service="none", set={"main.replicas": 1})), 404, "none"),
    ("POST", "/proposals", proposal(DialChange(service="digits", set={"main.replicas": 1e9})), 400, "64"),
    ("POST", "/proposals", proposal(DialChange(service="digits", set={"main.colour": 1})), 400, "main.colour"),
    ("POST", "/proposals", {"change": spec(base=7), "why": ""}, 409, "7"),
    ("POST", "/proposals", {"change": spec(), "why": ""}, 404, DIGEST),
    ("POST", "/proposals", {"change": {"type": "delete", "service": "none", "base": 0}, "why": ""}, 404, "none"),
    ("POST", "/proposals/p-0/approve", {"hash": "x"}, 404, "p-0"),
    ("POST", "/services/none/undo", {}, 404, "none"),
    ("POST", "/services/digits/undo", {}, 404, "revision 1"),
    ("POST", "/services/digits/undo", {"why": "x" * 3000}, 400, "2000"),
    ("POST", "/artifacts", b"this is no tar", 400, "tar"),
    ("POST", "/artifacts", b"", 400, "tar"),
    ("POST", "/artifacts", b"x" * 2_000_000, 413, "1048576"),
    ("POST", "/feedback", b"x" * 5_000_000, 413, "4194304"),
    ("POST", "/feedback", {"about": ""}, 400, "about"),
    ("POST", "/feedback", {"about": "r1"}, 400, "says nothing"),
    ("POST", "/feedback", {"about": "r1", "label": 3, "service": "none"}, 404, "none"),
    ("POST", "/feedback", {"about": "incident:77", "verdict": "right"}, 404, "77"),
    ("POST", "/feedback", {"about": "incident:x", "verdict": "right"}, 400, "incident:x"),
    ("POST", "/feedback", {"about": "r1", "note": "x" * 20_000}, 400, "note"),
    ("POST", "/feedback", {"about": "r1", "label": "x" * 20_000}, 400, "label"),
    ("POST", "/feedback", [{"about": "r1", "label": 1}, {"about": "r2"}], 400, "feedback[1]"),
    ("POST", "/feedback", [{"about": "r", "label": 1}] * 1001, 400, "1000"),
    ("POST", "/incidents", msgspec.structs.replace(INCIDENT, id=3), 400, "3"),
    ("PUT", "/incidents/5", msgspec.structs.replace(INCIDENT, id=4), 400, "5"),
    ("PUT", "/incidents/5", INCIDENT, 404, "5"),
    ("GET", "/incidents/5", None, 404, "5"),
    ("POST", "/events", {"kind": "", "subject": "digits"}, 400, "kind"),
    ("POST", "/events", {"kind": "proposal.admitted", "subject": "digits"}, 400, "proposal.admitted"),
    ("POST", "/tokens", {"name": "A B"}, 400, "A B"),
    ("POST", "/tokens", {"name": "ana", "role": "king"}, 400, "king"),
    ("POST", "/tokens", {"name": "ana", "ttl": 0}, 400, "ttl"),
    ("POST", "/tokens", {"name": "ana", "workspaces": ["A/B"]}, 400, "A/B"),
    ("POST", "/tokens", {"name": "admin"}, 409, "admin"),
    ("POST", "/tokens", {"name": "ops"}, 409, "ops"),
    ("DELETE", "/tokens/nobody", None, 404, "nobody"),
    ("DELETE", "/tokens/admin", None, 409, "admin"),
    ("GET", "/signals", None, 400, "name"),
    ("GET", "/signals?name=ready_count", None, 502, "ops"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "names"), CASES)
def test_bad_input_is_told_apart_and_changes_nothing(
    shared: Stage, method: str, path: str, body: Any, status: int, names: str
) -> None:
    stage = shared
    before = (stage.store.services(0.0), stage.store.proposals(), stage.store.incidents(), stage.store.feedback())
    content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
    with stage.http("admin") as http:
        answer = http.request(method, path, content=content)
        assert answer.status_code == status, answer.text
        told = answer.json()
        assert set(told) <= {"error", "code", "hint", "retry", "retry_after", "detail"}
        assert names in told["error"], told
        assert "Traceback" not in answer.text
        assert http.get("/healthz").status_code == 200
    after = (stage.store.services(0.0), stage.store.proposals(), stage.store.incidents(), stage.store.feedback())
    assert after == before


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({}, "needs a token"),
        ({"authorization": "Bearer wrong"}, "not known"),
        ({"authorization": "Bearer"}, "no bearer"),
        ({"authorization": "Basic YTpi"}, "no bearer"),
        ({"cookie": "leptonai_session=abc.def"}, "needs a token"),
        ({"cookie": "leptonai_session=."}, "needs a token"),
    ],
)
def test_without_a_good_token_nothing_is_said_but_how_to_get_one(
    shared: Stage, header: dict[str, str], says: str
) -> None:
    with shared.http(None, **header) as http:
        answer = http.get("/services")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert says in answer.json()["error"]
    assert "LEPTONAI_TOKEN" in answer.json()["hint"]


def test_a_revoked_or_expired_token_is_refused_at_once(stage: Stage) -> None:
    stage.token("short", "viewer", ttl=1e-6)
    stage.token("ana", "viewer")
    for name, status in (("short", 401), ("ana", 200)):
        with stage.http(None, authorization=f"Bearer {stage.secrets[name]}") as http:
            assert http.get("/services").status_code == status
    with stage.http("admin") as http:
        assert http.delete("/tokens/ana").json()["revoked"] is True
    with stage.http(None, authorization=f"Bearer {stage.secrets['ana']}") as http:
        answer = http.get("/services")
    assert answer.status_code == 401
    assert "revoked" in answer.json()["error"]


def test_a_token_of_one_workspace_sees_and_changes_that_one_only(stage: Stage) -> None:
    stage.service("digits", workspace="team")
    stage.service("digits")
    stage.store.put_incident(INCIDENT)
    stage.store.put_incident(msgspec.structs.replace(INCIDENT, subject="team/service/digits"))
    stage.token("ana", "operator", workspaces=("team",))
    with stage.http(None, authorization=f"Bearer {stage.secrets['ana']}") as http:
        assert [v["service"]["spec"]["workspace"] for v in http.get("/services").json()] == ["team"]
        assert http.get("/services/digits").status_code == 403
        assert http.get("/services/digits?workspace=team").status_code == 200
        assert [i["id"] for i in http.get("/incidents").json()] == [2]
        assert http.get("/incidents/1").status_code == 404
        assert {p["change"]["spec"]["workspace"] for p in http.get("/proposals").json()} == {"team"}
        assert {e["subject"] for e in http.get("/events").json()} == {"team/digits"}
        for service, status in (("digits", 403), ("team/digits", 200)):
            body = proposal(DialChange(service=service, set={"main.replicas": 2}))
            assert http.post("/proposals", content=json.dumps(body)).status_code == status
        assert http.post("/events", json={"kind": "x", "subject": "digits"}).status_code == 403
        assert http.get("/signals?name=ready_count&workspace=default").status_code == 403
        assert http.get("/signals?name=ready_count&service=digits").status_code == 403


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(shared: Stage) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    with shared.http("operator") as http:
        answer = http.post("/artifacts", content=pieces())
    assert answer.status_code == 413
    assert "1048576" in answer.json()["error"]


def test_ops_that_gives_no_sign_is_told_after_the_dead_mans_time(stage: Stage) -> None:
    stage.token("ops", "operator")
    with stage.http(None, authorization=f"Bearer {stage.secrets['ops']}") as http:
        seen = http.get("/platform").json()["ops"]
    assert seen["alive"]
    with stage.http("admin") as http:
        stage.now.offset = 9.0
        assert http.get("/platform").json()["ops"]["alive"]
        stage.now.offset = 11.0
        assert http.get("/platform").json()["ops"] == {"alive": False, "seen": seen["seen"], "broken": {}}


def test_a_flood_of_feedback_is_told_when_to_come_back(stage: Stage) -> None:
    """The burst is taken whole; past it, 429 with Retry-After, and nothing of the refused call is kept."""
    with stage.http("operator") as http:
        assert http.post("/feedback", json=[{"about": f"r{n}", "label": n} for n in range(5)]).json() == {"accepted": 5}
        answer = http.post("/feedback", json=[{"about": f"r{n}", "label": n} for n in range(5)])
        assert answer.status_code == 429
        assert answer.json()["code"] == "pace"
        assert int(answer.headers["retry-after"]) >= 1
        assert len(stage.store.feedback()[0]) == 5


def test_what_fails_inside_is_told_by_a_number_and_no_traceback(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(stage.app.state.world.sessions, "ticket", fails)
    with stage.http("admin") as http:
        answer = http.post("/sessions")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "control.log" in answer.json()["hint"]
    assert "mistake" not in answer.text
    assert "Traceback" not in answer.text


def test_dials_that_expire_are_seen_to_expire(stage: Stage) -> None:
    stage.service()
    world = stage.app.state.world
    now = stage.now()
    stage.store.append_dials(
        "digits", [Dial(path="main.replicas", value=3, owner="human:ana", reason="", at=now, expires=now + 50)]
    )
    world.wishes.changed("digits")
    assert world.wishes.get("digits", now).service.dials.variants["main"].replicas == 3
    assert world.wishes.get("digits", now + 51).service.dials.variants["main"].replicas == 1
