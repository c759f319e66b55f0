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
    rate = Series(name="r", labels={}, at=at, value=[20.0] * 60)
    table = {row[0]: row[1:] for row in rows(availability("digits", Slo(), [], rate, None, AT, AT + 3600, 1.0))}
    assert table["requests"][0] == "72,000, 0 errors"
    assert table["availability (requests)"][0] == "100.0000%" and table["MTTR"] == ["-", ""]
    assert table["false pages a week"][0].startswith("at most")
