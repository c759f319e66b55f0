"""The console as a person meets it: a real browser, a real login, a page that changes by itself."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from test_api_signals import ops

from leptonai.client.wire import Desk, FeedbackRequest
from leptonai.ops.alert.pager import Pager
from leptonai.ops.alert.sources import incident_condition
from leptonai.ops.alert.state import Condition
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Alerts, Receiver, Settings
from leptonai.types import Action, Alert, Anomaly, Cause, Evidence, Incident, Reason, Signal

if TYPE_CHECKING:
    from api_stage import Stage
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ATTACK = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the console is not tested in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, stage: Stage) -> Iterator[Page]:
    """A page that has logged in; whatever its scripts complain about fails the test."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if "Content Security" in m.text else None)
    with stage.http() as http:
        page.goto(http.post("/sessions").json()["url"])
    yield page
    assert not problems
    context.close()


def incident(now: float) -> Incident:
    return Incident(
        id=0,
        subject="default/service/digits",
        severity="critical",
        title="Revision digits#2 answers wrongly",
        began=now - 9,
        opened=now - 6,
        diagnosed=now - 6,
        anomalies=(
            Anomaly(signal="label_error_ratio", labels={"service": "digits"}, began=now - 9, last=now, score=7),
        ),
        evidence=(Evidence(id="e1", kind="labels", at=now, text=f"Of 10 labelled answers 10 are wrong. {ATTACK}"),),
        causes=(Cause(name="bad_revision_wrong_answers", subject="digits#2", confidence=0.95, evidence=("e1",)),),
        actions=(Action(remedy="rollback", proposal="p-1", at=now - 5),),
    )


def test_the_page_shows_services_replicas_and_incidents_and_follows_the_world(page: Page, stage: Stage) -> None:
    stage.service("digits")
    page.wait_for_selector("#services tr:has-text('digits') .chip.ready")
    assert "0 open incidents" in page.inner_text("#open-count")
    made = stage.store.put_incident(incident(time.time()))
    page.wait_for_selector("#incidents .incident.open")
    shown = page.inner_text("#incidents")
    for text in ("answers wrongly", "bad_revision_wrong_answers", "10 are wrong", "rollback", "being verified"):
        assert text in shown
    assert "1 open incident" in page.inner_text("#open-count")
    page.click("#incidents a")
    page.wait_for_selector("h1:has-text('answers wrongly')")
    assert page.url.endswith(f"/console/incidents/{made.id}")
    assert ATTACK in page.inner_text("main"), "what came from outside is shown as text"
    assert page.title() == f"incident {made.id} · leptonai"


def test_an_incident_is_reviewed_with_a_few_clicks(page: Page, stage: Stage) -> None:
    """Right and wrong, another cause, what the remedy did; what is refused is said on the page; text stays text."""
    made = stage.store.put_incident(incident(time.time()))
    page.goto(f"{stage.url}/console/incidents/{made.id}")
    page.click("#review button")
    page.wait_for_selector("#review-said.bad:has-text('says nothing')")
    page.check("input[name='hypothesis:bad_revision_wrong_answers'][value=wrong]")
    page.fill("#review input[name=cause]", "weather")
    page.click("#review button")
    page.wait_for_selector("#review-said:has-text(\"no such cause 'weather'\")")
    page.fill("#review input[name=cause]", "data_drift")
    page.check("input[name='remedy:rollback'][value=ineffective]")
    page.fill("#review input[name=note]", ATTACK)
    page.click("#review button")
    page.wait_for_selector("#reviews li")
    shown = page.inner_text("#reviews")
    for text in ("it was data_drift", "bad_revision_wrong_answers wrong", "rollback ineffective", ATTACK):
        assert text in shown
    (kept,) = stage.store.reviews(made.id)
    assert (kept.cause, kept.hypotheses) == ("data_drift", {"bad_revision_wrong_answers": False})
    assert kept.analysis == made.analysis
    assert page.title() == f"incident {made.id} · leptonai"


def test_a_review_sent_by_another_site_is_refused(page: Page, stage: Stage) -> None:
    made = stage.store.put_incident(incident(time.time()))
    cookies = {c["name"]: c["value"] for c in page.context.cookies()}
    with httpx.Client(base_url=stage.url, cookies=cookies, trust_env=False) as foreign:
        answer = foreign.post(
            f"/api/v1/incidents/{made.id}/review",
            json={"cause": "disk_full"},
            headers={"origin": "http://evil.example"},
        )
    assert (answer.status_code, answer.json()["code"]) == (403, "origin")
    assert stage.store.reviews(made.id) == []


def test_an_issue_is_taken_and_said_to_be_repaired(page: Page, stage: Stage) -> None:
    stage.service("digits")
    with stage.client("operator") as client:
        client.send_feedback([FeedbackRequest(about="a", service="digits", note=f"slow answers {ATTACK}")])
    page.goto(f"{stage.url}/console")
    page.click("header a:has-text('issues')")
    page.wait_for_selector("#issues form")
    assert ATTACK in page.inner_text("#issues")
    page.fill("#issues input[name=owner]", "ana")
    page.select_option("#issues select", "fixed")
    page.click("#issues button")
    page.wait_for_selector("#said.bad:has-text('which revision repairs it')")
    page.fill("#issues input[name=revision]", "1")
    page.click("#issues button")
    page.wait_for_selector("#issues .chip:has-text('fixed')")
    (kept,) = stage.store.issues()
    assert (kept.owner, kept.state, kept.revision) == ("ana", "fixed", 1)
    assert page.title() == "issues · leptonai"


