"""Any CSV: told apart, read in pieces, scored to a file; bad ones refused with a reason."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from leptonai.cli.main import leptonai, run
from leptonai.errors import LeptonError, NotFound, PluginError, SpecError
from leptonai.ops.detect import table as reading
from leptonai.ops.detect.file import detect_file
from leptonai.ops.detect.picture import plot
from leptonai.ops.detect.stream import Hints, detect
from leptonai.ops.detect.table import moment, number, open_table

CASES = {
    "header": ("timestamp,value\n2024-01-01 00:00:00,1.5\n2024-01-01 00:05:00,2\n", [1.5, 2.0], "timestamp"),
    "none": ("1.5\n2\n-3e2\n", [1.5, 2.0, -300.0], None),
    "semicolon, decimal comma": ("t;wert\n01.02.2024 10:00;1,5\n01.02.2024 10:01;2,25\n", [1.5, 2.25], "t"),
    "tab": ("time\tv\n10\t1\n20\t2\n", [1.0, 2.0], "time"),
    "numbers for times": ("ts,x\n100,1\n50,2\n50,3\n", [1.0, 2.0, 3.0], "ts"),
    "the value is the last number": ("id,host,cpu\n1,a,0.5\n2,b,0.25\n", [0.5, 0.25], None),
    "value by name": ("value,other\n1,9\n2,9\n", [1.0, 2.0], None),
    "missing and words": ("value\n1\nNaN\n\noops\n4\n", [1.0, np.nan, np.nan, 4.0], None),
    "short rows": ("time,value\n1,1\n2\n3,3\n", [1.0, np.nan, 3.0], "time"),
    "one row": ("7\n", [7.0], None),
    "byte order mark, CRLF": ("\ufefftime,value\r\n1,1\r\n2,2\r\n", [1.0, 2.0], "time"),
    "quoted": ('"time","value"\n"2024-01-01T00:00:00Z","1"\n', [1.0], "time"),
    "no end of line": ("value\n1\n2", [1.0, 2.0], None),
    "all missing": ("time,value\n1,\n2,\n", [np.nan, np.nan], "time"),
}


def write(folder: Path, text: str) -> Path:
    path = folder / "in.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(("text", "values", "time"), CASES.values(), ids=CASES.keys())
def test_columns_and_values(tmp_path: Path, text: str, values: list[float], time: str | None) -> None:
    table = open_table(write(tmp_path, text))
    got = np.concatenate([c.value for c in table.chunks()])
    assert np.array_equal(got, values, equal_nan=True)
    assert table.names["time"] == time
    assert detect_file(table.path).rows == len(values)


BAD = {
    "empty": ("", SpecError, "is empty"),
    "blank": ("\n\n", SpecError, "is empty"),
    "words": ("a,b\nc,d\n", SpecError, "no column of numbers"),
    "header only": ("time,value\n", SpecError, "no rows"),
    "binary": ("\0\1\2", SpecError, "not a text file"),
}


@pytest.mark.parametrize(("text", "error", "match"), BAD.values(), ids=BAD.keys())
def test_bad_files(tmp_path: Path, text: str, error: type[LeptonError], match: str) -> None:
    with pytest.raises(error, match=match):
        detect_file(write(tmp_path, text))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        detect_file(tmp_path / "no.csv")
    with pytest.raises(SpecError, match="cannot be read"):
        detect_file(tmp_path)
    path = write(tmp_path, "t,v,bad\n1,2,0\n2,3,maybe\n")
    with pytest.raises(SpecError, match="no column 'w'"):
        detect_file(path, value="w")
    with pytest.raises(SpecError, match="neither true nor false"):
        detect_file(path, label="bad")
    with pytest.raises(SpecError, match="cannot be written"):
        detect_file(path, scores=tmp_path / "no" / "out.csv")


def test_what_is_odd_is_counted(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "time,value\n5,1\n4,x\n4,2\nnever,3\n9\n"))
    list(table.chunks())
    assert table.odd == {
        "missing values": 1,
        "rows without the value column": 1,
        "rows earlier than one before them": 2,
        "rows at the same time as the row before": 1,
        "rows without a readable time": 1,
    }


def test_cells() -> None:
    assert number(" 1,5 ") == 1.5 and np.isnan(number("1,5,6"))
    assert moment("1970-01-01 00:01:00") == 60.0 == moment("1970-01-01T01:01:00+01:00") == moment("01/01/1970 00:01")


def labelled(folder: Path, rows: int = 1500) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(10.0, 0.3, rows)
    x[1000:1030] += 8.0
    lines = [f"{60 * i},{v!r},{int(1000 <= i < 1030)}" for i, v in enumerate(x.tolist())]
    return write(folder, "at,value,bad\n" + "\n".join(lines) + "\n"), x


def test_scores_file_is_what_the_function_gives_whatever_the_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, x = labelled(tmp_path)
    monkeypatch.setattr(reading, "CHUNK", 97)
    found = detect_file(path, label="bad", hints=Hints(rows=len(x)), scores=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    score, ranges = detect(x, Hints(rows=len(x)))
    assert [r["timestamp"] for r in rows] == [str(60 * i) for i in range(len(x))]
    assert [float(r["value"]) for r in rows] == x.tolist()
    assert np.allclose([float(r["score"]) for r in rows], score, rtol=1e-5)
    assert np.allclose([float(r["range_score"]) for r in rows], ranges, rtol=1e-5)
    assert 1000 <= max(found.anomalies, key=lambda a: a.score).row < 1030
    assert found.measures is not None
    assert found.measures.windows_found == 1 and found.measures.nab_best["standard"] > 80
    assert found.measures.vus_pr > 0.3


def test_the_command(tmp_path: Path) -> None:
    path, _ = labelled(tmp_path)
    picture = tmp_path / "out.png"
    got = CliRunner().invoke(leptonai, ["detect", str(path), "--label", "bad", "--plot", str(picture)])
    assert got.exit_code == 0, got.output
    assert "windows found 1 of 1" in got.output and "VUS-PR" in got.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    got = CliRunner().invoke(leptonai, ["detect", str(path), "--json", "--range", "0:20", "--rows", "1500"])
    document = json.loads(got.stdout)
    assert document["rows"] == 1500 and document["measures"] is None
    assert 1000 <= max(document["anomalies"], key=lambda a: a["score"])["row"] < 1030


@pytest.mark.parametrize("span", ["5", "a:b", "nan:1", "9:1"])
def test_a_range_that_is_none(tmp_path: Path, span: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = labelled(tmp_path, 50)
    assert run(["detect", str(path), "--range", span]) == 2
    assert "range" in capsys.readouterr().err


def test_a_plot_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = labelled(tmp_path, 50)
    found = detect_file(path)
    with pytest.raises(SpecError, match="cannot be written"):
        plot(found, tmp_path / "no" / "x.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PluginError, match="needs matplotlib"):
        plot(found, tmp_path / "x.png")
