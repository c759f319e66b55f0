"""Settings with which nothing could work are refused at the start, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from leptonai.errors import SpecError
from leptonai.settings import ABOVE_ZERO, SHARES, Settings, dump, load


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ops: {period: 0}", "ops.period is 0; it must be above 0"),
        ("ops: {period: -1}", "ops.period is -1"),
        ("ops: {period: .nan}", "line 1: .nan is no finite number"),
        ("ops: {keep: 1.0e+400}", "line 1: 1.0e.400 is no finite number"),
        ("ops: {period: 1e400}", "Expected `float`, got `str`"),
        ("ops: {attempts: true}", "Expected `int`, got `bool`"),
        (f"ops: {{attempts: 1{'0' * 30}}}", "ops.attempts is 1e.30; it must be 2.53 at most"),
        ("ops: {anomaly_share: 2}", "ops.anomaly_share is 2; it must be 0 to 1"),
        ("api: {port: 70000}", "api.port is 70000; it must be 0 to 65535"),
        ("admit: {pace_count: -3}", "admit.pace_count is -3; it must be 0 or more"),
        ("alerts: {route: {routes: [{group_wait: -1}]}}", "alerts.route.routes.0..group_wait is -1"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match=said) as refused:
        load(file)
    assert str(file) in refused.value.message and "docs/settings.md" in refused.value.hint


def test_defaults_and_what_may_be_below_zero_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("watch: {utc_offset: -3600, groups: [{name: oven, limits: {heat: [-40, 90]}}]}")
    assert load(file).watch.utc_offset == -3600.0
    file.write_text("{}")
    assert load(file) == Settings()


def test_a_folder_in_its_place_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="directory"):
        load(tmp_path)


def test_every_name_with_bounds_of_its_own_is_a_setting() -> None:
    """A setting that was renamed would lose them without a word."""

    def names(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {n for v in value.values() for n in names(v)}
        return {n for v in value for n in names(v)} if isinstance(value, list) else set()

    listed = {"interval", "timeout", "labels", "per_minute"}  # of targets and receivers, too
    assert (ABOVE_ZERO | SHARES) - listed <= names(dump(Settings()))
