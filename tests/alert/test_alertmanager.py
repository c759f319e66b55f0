"""Our alerts in a real Alertmanager (Debian's), its silences and inhibition, and its webhook back to our API."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from alert_world import alert
from waiting import eventually, free_port

from leptonai.ops.alert.export import Exporter, spell
from leptonai.ops.alert.state import fingerprint
from leptonai.settings import Alertmanager
from leptonai.types import Alert

if TYPE_CHECKING:
    from api_stage import Stage

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


CONFIG = """
route: {receiver: leptonai, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}
receivers:
  - name: leptonai
    webhook_configs: [{url: "%s/api/v1/alertmanager", http_config: {authorization: {credentials: "%s"}}}]
inhibit_rules:
  - {source_matchers: ['alertname="Incident"'], target_matchers: ['alertname="SloErrorsBurn"'], equal: [service]}
"""


@pytest.fixture
def manager(stage: Stage, tmp_path: Path) -> Iterator[str]:
    """The URL of an Alertmanager that tells everything to the API of ``stage``."""
    if PROGRAM is None:
        pytest.skip("prometheus-alertmanager is not installed: see tests/setup.sh")
    (tmp_path / "am.yml").write_text(CONFIG % (stage.url, stage.token("am", "operator")))
    port = free_port()
    with (tmp_path / "am.log").open("wb") as log:
        child = subprocess.Popen(
            [PROGRAM, "--config.file=am.yml", "--storage.path=data", f"--web.listen-address=127.0.0.1:{port}",
             "--cluster.listen-address="],
            cwd=tmp_path, stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: child.poll() is not None or answers(url))
        assert child.poll() is None, (tmp_path / "am.log").read_text()
        yield url
    finally:
        child.kill()
        child.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def seen(url: str) -> dict[str, dict[str, Any]]:
    found = httpx.get(f"{url}/api/v2/alerts", trust_env=False).json()
    return {f"{a['labels']['alertname']} {a['labels']['severity']}": a for a in found}


async def post(exporter: Exporter, alerts: list[Alert], now: float) -> None:
    """One round, and the wait for its post, which the real loop does not make."""
    by_name = {fingerprint(a.labels): a for a in alerts}
    exporter.step(by_name, now)
    if exporter._running is not None:
        await asyncio.wait([exporter._running])
    exporter.step(by_name, now)


@pytest.mark.world
def test_a_real_alertmanager_receives_silences_inhibits_and_hears_the_end(manager: str, stage: Stage) -> None:
    now = time.time()
    exporter = Exporter(Alertmanager(url=manager, labels={"site": "north"}))
    incident = alert(since=now - 5, last=now, fired=now - 5, incident=7, summary="digits is ill")
    burn = alert(name="SloErrorsBurn", since=now - 5, last=now, fired=now - 5)
    quiet = alert(name="Muted", since=now - 5, last=now, fired=now - 5, muted="silence 1")
    asyncio.run(post(exporter, [incident, burn, quiet], now))
    assert exporter.failure == ""
    found = seen(manager)
    assert set(found) == {"Incident critical", "SloErrorsBurn critical"}
    told = found["Incident critical"]
    assert told["labels"] == {**incident.labels, "site": "north", "source": "leptonai"}
    assert told["annotations"] == {"summary": "digits is ill", "incident": "7"}
    eventually(lambda: seen(manager)["SloErrorsBurn critical"]["status"]["inhibitedBy"])

    silence = {
        "matchers": [{"name": "service", "value": "digits", "isRegex": False, "isEqual": True}],
        "startsAt": spell(now), "endsAt": spell(now + 600), "createdBy": "ana", "comment": "a new disk",
    }  # fmt: skip
    made = httpx.post(f"{manager}/api/v2/silences", json=silence, trust_env=False).json()["silenceID"]
    eventually(lambda: seen(manager)["Incident critical"]["status"]["silencedBy"] == [made])

    over = alert(state="resolved", since=now - 5, last=now, fired=now - 5, resolved=now, incident=7)
    asyncio.run(post(exporter, [over, burn], now + 1))
    assert exporter.failure == ""
    eventually(lambda: set(seen(manager)) == {"SloErrorsBurn critical"})
    # What came back to us was our own, and opens nothing.
    with stage.http("admin") as http:
        assert http.get("/incidents").json() == []


@pytest.mark.world
def test_alerts_of_somebody_else_become_an_incident_and_close_it(manager: str, stage: Stage) -> None:
    begin = time.time() - 30
    disk = {
        "labels": {"alertname": "DiskFull", "job": "Till 3", "severity": "page"},
        "annotations": {"summary": "2 % left"},
        "startsAt": spell(begin),
    }
    assert httpx.post(f"{manager}/api/v2/alerts", json=[disk], trust_env=False).status_code == 200
    with stage.http("admin") as http:
        (opened,) = eventually(lambda: http.get("/incidents").json())
        assert (opened["subject"], opened["severity"]) == ("default/external/till-3", "critical")
        assert opened["title"] == "DiskFull of till-3"
        assert opened["began"] == pytest.approx(begin, abs=0.01)
        assert "2 % left" in opened["evidence"][0]["text"]
        ended = [disk | {"endsAt": spell(time.time())}]
        httpx.post(f"{manager}/api/v2/alerts", json=ended, trust_env=False)
        eventually(lambda: http.get("/incidents").json()[0]["closed"])
        kinds = [e["kind"] for e in http.get("/events?subject=default/external/till-3").json()]
    assert kinds == ["incident.opened", "incident.closed"]


def payload(*alerts: dict[str, Any], version: Any = "4", **more: Any) -> bytes:
    return json.dumps(
        {"version": version, "status": "firing", "groupKey": "x", "alerts": list(alerts), **more}
    ).encode()


def told(name: str = "DiskFull", status: str = "firing", **labels: str) -> dict[str, Any]:
    return {
        "status": status, "labels": {"alertname": name, "job": "till", **labels}, "annotations": {},
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": f"{name}{labels}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `version`"),
        (payload(version="3"), "version '3'"),
        (payload({"status": "firing"}), "missing required field `labels`"),
        (payload(told() | {"status": "odd"}), "Invalid enum value 'odd'"),
        (payload(told() | {"startsAt": "yesterday"}), "RFC3339"),
        (payload(told() | {"labels": {"job": "x"}}), r"alerts[0] has no label alertname"),
        (payload(told() | {"labels": {"alertname": 7}}), "Expected `str`"),
        (payload(told(long="x" * 20_000)), "more than 10000 characters"),
        (payload(*[told()] * 1001), "1001 alerts, the limit is 1000"),
    ],
)
def test_a_payload_that_is_none_is_refused_clearly_and_opens_nothing(stage: Stage, body: bytes, said: str) -> None:
    with stage.http("operator") as http:
        answer = http.post("/alertmanager", content=body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
        assert http.get("/incidents").json() == []


def test_an_incident_of_two_alerts_closes_with_the_last_and_reopens_as_a_new_one(stage: Stage) -> None:
    with stage.http("operator") as http:

        def send(*alerts: dict[str, Any]) -> list[int]:
            answer = http.post("/alertmanager?workspace=plant", content=payload(*alerts))
            assert answer.status_code == 200, answer.text
            return list(answer.json()["incidents"])

        assert send(told(), told("Slow"), told(source="leptonai")) == [1]
        assert send(told(status="resolved")) == [1]
        assert http.get("/incidents/1").json()["closed"] is None
        assert send(told("Slow", status="resolved")) == [1]
        assert http.get("/incidents/1").json()["closed"] is not None
        assert send(told("Slow", status="resolved")) == []
        assert send(told()) == [2]
        assert http.get("/incidents/2").json()["subject"] == "plant/external/till"


def test_what_fires_is_repeated_and_a_rising_severity_ends_the_old_alert() -> None:
    exporter = Exporter(Alertmanager(url="http://x", resend=60.0))
    low, high = alert(severity="warning"), alert()
    name = fingerprint(low.labels)
    assert list(exporter.due({name: low}, 0.0)) == [name]
    exporter._sent = {name: (low, 0.0)}
    assert exporter.due({name: low}, 59.0) == {}
    assert list(exporter.due({name: low}, 60.0)) == [name]
    both = exporter.due({name: high}, 10.0)
    assert [(a.labels["severity"], a.state) for a in both.values()] == [("critical", "firing"), ("warning", "resolved")]
    from_them = alert(labels={"source": "alertmanager"})
    assert exporter.due({"x": from_them}, 0.0) == {}
