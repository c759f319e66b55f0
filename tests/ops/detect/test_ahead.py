"""Forecasts on files: bands that hold, limits that are reached, bad files refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from leptonai.cli.main import leptonai, run
from leptonai.errors import SpecError
from leptonai.ops.detect import ahead
from leptonai.ops.detect.ahead import forecast_file


def write(folder: Path, values: np.ndarray) -> Path:
    path = folder / "in.csv"
    rows = "".join(f"{1.7e9 + 60 * i:.0f},{v!r}\n" for i, v in enumerate(values.tolist()))
    path.write_text("time,value\n" + rows)
    return path


@pytest.mark.parametrize("level", [100.0, -100.0])
def test_a_season_is_continued_within_its_band(tmp_path: Path, level: float) -> None:
    """Eight of ten values fall into the 10 % to 90 % band, also of a series below zero."""
    rng = np.random.default_rng(0)
    t = np.arange(1480)
    x = level + 20 * np.sin(t / 48 * 2 * np.pi) + 2 * rng.standard_normal(len(t))
    found = forecast_file(write(tmp_path, x[:1440]), ahead=40)
    truth = x[1440 - 1 + np.array(found.horizon)]
    assert np.abs(found.quantile[1] - truth).max() < 12
    assert (found.quantile[0] < found.quantile[2]).all() and (np.diff(found.quantile, axis=0) >= 0).all()
    assert found.at(1) == pytest.approx(1.7e9 + 60 * 1440)
    if level > 0:
        assert found.season and abs(found.season[0] - 48) < 1


def test_a_limit_is_reached_first_by_the_highest_quantile(tmp_path: Path) -> None:
    x = 100 + 10 * np.sin(np.arange(900) / 60 * 2 * np.pi) + np.random.default_rng(1).standard_normal(900)
    path = write(tmp_path, x)
    reached = forecast_file(path, ahead=60).reaches(104.0)
    assert reached[2] is not None
    assert reached[0] is None or reached[0] >= reached[2]
    got = CliRunner().invoke(leptonai, ["forecast", str(path), "--ahead", "60", "--limit", "1000"])
    assert got.exit_code == 0 and "not within 60 rows" in got.output and "MEAN" in got.output
    got = CliRunner().invoke(leptonai, ["forecast", str(path), "--json", "--limit", "104"])
    assert json.loads(got.stdout)["limit"].keys() == {"0.1", "0.5", "0.9"}


def test_only_the_newest_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "KEPT", 100)
    x = np.concatenate((np.full(500, 1e6), np.full(100, 5.0)))
    found = forecast_file(write(tmp_path, x), ahead=3)
    assert found.rows == 600 and found.quantile.max() < 6


def test_too_short_and_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, np.arange(5.0))
    assert run(["forecast", str(path)]) == 2
    assert "needs 32" in capsys.readouterr().err
    with pytest.raises(SpecError, match="levels"):
        forecast_file(path, levels=(2.0,))
    for x in (np.full(50, np.nan), np.full(0, 1.0)):
        with pytest.raises(SpecError):
            forecast_file(write(tmp_path, x))
