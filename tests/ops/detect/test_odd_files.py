"""Any file: a clear message or the right answer, never a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leptonai.errors import LeptonError
from leptonai.ops.detect.ahead import forecast_file
from leptonai.ops.detect.file import detect_file
from leptonai.ops.detect.stream import Hints

CELL = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(["", "NaN", "null", "oops", "1,5", '"', "2024-01-01", "1e999", "-0", " 7 ", "0x1f", "\ufeff", "é"]),
    st.text(max_size=6),
)
ROWS = st.lists(st.lists(CELL, min_size=0, max_size=4), max_size=60)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, delimiter=st.sampled_from(",;\t|"), header=st.booleans(), end=st.sampled_from(["\n", "\r\n", ""]))
def test_any_text_is_scored_row_by_row_or_refused_with_a_reason(
    tmp_path: Path, rows: list[list[str]], delimiter: str, header: bool, end: str
) -> None:
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    lines = (["time" + delimiter + "value"] if header else []) + [delimiter.join(r) for r in rows]
    path.write_text("\n".join(lines) + end, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        found = detect_file(path, scores=out)
    except LeptonError as e:
        assert str(e)
    else:
        assert found.rows >= 1 and all(np.isfinite(a.score) for a in found.anomalies)
        assert out.read_text(encoding="utf-8", errors="replace").startswith("timestamp,value,score,range_score")
    try:
        assert np.isfinite(forecast_file(path, ahead=3).rows)
    except LeptonError as e:
        assert str(e)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blob=st.binary(max_size=400))
def test_any_bytes(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / "in.bin"
    path.write_bytes(blob)
    for run in (detect_file, forecast_file):
        try:
            run(path)
        except LeptonError as e:
            assert str(e)


def test_times_that_jump_about_change_no_score_and_are_counted(tmp_path: Path) -> None:
    """Scores follow the rows as they stand; what is odd about the times is said, not mended."""
    rng = np.random.default_rng(0)
    x, at = rng.standard_normal(600), rng.integers(0, 10**6, 600)
    (tmp_path / "a.csv").write_text(
        "time,value\n" + "".join(f"{t},{v!r}\n" for t, v in zip(at, x.tolist(), strict=True))
    )
    (tmp_path / "b.csv").write_text("value\n" + "".join(f"{v!r}\n" for v in x.tolist()))
    one, two = (
        detect_file(tmp_path / "a.csv", hints=Hints(rows=600)),
        detect_file(tmp_path / "b.csv", hints=Hints(rows=600)),
    )
    assert [a.row for a in one.anomalies] == [a.row for a in two.anomalies]
    assert one.table.odd["rows earlier than one before them"] > 100
