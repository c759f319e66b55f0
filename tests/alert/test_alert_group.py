from __future__ import annotations

from typing import Any

import pytest
from alert_world import alert
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from leptonai.errors import SpecError
from leptonai.ops.alert.escalate import escalate
from leptonai.ops.alert.group import Groups, Notification, delivered, dispatch, given_up
from leptonai.ops.alert.inhibit import SHIPPED, compile_rules, inhibited, upstreams
from leptonai.ops.alert.message import compose
from leptonai.ops.alert.route import compile_policy, owner_of, routes_of
from leptonai.ops.alert.state import fingerprint
from leptonai.settings import AlertRoute, Alerts, EscalationStep, Inhibit, Receiver
from leptonai.types import Ack, Alert

TEAM = Alerts(receivers=(Receiver(name="team"),), owners={"*": "team"})


def named(*alerts: Alert) -> dict[str, Alert]:
    return {fingerprint(a.labels): a for a in alerts}


def run(
    looks: list[tuple[float, list[Alert]]], wanted: Alerts = TEAM, arrives: bool = True
) -> list[tuple[float, Notification]]:
    """The messages made, each delivered at once when ``arrives``."""
    groups: Groups = {}
    out: list[tuple[float, Notification]] = []
    policy = compile_policy(wanted)
    for now, alerts in looks:
        groups, made = dispatch(groups, named(*alerts), policy, wanted, now)
        for message in made:
            out.append((now, message))
            if arrives:
                groups = delivered(groups, message)
    return out


def every(start: float, end: float, *alerts: Alert, step: float = 10.0) -> list[tuple[float, list[Alert]]]:
    return [(start + n * step, list(alerts)) for n in range(int((end - start) / step))]


def test_what_breaks_together_is_told_together_after_the_group_wait() -> None:
    one, two = alert(name="A"), alert(name="B", severity="warning")
    told = run([(0.0, [one]), *every(10.0, 200.0, one, two)])
    assert [(at, len(m.firing), m.why) for at, m in told] == [(30.0, 2, "new")]
    assert told[0][1].labels == {"workspace": "default", "service": "digits"}


def test_changes_wait_for_the_group_interval_and_nothing_new_for_the_repeat_interval() -> None:
    one, two = alert(name="A"), alert(name="B")
    looks = every(0.0, 100.0, one) + every(100.0, 20_000.0, one, two)
    assert [(at, m.why) for at, m in run(looks)] == [
        (30.0, "new"), (330.0, "more fires"), (14_730.0, "repeated"),
    ]  # fmt: skip


def test_the_end_is_told_once_and_only_to_who_knew_of_the_beginning() -> None:
    one, over = alert(), alert(state="resolved", resolved=100.0)
    told = run(every(0.0, 100.0, one) + every(100.0, 900.0, over))
    assert [(at, m.why, len(m.resolved)) for at, m in told] == [(30.0, "new", 0), (330.0, "resolved", 1)]
    assert run(every(0.0, 20.0, one) + every(20.0, 900.0, over)) == []  # over before the group wait
    quiet = replace(TEAM, receivers=(Receiver(name="team", resolved=False),))
    assert [m.why for _, m in run(every(0.0, 100.0, one) + every(100.0, 900.0, over), quiet)] == ["new"]


def test_what_comes_back_is_news_again() -> None:
    one, over = alert(), alert(state="resolved", resolved=100.0)
    told = run(every(0.0, 100.0, one) + every(100.0, 600.0, over) + every(600.0, 1200.0, one))
    assert [m.why for _, m in told] == ["new", "resolved", "more fires"]


def test_a_rising_severity_is_news() -> None:
    told = run(every(0.0, 100.0, alert(severity="warning")) + every(100.0, 900.0, alert()))
    assert [m.why for _, m in told] == ["new", "more fires"]


def test_a_message_that_did_not_arrive_is_made_again_at_the_next_interval() -> None:
    told = run(every(0.0, 700.0, alert()), arrives=False)
    assert [(at, m.why) for at, m in told] == [(30.0, "new"), (330.0, "new"), (630.0, "new")]


