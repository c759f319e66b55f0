"""The console's way in: a ticket once, then a cookie that acts for a token, and for our own pages only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from leptonai.api.sessions import COOKIE, SESSION_TTL, TICKET_TTL, Sessions
from leptonai.errors import Denied

if TYPE_CHECKING:
    from api_stage import Stage


@contextlib.contextmanager
def enter(stage: Stage, role: str = "admin") -> Iterator[httpx.Client]:
    """A browser that has opened the URL that a session call printed."""
    with stage.http(role) as http:  # type: ignore[arg-type]
        url = http.post("/sessions").json()["url"]
    with httpx.Client(base_url=stage.url, trust_env=False) as browser:
        answer = browser.get(url)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == "/console"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert stage.secrets[role].lower() not in cookie
        yield browser


def test_a_login_url_works_once_and_the_cookie_reads_the_api(stage: Stage) -> None:
    with stage.http("viewer") as http:
        url = http.post("/sessions").json()["url"]
    for expected in (303, 401):
        with httpx.Client(trust_env=False) as browser:
            assert browser.get(url).status_code == expected
            assert browser.get(stage.url + "/api/v1/services").status_code == (200 if expected == 303 else 401)


def test_the_cookie_is_never_sent_to_a_model_behind_the_gateway(stage: Stage) -> None:
    """Browsers ignore ports: only paths keep the console's cookie from what answers on the gateway's port."""
    with enter(stage) as browser:
        for path, sent in {
            "/console": True,
            "/api/v1/services": True,
            "/services/digits/predict": False,
            "/v2/models/digits": False,
            "/workspaces/team/services/digits/": False,
            "/feedback": False,
        }.items():
            assert ("cookie" in browser.build_request("GET", path).headers) is sent, path


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "OWN"}, True),
        ({"origin": "OWN", "sec-fetch-site": "same-origin"}, True),
        ({}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "OWN", "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_a_cookie_changes_something_only_from_our_own_page(
    shared: Stage, headers: dict[str, str], allowed: bool
) -> None:
    with enter(shared) as browser:
        sent = {k: shared.url if v == "OWN" else v for k, v in headers.items()}
        body = {"kind": "console.pressed", "subject": "digits"}
        answer = browser.post("/api/v1/events", json=body, headers=sent)
        assert answer.status_code == (200 if allowed else 403), answer.text
        assert allowed or answer.json()["code"] == "origin"


def test_a_session_of_an_admin_is_an_operators_and_one_of_a_viewer_a_viewers(stage: Stage) -> None:
    own = {"sec-fetch-site": "same-origin"}
    with enter(stage, "admin") as browser:
        assert browser.get("/api/v1/tokens").status_code == 403
        assert browser.post("/api/v1/events", json={"kind": "x", "subject": "digits"}, headers=own).status_code == 200
    with enter(stage, "viewer") as browser:
        assert browser.get("/api/v1/services").status_code == 200
        assert browser.post("/api/v1/events", json={"kind": "x", "subject": "digits"}, headers=own).status_code == 403


def test_revoking_a_token_ends_its_sessions(stage: Stage) -> None:
    stage.token("ana", "operator")
    with enter(stage, "ana") as browser, stage.http("admin") as http:
        assert browser.get("/api/v1/services").status_code == 200
        http.delete("/tokens/ana")
        assert browser.get("/api/v1/services").status_code == 401


def test_tickets_and_cookies_end_in_time_and_cookies_outlive_a_restart() -> None:
    """A cookie made with the same secret is read again by a new process; one of another secret is not."""
    before, after, foreign = Sessions(b"a"), Sessions(b"a"), Sessions(b"b")
    late = before.ticket("ana", 0.0)
    with pytest.raises(Denied, match="too old"):
        before.open(late, TICKET_TTL)
    cookie = before.open(before.ticket("ana", 0.0), 0.0)

    def reads(sessions: Sessions, now: float, value: str) -> str | None:
        from starlette.requests import Request

        scope = {"type": "http", "method": "GET", "headers": [(b"cookie", f"{COOKIE}={value}".encode())]}
        return sessions.read(Request(scope), now)

    assert reads(after, SESSION_TTL - 1, cookie) == "ana"
    assert reads(after, SESSION_TTL, cookie) is None
    assert reads(foreign, 0.0, cookie) is None
    body, _, signature = cookie.partition(".")
    assert reads(after, 0.0, f"{body[:-2]}00.{signature}") is None
