from __future__ import annotations

import pytest
from alert_world import alert, condition
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from leptonai.errors import SpecError
from leptonai.ops.alert.match import agrees, parse, silenced, spell, spent
from leptonai.ops.alert.state import advance, fingerprint
from leptonai.settings import Alerts
from leptonai.types import Alert, Silence

S = Alerts(keep_firing=30.0, flap_count=3, flap_window=600.0, flap_hold=300.0)


def play(pattern: list[bool], hold: float = 0.0, step: float = 1.0, settings: Alerts = S) -> list[Alert | None]:
    """The alert after each step of a condition that holds where ``pattern`` says so."""
    memory: dict[str, Alert] = {}
    out: list[Alert | None] = []
    for n, holds in enumerate(pattern):
        memory = advance(memory, [replace(condition(), hold=hold)] if holds else [], n * step, settings)
        out.append(next(iter(memory.values()), None))
    return out


def test_pending_then_firing_then_resolved_as_a_rule_of_prometheus() -> None:
    told = play([True] * 20 + [False] * 40, hold=10.0)
    assert [a.state for a in told[:10] if a] == ["pending"] * 10
    assert told[10] is not None
    assert (told[10].state, told[10].since, told[10].fired) == ("firing", 0.0, 10.0)
    assert [a.state for a in told[20:49] if a] == ["firing"] * 29  # last true at 19, released after 30 s
    assert told[49] is not None
    assert (told[49].state, told[49].resolved) == ("resolved", 49.0)


def test_a_break_while_pending_begins_anew_and_one_while_firing_does_not() -> None:
    told = play([True] * 5 + [False] + [True] * 8, hold=6.0)
    assert told[5] is None
    assert told[11] is not None
    assert told[12] is not None
    assert (told[11].state, told[12].state) == ("pending", "firing")
    held = play([True] * 3 + [False] * 20 + [True] * 3)
    assert all(a is not None and a.state == "firing" and a.fired == 0.0 for a in held)


def test_a_flapping_alert_stays_open() -> None:
    """Three times it comes and goes; from the third time on it stays open until it was gone for flap_hold."""
    once = [True] + [False] * 60
    told = play(once * 3 + [False] * 400)
    ends = [a.resolved for a in told if a and a.state == "resolved"]
    assert sorted({e for e in ends if e is not None}) == [30.0, 91.0, 422.0]
    assert told[130] is not None
    assert told[130].flapping
    assert told[421] is not None
    assert told[421].state == "firing"


def test_what_resolved_is_remembered_for_a_while_and_then_forgotten() -> None:
    told = play([True] + [False] * 200, step=10.0)
    assert told[5] is not None
    assert told[5].state == "resolved"
    assert told[-1] is None


def test_of_two_conditions_about_one_thing_the_more_severe_counts() -> None:
    found = advance({}, [condition(severity="warning"), condition(severity="critical")], 0.0, S)
    assert [a.labels["severity"] for a in found.values()] == ["critical"]
    assert fingerprint({"a": "1", "severity": "x", "b": ""}) == fingerprint({"a": "1", "severity": "y"})
    assert fingerprint({"a": "1"}) != fingerprint({"a": "2"})


@given(st.lists(st.booleans(), max_size=80), st.floats(0, 10), st.floats(0.5, 20))
def test_firing_needs_an_unbroken_hold_and_ends_no_sooner_than_its_release(
    pattern: list[bool], hold: float, step: float
) -> None:
    """Whenever it begins to fire, the condition has held ``hold`` seconds; whenever it resolves, it was gone at least
    ``keep_firing``; and an alert whose condition holds is never resolved."""
    told = play(pattern, hold, step)
    for n, found in enumerate(told):
        if pattern[n]:
            assert found is not None
            assert found.state != "resolved"
        if found is not None and found.fired == n * step and found.state == "firing":
            length = next(k for k in range(n + 1) if not all(pattern[n - k : n + 1]) or k == n)
            assert found.fired - found.since >= hold
            assert found.since >= (n - length) * step - 1e-9
        if found is not None and found.resolved == n * step:
            assert found.resolved - found.last >= S.keep_firing


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ('service="digits"', {"service": "digits"}, True),
        ("service=digits", {"service": "letters"}, False),
        ("service!=digits", {}, True),
        ("service=", {}, True),
        ('service=~"dig.*"', {"service": "digits"}, True),
        ('service=~"dig"', {"service": "digits"}, False),  # the whole value, as in Prometheus
        ('service!~"dig.*"', {"service": "digits"}, False),
        ('service=~"a|b"', {"service": "b"}, True),
        (r'note="a \"b\" \\ c"', {"note": 'a "b" \\ c'}, True),
        (' host =~ "" ', {}, True),
    ],
)
def test_matchers_mean_what_they_mean_in_alertmanager(text: str, labels: dict[str, str], holds: bool) -> None:
    assert agrees(labels, [parse(text)]) == holds
    assert parse(spell(parse(text))) == parse(text)


@pytest.mark.parametrize("text", ["", "digits", '="x"', 'a="x', 'a=~"("', "a" * 2000 + "=1", "a-b=1", '1a="x"'])
def test_what_is_no_matcher_is_refused_by_name(text: str) -> None:
    with pytest.raises(SpecError, match=r"no matcher|quote|regular expression"):
        parse(text)


def silence(id: int, matcher: str, starts: float, ends: float, until_resolved: bool = False) -> Silence:
    return Silence(
        id=id, matchers=(parse(matcher),), starts=starts, ends=ends, by="ana", comment="x", made=0.0,
        until_resolved=until_resolved,
    )  # fmt: skip


def test_a_silence_holds_from_its_start_until_its_end() -> None:
    mine = silence(1, "service=digits", 10.0, 20.0)
    assert [silenced(alert(), [mine], t) is not None for t in (9.9, 10.0, 19.9, 20.0)] == [False, True, True, False]
    assert silenced(alert("letters"), [mine], 15.0) is None


def test_one_until_resolved_is_spent_once_what_it_muted_is_over() -> None:
    mine = silence(1, "service=digits", 0.0, 1e9, until_resolved=True)
    assert not spent(mine, [alert()], True, 5.0)
    assert spent(mine, [alert(state="resolved"), alert("letters")], True, 5.0)
    assert not spent(mine, [], False, 5.0)  # made ahead of what it is for
    assert not spent(silence(2, "service=digits", 0.0, 1e9), [], True, 5.0)