def test_the_first_match_wins_unless_it_says_continue_and_children_inherit() -> None:
    wanted = Alerts(
        receivers=tuple(Receiver(name=n) for n in ("team", "shop", "audit", "night")),
        route=AlertRoute(
            receiver="team",
            group_wait=5.0,
            routes=(
                AlertRoute(matchers=("severity=~critical",), receiver="audit", proceed=True),
                AlertRoute(
                    matchers=('service=~"shop.*"',),
                    receiver="shop",
                    group_by=("alertname",),
                    routes=(AlertRoute(matchers=("alertname=Night",), receiver="night"),),
                ),
                AlertRoute(matchers=("service=shop",), receiver="team"),
            ),
        ),
    )
    root = compile_policy(wanted).root

    def to(found: Alert) -> list[str]:
        return [n.receiver for n in routes_of(root, found.labels)]

    assert to(alert("digits", severity="warning")) == ["team"]
    assert to(alert("digits")) == ["audit"]
    assert to(alert("shop")) == ["audit", "shop"]
    assert to(alert("shop", name="Night", severity="info")) == ["night"]
    night = next(iter(routes_of(root, alert("shop", name="Night", severity="info").labels)))
    assert (night.group_wait, night.group_by, night.group_interval) == (5.0, ("alertname",), 300.0)


