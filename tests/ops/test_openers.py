"""Conditions over signals that open an incident: how long, about whom, against what."""

from pathlib import Path

import pytest

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.files import BASE, shipped_book, shipped_documents
from leptonai.ops.diagnosis.rules import bind, read
from leptonai.ops.gpu import Reading, Told, signals
from leptonai.ops.openers import Openers
from leptonai.types import Replica, Signal


def replica(id: str, since: float = 0.0) -> Replica:
    return Replica(id=id, service="digits", variant="main", digest="d", state="ready", since=since)


BOTH = {"digits": [replica("r1"), replica("r2")]}


def told(openers: Openers, now: float, values: dict[tuple[str, str], float], digest: str = "d") -> None:
    """Samples by (name, replica); "" is the service itself, "machine" the machine."""
    labels = {"": {"service": "digits"}, "machine": {}}
    for (name, who), value in values.items():
        own = labels.get(who, {"service": "digits", "replica": who, "digest": digest})
        openers.saw([Signal(name=name, labels=own, at=now, value=value)])


def opened(
    values: dict[tuple[str, str], float],
    seconds: int = 12,
    replicas: dict[str, list[Replica]] | None = None,
    **more: str,
) -> list[tuple[int, str, str]]:
    """(second, condition, subject) in the order in which they fire; well for a minute, then ``values``."""
    openers = Openers()
    openers.use(shipped_book())
    well = {key: (0.03 if key[0].endswith("seconds") else 0.0) for key in values}
    well |= {key: 1.0 for key in values if key[0].startswith(("replica_cpu", "replica_request"))}
    for second in range(70):
        told(openers, 100.0 + second, well, **more)
        assert openers.step(100.0 + second, replicas or BOTH) == {}
    found: list[tuple[int, str, str]] = []
    for second in range(seconds):
        told(openers, 170.0 + second, values, **more)
        for trigger in openers.step(170.0 + second, replicas or BOTH).get("digits", []):
            if (trigger.name, trigger.subject) not in [f[1:] for f in found]:
                found.append((second, trigger.name, trigger.subject))
    return found


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({("replica_nan_ratio", "r1"): 0.5}, ("nan", "")),
        ({("output_shift_ratio", ""): 0.8}, ("drift", "")),
        ({("poisoned_ratio", ""): 0.9, ("poisoned_request_ratio", ""): 0.1}, ("poison", "")),
        ({("replica_model_failed_ratio", "r1"): 0.1}, ("model_fails", "")),
        ({("dependency_error_ratio", ""): 0.9}, ("dependency_fails", "")),
        ({("dependency_seconds", ""): 0.5}, ("dependency_late", "")),
        ({("repeated_ratio", ""): 0.6, ("slow_ratio", ""): 0.9}, ("repeats", "")),
        ({("repeated_ratio", ""): 0.6, ("error_ratio", ""): 0.2}, ("repeats", "")),
        ({("replica_unwritten_per_second", "r2"): 5.0}, ("unwritten", "")),
        ({("replica_error_ratio", "r1"): 0.6, ("replica_error_ratio", "r2"): 0.0}, ("replica_fails", "r1")),
        ({("replica_compute_seconds", "r2"): 0.3, ("replica_compute_seconds", "r1"): 0.03}, ("replica_slow", "r2")),
        ({("gpu_lost_ratio", "machine"): 1.0, ("replica_error_ratio", "r1"): 0.5}, ("gpu_lost", "")),
        ({("gpu_xid_errors_count", "machine"): 1.0, ("replica_error_ratio", "r1"): 0.5}, ("gpu_fault", "")),
        ({("gpu_thermal_slowdown_ratio", "machine"): 1.0, ("replica_compute_seconds", "r1"): 0.3}, ("gpu_hot", "")),
    ],
    ids=lambda v: v[0] if isinstance(v, tuple) else "",
)
def test_each_trouble_opens_its_own_incident_within_ten_seconds(
    values: dict[tuple[str, str], float], wanted: tuple[str, str]
) -> None:
    assert wanted in [found[1:] for found in opened(values)]


