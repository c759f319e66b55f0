"""``leptonai availability``: stretches of time as people write them, a table that says what it does not know."""

from __future__ import annotations

import pytest

from leptonai.cli.availability import rows, stretch
from leptonai.errors import SpecError
from leptonai.ops.availability import availability
from leptonai.types import Series, Slo

AT = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15min", 900), ("15m", 900), ("24h", 86400), ("7d", 604800), ("1.5d", 129600)]
)
def test_a_stretch_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert stretch(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "0d", "-1d", "7 years", "d"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(SpecError, match="wanted a number and a unit"):
        stretch(text)


def test_the_table_shows_a_dash_for_what_cannot_be_told() -> None:
    at = [AT + 60 * n for n in range(60)]
    rate, none = (Series(name="r", labels={}, at=at, value=[value] * 60) for value in (20.0, 0.0))
    found = availability("digits", Slo(), [], rate, none, None, AT, AT + 3600, 1.0)
    table: dict[str, list[str]] = {}
    for name, *rest in rows(found):
        table.setdefault(name.strip(), rest)  # the first of the two rules: errors
    assert table["requests"][0] == "72,000, 0 errors"
    assert table["availability (requests)"][0] == "100.0000%" and table["MTTR"] == ["-", ""]
    assert table["false pages a week"][0].startswith("at most")
    assert table["late answers outside incidents"] == ["-", ""]
    blind = availability("digits", Slo(), [], rate, None, None, AT, AT + 3600, 1.0)
    assert dict(zip(("name", "value"), rows(blind)[2][:2], strict=True))["value"] == "-", "nothing was seen of errors"
