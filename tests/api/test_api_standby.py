"""A copy of the platform that does not lead: it tells everything and changes nothing."""

from __future__ import annotations

import re

import pytest
from api_stage import Stage

from leptonai.api.app import ROUTES
from leptonai.errors import Conflict

CHANGES = sorted((r.method, r.path) for r in ROUTES if r.changes)


@pytest.fixture
def standby(shared: Stage) -> Stage:
    shared.closed[:] = [Conflict("bob leads namespace models", hint="ask that one", code="not_leading", holder="bob")]
    return shared


def test_every_call_that_may_change_something_is_refused_by_the_name_of_who_leads(standby: Stage) -> None:
    assert ("POST", "/proposals") in CHANGES and ("POST", "/feedback") in CHANGES and ("PUT", "/freeze") in CHANGES
    (newest,) = standby.store.events(newest=True, limit=1)
    with standby.http() as http:
        for method, path in CHANGES:
            path = re.sub(r"{\w+:int}", "1", re.sub(r"{name}", "digits", path.replace("{id}", "p-1")))
            answer = http.request(method, path, content=b"{}")
            assert answer.status_code == 409, (method, path, answer.text)
            assert answer.json()["code"] == "not_leading", (method, path)
            assert answer.json()["detail"] == {"holder": "bob"}
    since = standby.store.events(after=newest.seq)
    assert {e.kind for e in since if not e.kind.startswith(("replica.", "plan."))} == set()


def test_who_may_not_is_told_that_first(standby: Stage) -> None:
    with standby.http("viewer") as http:
        assert http.post("/proposals", content=b"{}").status_code == 403


def test_everything_is_told(standby: Stage) -> None:
    with standby.http("viewer") as http:
        for path in ("/services", "/services/digits", "/events", "/platform", "/incidents", "/proposals"):
            assert http.get(path).status_code == 200, path
        assert http.post("/sessions").status_code == 200, "the console may be looked at"
