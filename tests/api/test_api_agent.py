"""An agent and an import over real HTTP, the link down and up again; the platform's own page of metrics."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_api_signals import ops

from leptonai.api.telemetry import joined
from leptonai.ops.agent.buffer import Buffer
from leptonai.ops.agent.run import Agent
from leptonai.ops.alert.page import families
from leptonai.ops.feeds import Feeds
from leptonai.ops.page import text as text_of
from leptonai.ops.sheet import read_sheet
from leptonai.platforms.embedded import Embedded
from leptonai.platforms.prometheus.encode import encode, label_bytes
from leptonai.runtime.metrics import Metrics
from leptonai.settings import Settings
from leptonai.types import Alert

if TYPE_CHECKING:
    from api_stage import Stage


def test_what_an_agent_saw_while_the_link_was_down_arrives_in_order_and_once(stage: Stage, tmp_path: Path) -> None:
    kept = Embedded(tmp_path / "telemetry")
    feeds = Feeds(tmp_path, Settings(), kept, time.time)
    secret = stage.token("plant", "operator", ("plant",))
    log = tmp_path / "press.log"
    log.write_text("")
    now = [time.time() - 100.0]
    buffer = Buffer(tmp_path / "buffer", "press-3", 10_000_000)
    agent = Agent(buffer, stage.url, secret, workspace="plant", logs=[log], processes=["python"], clock=lambda: now[0])
    for i in range(5):
        now[0] += 1.0
        with log.open("a") as out:
            out.write(f"stroke {i}\n")
        agent.step()
        assert agent.send() == "retry"  # ops is not there: 502
    assert len(buffer.waiting()) == 5
    with ops(stage.home / "ops.sock", kept, feeds):
        first = buffer.waiting()[0].read_bytes()
        assert agent.send() == "all" and buffer.waiting() == []
        with stage.http(None, authorization=f"Bearer {secret}") as http:
            again = http.post("/agent?workspace=plant", content=first, headers={"content-encoding": "gzip"})
            assert again.json() == {"taken": False}
            assert http.post("/agent?workspace=other", content=first).status_code == 403
            query = {"name": "host_memory_used_ratio", "start": "0", "end": "1e11", "workspace": "plant"}
            (mine,) = http.get("/signals", params=query).json()  # what it sent, it can read
            assert len(mine["at"]) == 5 and mine["labels"] == {"host": "press-3", "workspace": "plant"}
            assert http.get("/signals", params=query | {"workspace": "other"}).status_code == 403
            assert "process_running_count" in http.get("/signals/names").json()
            assert set(http.get("/telemetry").json()["received"]) == {"plant"}
        other = stage.token("other", "viewer", ("other",))
        with stage.http(None, authorization=f"Bearer {other}") as http:
            assert http.get("/signals", params={k: v for k, v in query.items() if k != "workspace"}).json() == []
            assert "host_memory_used_ratio" not in http.get("/signals/names").json()
            assert http.get("/telemetry").json() == {"received": {}}
    assert [r.body for r in feeds.logs.take(100)] == [f"stroke {i}" for i in range(5)]
    agent.close()
    wrong = Agent(Buffer(tmp_path / "buffer", "press-3", 10_000_000), stage.url, "no-token", workspace="plant")
    wrong.step()
    assert wrong.send() == "retry" and len(list((tmp_path / "buffer").glob("*.batch"))) == 1
    wrong.close()
    feeds.close()
    kept.close()


def test_an_imported_file_can_be_read_however_old_it_is(stage: Stage, tmp_path: Path) -> None:
    kept = Embedded(tmp_path / "telemetry")
    feeds = Feeds(None, Settings(), kept, time.time)
    path = tmp_path / "old.csv"
    path.write_text("time,temp\n" + "".join(f"{1_000_000_000 + i},{i}\n" for i in range(100)))
    ((name, labels, samples),) = read_sheet(path).series
    body = encode([(label_bytes(name, labels), list(zip(samples.at.tolist(), samples.value.tolist(), strict=True)))])
    with stage.client() as client, ops(stage.home / "ops.sock", kept, feeds):
        client.import_samples(body, "plant")
        client.import_samples(b"", "plant")
        (found,) = client.signals("temp", 1e9, 1e9 + 200)
        assert found.value == [float(i) for i in range(100)] and found.labels == {"workspace": "plant"}
        assert client.telemetry()["received"]["plant"]["taken"] == 100
    kept.close()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus is not installed: tests/setup.sh")
def test_every_page_of_ours_is_valid(stage: Stage, tmp_path: Path) -> None:
    kept = Embedded(tmp_path / "telemetry")
    feeds = Feeds(None, Settings(), kept, time.time)
    feeds.receiver.count("plant", 'odd"\\\n', 3)
    stage.service()
    with stage.http() as http, ops(stage.home / "ops.sock", kept, feeds):
        page = http.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    with stage.http() as http:
        alone = http.get("/metrics").text
    assert 'process="ops"' in page.text and 'process="ops"' not in alone
    own = 'workspace="default",service="digits"'
    assert f'leptonai_held_requests{{{own},variant="main"}} 0.0' in alone.splitlines(), "told at zero too: KEDA asks"
    assert f'leptonai_ready_replicas{{{own},lane="main"}} ' in alone
    gauges = {"leptonai_in_flight": 1.0, "leptonai_queued": 0.0, "leptonai_heartbeat_age_seconds": 0.0}
    replica = Metrics().text(gauges, 0).decode()
    alert = Alert(labels={"alertname": "A", "severity": 'odd"'}, state="firing", since=0.0, last=0.0)
    promises = text_of(families({"digits": (5.0, {"errors": 1.0, "latency": 0.0})}, [alert]))
    for text in (page.text, alone, replica, promises):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and not done.stderr, done.stderr + done.stdout
    kept.close()


def test_pages_joined_tell_each_metric_once() -> None:
    one = '# HELP a A.\n# TYPE a gauge\na{x="1"} 1\n'
    assert joined(one, one.replace('"1"', '"2"')) == '# HELP a A.\n# TYPE a gauge\na{x="1"} 1\na{x="2"} 1\n'
