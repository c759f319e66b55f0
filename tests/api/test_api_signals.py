"""Signals are asked of ops over its socket; what a service shows as its status is a pure function of its replicas."""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from leptonai.api.world import status_line
from leptonai.errors import TelemetryError
from leptonai.ops.feeds import Feeds
from leptonai.ops.signals import Server, listen
from leptonai.platforms.embedded import Embedded
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Settings, Telemetry
from leptonai.types import Alert, Anomaly, Replica, Signal

if TYPE_CHECKING:
    from api_stage import Stage


@contextlib.contextmanager
def ops(
    socket: Path,
    kept: Memory | Embedded,
    feeds: Feeds | None = None,
    anomalies: Callable[[], list[Anomaly]] = list,
    alerts: Callable[[], list[Alert]] = list,
) -> Iterator[None]:
    """The part of ops that answers questions, as ops runs it."""
    server = Server(kept, feeds, alerts, anomalies=anomalies)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listen(socket)])), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_signals_come_from_ops_and_its_silence_is_told(stage: Stage) -> None:
    kept = Memory()
    for at, value in ((100.0, 1.0), (103.0, 4.0)):
        kept.write([Signal(name="ready_count", labels={"service": "digits"}, at=at, value=value)])
    with stage.client() as client:
        with pytest.raises(TelemetryError, match="ops does not run") as caught:
            client.signals("ready_count", 100.0, 104.0)
        assert caught.value.exit_code == 7
        with ops(stage.home / "ops.sock", kept):
            assert client.signal_names() == ["ready_count"]
            (series,) = client.signals("ready_count", 100.0, 104.0, {"service": "digits"}, step=1.0)
            assert series.labels == {"service": "digits"}
            assert [v for v in series.value if not math.isnan(v)] == [1.0, 4.0]
            assert len(series.value) == 4  # what was not seen is null on the way, and nan again
            assert client.signals("ready_count", 100.0, 104.0, {"service": "other"}) == []
            with stage.http() as http:
                for odd in ("a%0Ab", "a%3Fcovers=*", "a%23b", "%00"):
                    answer = http.get(f"/traces/{odd}")
                    assert answer.status_code == 501, (odd, answer.text)  # these ops keep no traces
                    assert "takes nothing from others" in answer.json()["error"], odd
        with pytest.raises(TelemetryError, match="ops does not answer"):
            client.signal_names()


def test_remote_write_is_passed_on_to_ops_by_operators_of_the_workspace(stage: Stage, tmp_path: Path) -> None:
    kept = Embedded(tmp_path / "telemetry")
    label = b"\x0a\x0d\x0a\x08__name__\x12\x01x"
    sample = b"\x12\x10\x09" + struct.pack("<d", 2.5) + b"\x10" + bytes.fromhex("80d0dbc3f430")  # of 2023
    series = label + sample
    body = pa.Codec("snappy").compress(b"\x0a" + bytes([len(series)]) + series, asbytes=True)
    feeds = Feeds(None, Settings(telemetry=Telemetry(retain=1e10)), kept, time.time)
    plant = {"workspace": "plant"}
    ending = ops(stage.home / "ops.sock", kept, feeds)
    with stage.http("operator") as http, stage.http("viewer") as viewer, ending:
        assert viewer.post("/write", content=body).status_code == 403
        assert http.post("/write", params=plant, content=body).status_code == 204
        (found,) = kept.read("x", 0.0, 1e11)
        assert found.labels == plant and found.value == [2.5]
        answer = http.post("/write", content=b"garbage")
        assert answer.status_code == 400 and "snappy" in answer.json()["error"] and answer.json()["hint"]
        v2 = {"content-type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}
        assert http.post("/write", content=body, headers=v2).status_code == 415
        assert viewer.get("/telemetry").json()["received"]["plant"]["taken"] == 1
        mine = stage.token("mine", "operator", ("mine",))
        http.headers["authorization"] = f"Bearer {mine}"
        assert http.post("/write", params=plant, content=body).status_code == 403
    with stage.http() as http:
        assert http.post("/write", content=body).status_code == 502
    kept.close()


def one(state: Any, digest: str = "new", reason: str = "", detail: str = "") -> Replica:
    return Replica(
        id="r1", service="d", variant="main", digest=digest, state=state, reason=reason, detail=detail, since=0.0
    )


@pytest.mark.parametrize(
    ("replicas", "ready", "wanted", "line"),
    [
        ((), 0, 0, "scaled to zero"),
        ((), 0, 2, "0 of 2 ready"),
        ((one("ready"), one("ready")), 2, 2, "2 of 2 ready"),
        ((one("ready"), one("starting")), 1, 2, "1 of 2 ready, 1 starting"),
        ((one("ready", "old"), one("starting")), 0, 1, "0 of 1 ready, 1 starting, 1 of an older revision"),
        ((one("ready"), one("stopping", "old")), 1, 1, "1 of 1 ready, 1 draining"),
        (
            (one("ready"), one("failed", reason="hung", detail="no answer for 2 s")),
            1,
            2,
            "1 of 2 ready; r1 hung: no answer for 2 s",
        ),
    ],
)
def test_the_status_line_says_what_is_ready_on_its_way_and_wrong(
    replicas: tuple[Replica, ...], ready: int, wanted: int, line: str
) -> None:
    assert status_line(replicas, ready, wanted) == line
