"""The model repository over the control API: index, load and unload are dials that pass the door."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api_stage import Stage


def replicas(stage: Stage, name: str = "digits") -> int:
    return stage.store.service(name, stage.now()).dials.variants["main"].replicas


def test_unload_is_zero_and_load_is_what_was(stage: Stage) -> None:
    stage.service()
    with stage.http("operator") as http:
        change = {"type": "dial", "service": "digits", "set": {"main.replicas": 2}}
        http.post("/proposals", json={"change": change, "why": ""})
        assert replicas(stage) == 2
        for _ in range(2):  # again changes nothing
            assert (http.post("/repository/models/digits/unload").json()) == {}
            assert replicas(stage) == 0
        [one] = http.post("/repository/index", json={}).json()
        deadline = time.monotonic() + 20
        while one["state"] != "UNAVAILABLE" and time.monotonic() < deadline:
            [one] = http.post("/repository/index", json={}).json()
        assert (one["name"], one["state"]) == ("digits", "UNAVAILABLE")
        assert http.post("/repository/index", json={"ready": True}).json() == []
        for _ in range(2):
            assert http.post("/repository/models/digits/load", json={"parameters": {}}).status_code == 200
            assert replicas(stage) == 2
    events = stage.store.events(subject="digits", limit=100)
    assert any("unload" in str(e.detail) for e in events)


def test_what_cannot_be_loaded(stage: Stage) -> None:
    stage.service()
    with stage.http("operator") as http:
        assert http.post("/repository/models/nobody/load").status_code == 404
        assert http.post("/repository/models/digits/load", json={"parameters": {"config": "{}"}}).status_code == 400
        assert http.post("/repository/models/digits/unload", content=b"[").status_code == 400
    with stage.http("viewer") as http:
        assert http.post("/repository/models/digits/unload").status_code == 403
        assert http.post("/repository/index").status_code == 200
    with stage.http(None) as http:
        assert http.post("/repository/index").status_code == 401
