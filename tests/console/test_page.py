"""The pages' facts are pure functions of the API's answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from leptonai.client.learnt import FOLDER, LEARNT, HeldOut, Learnt, RuleLearnt
from leptonai.console import page
from leptonai.console.app import templates

if TYPE_CHECKING:
    from api_stage import Stage

NOW = 1_000_000.0


def replica(id: str, state: str, **more: object) -> dict[str, object]:
    return {"id": id, "variant": "main", "state": state, "reason": "", "detail": "", "since": NOW - 5, "started": 1.0,
            "pid": 7, "digest": "ab" * 8, **more}  # fmt: skip


def wish(name: str = "digits", wanted: int = 2, *replicas: dict[str, object]) -> dict[str, object]:
    spec = {"name": name, "workspace": "default", "slo": {}, "variants": [{"name": "main"}]}
    dials = {"variants": {"main": {"replicas": wanted, "weight": 1.0, "mirror": 0.0, "epoch": 0}}, "evict": []}
    return {"service": {"spec": spec, "dials": dials, "revision": 3}, "replicas": list(replicas)}


def incident(**more: object) -> dict[str, object]:
    return {"id": 1, "subject": "default/service/digits", "severity": "critical", "title": "digits is slow",
            "began": NOW - 10, "opened": NOW - 8, "diagnosed": NOW - 7, "mitigated": None, "closed": None,
            "escalated": None, "anomalies": [], "evidence": [], "causes": [], "actions": [], "summary": "",
            **more}  # fmt: skip


@pytest.mark.parametrize(
    ("then", "text"),
    [(None, "–"), (NOW, "0 s"), (NOW - 119, "119 s"), (NOW - 180, "3 min"), (NOW - 9e4, "25 h"), (NOW - 3e5, "3 d")],
)
def test_ago_says_a_time_in_its_largest_fitting_unit(then: float | None, text: str) -> None:
    assert page.ago(then, NOW) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (math.nan, "–"), (0.0851, "85 ms"), (2.44, "2.4 s")])
def test_seconds(value: float | None, text: str) -> None:
    assert page.seconds(value) == text


@pytest.mark.parametrize(
    ("states", "mood", "ready"),
    [(["ready", "ready"], "good", 2), (["ready", "starting"], "warn", 1), (["failed"], "bad", 0)],
)
def test_a_service_is_good_only_when_as_many_are_ready_as_wished(states: list[str], mood: str, ready: int) -> None:
    row = page.service(wish("digits", 2, *(replica(str(n), s) for n, s in enumerate(states))), NOW)
    assert (row["mood"], row["ready"], row["wanted"]) == (mood, ready, 2)


def test_spans_of_an_incident_count_from_onset_and_from_opening() -> None:
    seen = page.incident(incident(mitigated=NOW - 2), NOW)
    assert (seen["detect"], seen["diagnose"], seen["recover"], seen["state"]) == (2, 1, 6, "open")


def test_advice_shows_each_limit_and_its_proposal() -> None:
    limit = {"name": "compute", "what": "the compute threads of 2 replicas", "load": 97.0, "low": 80.0, "high": 117.0,
             "first_share": 0.98, "why": "20 ms of one for a request"}  # fmt: skip
    unknown = {**limit, "load": None, "why": "<b>x</b>"}
    change = {"text": "3 replicas", "after": 145.0, "then": "compute", "needed": True}
    advice = {"service": "digits", "peak": 70.0, "first": limit, "limits": [limit, unknown], "proposal": change,
              "cannot_tell": ["features: <b>x</b>"], "told": "3 replicas"}  # fmt: skip
    shown = templates().get_template("advice.html").render(advice=advice, trouble="")
    assert "97 requests/s" in shown and "98 %" in shown and "--propose" in shown and "<b>x</b>" not in shown
    bare = {**advice, "first": None, "limits": [], "proposal": None, "told": ""}
    assert "cannot be told yet" in templates().get_template("advice.html").render(advice=bare, trouble="")
    assert "ops is away" in templates().get_template("advice.html").render(advice=None, trouble="ops is away")


def test_markup_in_evidence_and_logs_is_shown_not_run() -> None:
    """Text from outside reaches a page escaped."""
    attack = "<script>alert(1)</script>"
    evidence = [{"id": "e1", "kind": "log", "at": NOW, "text": attack, "data": {}}]
    causes = [{"name": "unknown", "subject": attack, "confidence": 0.5, "evidence": ["e1"]}]
    view = page.overview([wish()], [incident(title=attack, evidence=evidence, causes=causes)], {}, NOW)
    html = templates().get_template("home.html").render(now=NOW, **view)
    assert attack not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3


def test_a_classifier_is_shown_by_cause_with_what_each_was_taken_for() -> None:
    of = {"incidents": 4, "precision": 1.0, "recall": 0.5, "f1": 0.67}
    found = {
        "version": "shipped", "counts": False, "weights": {"svm": 0.25, "rules": 0.25}, "about": {}, "broken": "<b>",
        "held_out": {
            "incidents": 7, "first": 0.7, "first_two": 0.9, "macro_f1": 0.8, "interval": [0.7, 0.9],
            "calibration": 0.02,
            "causes": {"disk_full": {**of, "f1": 1.0, "incidents": 3}, "retry_storm": of},
            "confusion": {"retry_storm": {"retry_storm": 2, "unknown": 2}, "disk_full": {"disk_full": 3}}, "bins": [],
        },
    }  # fmt: skip
    view = page.classifier(found)
    assert [(r["cause"], r["taken"]) for r in view["rows"]] == [("retry_storm", "unknown 2"), ("disk_full", "")]
    assert view["said"] == ["disk_full", "retry_storm", "unknown"]
    assert view["matrix"] == [("disk_full", [3, 0, 0]), ("retry_storm", [0, 2, 2])]
    html = templates().get_template("classifier.html").render(now=NOW, learnt={"at": 0.0}, **view)
    assert "the rules' alone" in html and "&lt;b&gt;" in html and "unknown 2" in html
    none = {"version": "", "counts": False, "weights": {}, "about": {}, "held_out": None, "broken": ""}
    assert "the rules stand alone" in templates().get_template("classifier.html").render(
        now=NOW, learnt={"at": 0.0}, **page.classifier(none)
    )


def test_what_reviews_have_changed_is_shown_before_and_after(stage: Stage) -> None:
    token = stage.token("ana", "viewer")
    with httpx.Client(headers={"authorization": f"Bearer {token}"}, trust_env=False) as http:
        assert "Nothing was learnt yet" in http.get(f"{stage.url}/console/classifier").text
        rule = RuleLearnt(
            cause="crash_loop", about="replica", when="gone and crashes >= 2 <b>", declared=0.98, alone=0.98,
            beside=0.3, right=0, wrong=0, right_beside=0, wrong_beside=18, limits={"crashes >= 2": "crashes >= 3"},
        )  # fmt: skip
        found = Learnt(
            at=NOW, reviews=20, incidents=20, in_force=True, why="it holds", rules=(rule,),
            orders={"hung_replica": (("evict", "restart"), ("restart", "evict"))},
            causes={"bad_config": HeldOut(incidents=5, before=0, after=5)},
            total=HeldOut(incidents=20, before=2, after=19),
        )  # fmt: skip
        (stage.home / FOLDER).mkdir()
        (stage.home / FOLDER / LEARNT).write_bytes(msgspec.json.encode(found))
        text = http.get(f"{stage.url}/console/classifier").text
    for told in ("in force", "<td>5</td><td>0</td><td>5</td>", "<td>20</td><td>2</td><td>19</td>", "crashes &gt;= 3"):
        assert told in text
    assert "restart, evict" in text and "<b>" not in text.replace("<b>crashes", "")