@pytest.mark.parametrize(
    "values",
    [
        {("gpu_lost_ratio", "machine"): 1.0},  # nobody's trouble
        {("replica_error_ratio", "r1"): 0.6, ("replica_error_ratio", "r2"): 0.5},  # both: it is none of theirs
        {("replica_error_ratio", "r1"): 0.6},  # alone: nobody to compare with
        {("poisoned_ratio", ""): 1.0, ("poisoned_request_ratio", ""): 0.0001},  # one request of ten thousand
        {("output_shift_ratio", ""): 0.2},
        {("repeated_ratio", ""): 0.9, ("slow_ratio", ""): 0.03, ("error_ratio", ""): 0.0},  # all are answered in time
    ],
)
def test_what_is_no_trouble_opens_nothing(values: dict[tuple[str, str], float]) -> None:
    assert [found for found in opened(values) if found[1] != "model_fails"] == []


def test_a_replica_of_another_revision_is_no_sibling_and_one_that_warms_up_counts_for_nothing() -> None:
    values = {("replica_compute_seconds", "r1"): 0.3, ("replica_compute_seconds", "r2"): 0.03}
    assert [f for f in opened(values, replicas={"digits": [replica("r1", 169.0), replica("r2")]}, seconds=4)] == []
    openers = Openers()
    openers.use(shipped_book())
    for second in range(20):
        told(openers, 100.0 + second, {("replica_compute_seconds", "r1"): 0.3}, "new")
        told(openers, 100.0 + second, {("replica_compute_seconds", "r2"): 0.03}, "old")
        assert openers.step(100.0 + second, BOTH) == {}


def test_a_condition_that_breaks_off_begins_anew_and_what_has_ended_is_forgotten() -> None:
    openers = Openers()
    openers.use(shipped_book())
    for second in range(40):
        value = 0.5 if second % 8 == 0 else 0.0  # never as long as it must hold
        told(openers, 100.0 + second, {("dependency_error_ratio", ""): value})
        assert openers.step(100.0 + second, BOTH) == {}
    openers.step(300.0, BOTH)
    assert not any(openers._series.values())


@pytest.mark.parametrize(
    ("opener", "said"),
    [
        ("{when: slower, text: x}", "'slower' is known of an incident only"),
        ("{when: fails_alone, text: x}", "is about a service"),
        ("{when: {all: [nan_share > 0.5, nan_share < 0.1]}, text: x}", "can never be true"),
        ("{when: nan_share > 0.5, hold: -1, text: x}", "hold -1 is not between"),
        ("{when: nan_share > 0.5, text: '{value}'}", "wrong placeholder"),
        ("{when: nonsense > 1, text: x}", "unknown feature 'nonsense'"),
        ("{when: nan_share > 0.5}", "missing required field `text`"),
    ],
)
def test_an_opener_that_never_could_fire_is_refused_with_its_name(tmp_path: Path, opener: str, said: str) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(f"opens:\n  mine: {opener}\n")
    with pytest.raises(PluginError, match=r"ours\.yaml") as error:
        bind((*shipped_documents(), (str(path), read(path))), BASE)
    assert said in error.value.message


def test_cards_are_told_by_a_file_and_a_broken_one_shows_none(tmp_path: Path) -> None:
    path = tmp_path / "gpus.json"
    assert Told(path).read() == []
    path.write_text('[{"number": 0, "name": "simulated", "xid_errors": 1, "lost": false}]')
    assert Told(path).read() == [Reading(number=0, name="simulated", xid_errors=1, lost=False)]
    assert {s.name for s in signals(Told(path).read(), 1.0)} == {"gpu_xid_errors_count", "gpu_lost_ratio"}
    for broken in ("[", "{}", '[{"number": 0, "colour": "red"}]'):
        path.write_text(broken)
        assert Told(path).read() == []