def test_a_service_page_tells_its_history_and_its_decisions(page: Page, stage: Stage) -> None:
    stage.service("digits")
    page.wait_for_selector("#services tr:has-text('digits') .chip.ready")
    page.click("#services a")
    page.wait_for_selector("h1:has-text('digits')")
    shown = page.inner_text("main")
    for text in ("Revisions", "a test", "proposal.admitted", "1 / 1 ready"):
        assert text in shown


def test_a_signal_is_shown_with_its_band_its_anomalies_and_why(page: Page, stage: Stage) -> None:
    """The level is steady but for one value far out: one dot, and the detectors' words, which may hold anything."""
    kept, now = Memory(), time.time()
    noise = random.Random(5)
    for i in range(400):
        value = 0.9 if i == 380 else 0.05 + 0.002 * noise.gauss(0, 1)
        labels = {"service": "digits"}
        kept.write([Signal(name="latency_p99_seconds", labels=labels, at=now - 400 + i, value=value)])
    told = Anomaly(
        signal="latency_p99_seconds", labels={"service": "digits"}, began=now - 20, last=now, score=9.0,
        detail=f"0.9, expected 0.05 {ATTACK}", reasons=(Reason(detector="mahalanobis", score=9.0, share=0.6),),
    )  # fmt: skip
    with ops(stage.home / "ops.sock", kept, anomalies=lambda: [told]):
        page.goto(f"{stage.url}/console/signals")
        page.click("a:has-text('latency_p99_seconds')")
        page.wait_for_selector("#judged figure[data-odd]")
        assert page.get_attribute("#judged figure", "data-odd") == "1"
        assert page.locator("#judged canvas").count() == 1
        shown = page.inner_text("#judged")
        for text in ("service=digits", "mahalanobis 9.0 (60 % of it)", "expected 0.05", "in 5 min", ATTACK):
            assert text in shown
        page.fill("input[name=name]", "no_such_signal")
        page.click("form button")
        page.wait_for_selector("#judged :text('nothing was heard of it')")
    assert page.title() == "no_such_signal · leptonai"


def test_without_a_session_the_console_shows_nothing_but_the_way_in(stage: Stage) -> None:
    stage.service("digits")
    with httpx.Client(base_url=stage.url, trust_env=False) as stranger:
        for path in (
            "/console",
            "/console/live",
            "/console/services/digits",
            "/console/incidents/1",
            "/console/signals",
            "/console/alerts",
            "/console/alerts/live",
        ):
            answer = stranger.get(path)
            assert answer.status_code == 401
            assert "leptonai console" in answer.text
            assert "digits" not in answer.text
        assert stranger.get("/").headers["location"] == "/console"


def test_what_is_not_there_is_said_on_a_page(page: Page, stage: Stage) -> None:
    answer = page.goto(f"{stage.url}/console/incidents/99")
    assert answer is not None
    assert answer.status == 404
    assert "99" in page.inner_text("h1")


def test_alerts_are_shown_with_who_is_told_silenced_and_acknowledged_by_buttons(page: Page, stage: Stage) -> None:
    """The alerts are ops' own, decided by the real pager from an incident and from what the buttons made of it."""
    made = stage.store.put_incident(incident(time.time()))
    wanted = Settings(alerts=Alerts(receivers=(Receiver(name="ana"),), owners={"*": "ana"}, keep_firing=1.0))
    pager = Pager(wanted, None, None, str)  # type: ignore[arg-type] - nothing is asked of control here
    quiet = Condition(labels={"alertname": "HostDown", "host": 'till "3"', "severity": "critical"}, summary=ATTACK)

    def look() -> list[Alert]:
        acks = tuple(stage.store.acks([made.id]))
        pager.desk = Desk(silences=tuple(stage.store.silences(after=time.time())), acks=acks, external=())
        pager.decide(time.time(), [incident_condition(made), quiet], lambda: (), {})
        return pager.alerts

    with ops(stage.home / "ops.sock", Memory(), alerts=look):
        page.goto(f"{stage.url}/console")
        page.click("header a:has-text('alerts')")
        row = "tr.alert:has-text('Revision digits#2')"
        page.wait_for_selector(f"{row}[data-state=firing]")
        assert "ana" in page.inner_text(row)
        assert ATTACK in page.inner_text("#alerts")
        page.click(f"{row} button:has-text('silence')")
        page.wait_for_selector("#alerts-said.bad:has-text('a comment')")
        page.fill("#silence input[name=comment]", "a new disk")
        page.click(f"{row} button:has-text('silence')")
        page.wait_for_selector(f"{row}[data-state=silenced]")
        assert "nobody: silence 1" in page.inner_text(row)
        assert "a new disk" in page.inner_text("tr.silence")
        page.click(f"{row} button:has-text('acknowledge')")
        page.wait_for_selector(f"{row}:has-text('acknowledged by human:admin')")
        page.fill("#silence input[name=comment]", "odd names too")
        page.click("tr.alert:has-text('till') button:has-text('silence')")
        page.wait_for_selector("tr.alert[data-state=silenced]:has-text('till')")
        page.click("tr.silence:has-text('a new disk') button")
        page.wait_for_selector(f"{row}[data-state=firing]")
    assert [s.comment for s in stage.store.silences(after=time.time())] == ["odd names too"]
    assert [a.by for a in stage.store.acks([made.id])] == ["human:admin"]
    page.wait_for_selector("#alerts:has-text('ops does not')")  # it is away: that is said, and silences stay
    assert "odd names too" in page.inner_text("tr.silence")
    assert page.title() == "alerts · leptonai"