def test_a_service_has_an_owner_its_workspace_has_and_all_have() -> None:
    owners = {"digits": "ana", "plant/*": "bo", "*": "team"}
    assert [owner_of(k, owners) for k in ("digits", "plant/press", "letters", "")] == ["ana", "bo", "team", "team"]
    assert owner_of("digits", {}) == ""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"owners": {"digits": "bob"}}, "no receiver 'bob'"),
        ({"route": AlertRoute(receiver="bob")}, r"alerts.route.receiver: there is no receiver 'bob'"),
        ({"route": AlertRoute(routes=(AlertRoute(matchers=("x",)),))}, r"alerts.route.routes\[0\].matchers: 'x'"),
        ({"route": AlertRoute(matchers=("a=b",))}, "the root takes every alert"),
        ({"receivers": (Receiver(name="a"), Receiver(name="a"))}, "taken twice"),
        ({"receivers": (Receiver(name="owner"),)}, "'owner'"),
        ({"escalation": (EscalationStep(after=1.0, receiver="bob"),)}, "no receiver 'bob'"),
        ({"inhibit": (Inhibit(source=("x",), target=("a=b",)),)}, "'x' is no matcher"),
        ({"group_wait": -1.0}, "alerts.group_wait is -1"),
        ({"repeat_interval": float("nan")}, "alerts.repeat_interval is nan"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        compile_policy(Alerts(**wrong))


def test_who_is_broken_upstream_speaks_for_those_who_call_it() -> None:
    depends = upstreams([("shop", "prices"), ("prices", "db"), ("web", "shop")])
    assert depends["web"] == {"shop", "prices", "db"}
    found = named(alert("db"), alert("shop", name="Slow"), alert("web"), alert("other"))
    why = inhibited(found, SHIPPED, depends)
    assert sorted(found[f].labels["service"] for f in why) == ["shop", "web"]
    assert all("of db, which it calls" in text for text in why.values())
    calm = named(alert("db", severity="warning"), alert("shop"))
    assert inhibited(calm, SHIPPED, depends) == {}
    over = named(alert("db", state="resolved"), alert("shop"))
    assert inhibited(over, SHIPPED, depends) == {}


def test_services_that_call_each_other_do_not_silence_each_other() -> None:
    depends = upstreams([("a", "b"), ("b", "a")])
    assert inhibited(named(alert("a"), alert("b")), SHIPPED, depends) == {}


def test_a_host_that_is_down_speaks_for_its_services() -> None:
    down = Alert(
        labels={"alertname": "HostDown", "host": "h1", "severity": "critical"}, state="firing", since=0.0, last=0.0
    )
    found = named(down, alert("digits", labels={"host": "h1"}), alert("letters", labels={"host": "h2"}))
    why = inhibited(found, SHIPPED, {})
    assert [found[f].labels["service"] for f in why] == ["digits"]


def test_inhibition_rules_mean_what_they_mean_in_alertmanager() -> None:
    """Equal labels must agree, missing == empty; alerts that are on both sides do not mute each other or themselves."""
    rules = compile_rules([Inhibit(source=("severity=critical",), target=("alertname=~.+",), equal=("zone",))])[-1:]
    critical, warning = alert(name="A"), alert(name="B", severity="warning")
    found = named(critical, warning)
    assert [found[f].labels["alertname"] for f in inhibited(found, rules, {})] == ["B"]
    assert inhibited(named(critical), rules, {}) == {}
    assert inhibited(named(critical, alert(name="C")), rules, {}) == {}
    zoned = named(critical, alert(name="B", severity="warning", labels={"zone": "z"}))
    assert inhibited(zoned, rules, {}) == {}


def test_nobody_answers_so_the_next_one_is_called_until_somebody_takes_it() -> None:
    wanted = Alerts(
        receivers=(Receiver(name="ana"), Receiver(name="lead"), Receiver(name="boss")),
        owners={"*": "ana"},
        escalation=(EscalationStep(after=300.0, receiver="lead"), EscalationStep(after=900.0, receiver="boss")),
    )
    told: frozenset[str] = frozenset()
    calls: list[tuple[float, str, str]] = []
    for now in range(0, 2000, 100):
        found = named(alert(incident=7) if now < 1500 else alert(incident=7, state="resolved", resolved=1500.0))
        acks = [Ack(incident=7, by="lead", at=600.0)] if now >= 600 else []
        told, made = escalate(told, found, acks, wanted, float(now))
        calls += [(float(now), m.receiver, m.why) for m in made]
    assert calls == [(300.0, "lead", "nobody has acknowledged it for 300 s"), (1500.0, "lead", "resolved")]
    for quiet in (alert(severity="warning"), alert(muted="silence 1"), alert(state="pending", fired=None)):
        assert escalate(frozenset(), named(quiet), [], wanted, 5000.0)[1] == []


def test_a_message_says_the_worst_first_and_where_to_read_on() -> None:
    _, message = run(every(0.0, 50.0, alert(name="Low", severity="warning"), alert(name="High", incident=7)))[0]
    said = compose(message)
    assert said.title == "[FIRING:2] High digits"
    assert said.severity == "critical"
    assert said.body.index("critical") < said.body.index("warning")
    assert "leptonai report 7" in said.body


ALERTS = [alert(service, name=name) for service in ("a", "b") for name in ("X", "Y")]


@given(st.lists(st.lists(st.sampled_from(["off", "on", "muted"]), min_size=4, max_size=4), max_size=60), st.booleans())
@settings(deadline=None, max_examples=60)
def test_random_histories_of_alerts(history: list[list[str]], arrives: bool) -> None:
    """No group is told twice within its interval; what is muted is in no message; an alert that fires unmuted for as
    long as wait and interval together is in one."""
    looks: list[tuple[float, list[Alert]]] = []
    for n, states in enumerate(history):
        seen = [
            replace(a, muted="silence 1" if s == "muted" else "")
            for a, s in zip(ALERTS, states, strict=True)
            if s != "off"
        ]
        looks.append((n * 30.0, seen))
    told = run(looks, replace(TEAM, group_wait=60.0, group_interval=120.0), arrives)
    last: dict[str, float] = {}
    for at, message in told:
        assert at - last.get(message.group, float("-inf")) >= 120.0
        last[message.group] = at
        assert not any(a.muted for a in (*message.firing, *message.resolved))
    for number, known in enumerate(ALERTS):
        for n in range(len(history) - 7):
            if all(states[number] == "on" for states in history[n : n + 8]):
                window = [m for at, m in told if at <= (n + 7) * 30.0]
                assert any(a.labels == known.labels for m in window for a in m.firing)


def test_who_hears_of_a_trouble_late_hears_of_its_end_too() -> None:
    """The message was on its way while the alert resolved: its end is a message of its own, and the last one."""
    one = alert(name="A")
    over = replace(one, state="resolved", resolved=50.0)
    policy = compile_policy(TEAM)
    groups, made = dispatch({}, named(one), policy, TEAM, 0.0)
    groups, made = dispatch(groups, named(one), policy, TEAM, 40.0)
    (fires,) = made
    groups, made = dispatch(groups, named(over), policy, TEAM, 400.0)
    (ends,) = made
    assert (ends.why, [a.labels["alertname"] for a in ends.resolved]) == ("resolved", ["A"])
    for message in (fires, ends):
        groups = delivered(groups, message)
    assert dispatch(groups, named(over), policy, TEAM, 800.0) == ({}, [])
    # Given up, it never was told, and neither is its end.
    groups, made = dispatch({}, named(one), policy, TEAM, 0.0)
    groups, (fires,) = dispatch(groups, named(one), policy, TEAM, 40.0)
    groups = given_up(groups, fires)
    assert dispatch(groups, named(over), policy, TEAM, 400.0) == ({}, [])
