"""What many outcomes come to, what simpler operators would have made of them, and the label that each leaves."""

from typing import Any

import msgspec

from leptonai.drill.baselines import always_restart, baselines, rules_only, threshold_only
from leptonai.drill.outcome import Outcome
from leptonai.drill.review import review_of
from leptonai.drill.score import confusion, score
from leptonai.types import Action, Anomaly, Cause, Evidence, Incident


def incident(*signals: str, cause: str = "hung_replica", **fields: Any) -> Incident:
    given: dict[str, Any] = {
        "id": 7,
        "subject": "default/service/digits",
        "severity": "warning",
        "title": "",
        "began": 1.0,
        "opened": 2.0,
        "anomalies": tuple(Anomaly(signal=s, labels={}, began=1.0, last=2.0, score=9.0) for s in signals),
        "causes": (
            Cause(name=cause, subject="r1", confidence=0.9),
            Cause(name="traffic_surge", subject="x", confidence=0.2),
        ),
        "actions": (Action(remedy="evict", proposal="p", at=3.0, verdict="effective"),),
    }
    return Incident(**{**given, **fields})


def outcome(kind: str, *incidents: Incident, **fields: Any) -> Outcome:
    given = {"kind": kind, "fault": kind, "injected": 0.0, "target": "r1", "incidents": incidents}
    return Outcome(**{**given, **fields})


STOP = outcome("stop", incident("replica_hung"), cause="hung_replica", first=True, first_two=True, detect=2.0, acts=1)
SLOW = outcome(
    "slow", incident("burn_latency", cause="traffic_surge"), cause="traffic_surge", detect=9.0, acts=1, harm=("x",)
)
NONE = outcome("drift")
CALM = outcome("calm")
ALARM = outcome("deploy", incident("burn_errors"), noise=("incident 7 too many",), acts=1)


def test_shares_are_of_faults_and_controls_count_by_themselves() -> None:
    said = score([STOP, SLOW, NONE, CALM, ALARM])
    assert (said["first"]["count"], said["first"]["of"]) == (1, 3)
    assert 0.0 < said["first"]["low"] < 1 / 3 < said["first"]["high"] < 1.0
    assert said["harmful_acts"]["share"] == 1 / 3
    assert (said["controls_acted_on"]["count"], said["controls_acted_on"]["of"]) == (1, 2)
    assert (said["controls_alarmed"]["count"], said["detected"]["count"]) == (1, 2)
    assert said["kinds"]["slow"] | {"runs": 1} == said["kinds"]["slow"]
    assert score([])["first"]["share"] is None


def test_what_nobody_could_notice_is_counted_apart() -> None:
    unfelt = msgspec.structs.replace(NONE, felt=False)
    said = score([STOP, unfelt, msgspec.structs.replace(unfelt, detect=3.0)])
    assert (said["first"]["of"], said["first_of_all"]["of"], said["unfelt"]["of"]) == (1, 3, 2)
    assert said["unfelt"]["count"] == 1 and "drift" not in said["kinds"] and "data_drift" not in said["confusion"]
    assert baselines([STOP, unfelt]) == baselines([STOP])


def test_confusion_tells_what_was_named_instead() -> None:
    assert confusion([STOP, SLOW, NONE, CALM, ALARM]) == {
        "hung_replica": {"hung_replica": 1},
        "bad_revision_latency": {"traffic_surge": 1},
        "data_drift": {"nothing": 1},
        "nothing": {"nothing": 2},
    }


def test_baselines_follow_their_stated_rules() -> None:
    assert always_restart(None) == ("", "") and always_restart(incident()) == ("", "restart")
    assert threshold_only(incident("burn_errors", "replica_hung")) == ("hung_replica", "evict")
    assert threshold_only(incident("anomaly_rate")) == ("", "person")
    facts = {"about": "service", "subject": "digits", "nan_share": 0.4}
    told = incident(evidence=(Evidence(id="e1", kind="signal", at=1.0, text="", data=facts),))
    assert rules_only(told) == ("nan_outputs", "evict")
    assert rules_only(incident()) == ("", "evict")
    table = baselines([STOP, SLOW, NONE, CALM, ALARM])
    assert table["always-restart"] == {"cause": 0.0, "remedy": 1 / 3, "harm": 2 / 5}  # the slow revision, the control
    assert table["threshold-only"]["cause"] == 1 / 3
    chance = table["chance"]["cause"]
    assert chance is not None and 0.0 < chance < 0.1


def test_an_incident_is_labelled_with_the_truth_and_its_hypotheses_judged() -> None:
    request = review_of(SLOW, SLOW.incidents[0])
    assert request.source == "drill" and request.cause == "bad_revision_latency"
    assert request.hypotheses["traffic_surge"] is False and request.analysis == SLOW.incidents[0].analysis
    right = review_of(STOP, STOP.incidents[0])
    assert right.cause == "hung_replica" and right.hypotheses["hung_replica"] is True


def test_an_outcome_survives_its_file() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SLOW), type=Outcome) == SLOW
