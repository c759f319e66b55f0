"""simulate from the command line: words, JSON, and files that are not what they should be."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from leptonai.cli.main import run


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "arrivals.csv"
    path.write_text("timestamp,tokens\n" + "".join(f"2024-01-01 00:{s // 60:02}:{s % 60:02}.5,1\n" for s in range(600)))
    return str(path)


@pytest.mark.parametrize("policy", ["ours", "hpa", "kpa", "fixed:2", "oracle"])
def test_json_of_each_policy(trace: str, policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", trace, "--policy", policy, "--target", "0.5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["requests"] == 600
    assert 0 <= said["slo_violations"] < 600
    assert said["replica_seconds"] >= 600
    assert 1 <= said["peak_replicas"] <= 64


def test_words(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", trace, "--policy", "fixed:2"]) == 0
    out = capsys.readouterr().out
    assert "0 waited longer than 1 s" in out
    assert "replica-seconds" in out


def test_an_unsorted_trace_is_sorted_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("5\n1\n3\n")
    assert run(["simulate", str(path), "--policy", "fixed:1", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["duration"] == 5.0
    assert "1 rows" in said.err


@pytest.mark.parametrize("policy", ["ours", "oracle"])
def test_months_between_two_requests_are_json_too(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trace too long for fine samples is forecast in coarser ones; what is printed stays numbers of JSON."""
    monkeypatch.setattr(import_module("leptonai.plan.scale.simulate"), "SAMPLES", 1000)
    path = tmp_path / "t.csv"
    path.write_text("0\n1\n2\n" + "2000000\n" * 100)
    assert run(["simulate", str(path), "--policy", policy, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["requests"] == 103
    assert said["peak_replicas"] > 1  # started at times that come after the coarse ones


def test_milliseconds_since_1970_are_told_by_their_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("1700000000000\n1700000005000\n")
    assert run(["simulate", str(path), "--policy", "fixed:1", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["duration"] == 6.0
    assert "milliseconds since 1970" in said.err


@pytest.mark.parametrize(
    ("content", "arguments", "says"),
    [
        (None, [], "No such file"),
        (b"", [], "holds no row"),
        (b"\xff\xfe\x00", [], "not a CSV text file"),
        (b"time\nsoon\n", [], "line 2: 'soon'"),
        (b"1\n2\n", ["--policy", "fixed:x"], "'x'"),
        (b"1\n2\n", ["--target", "-1"], "target is -1"),
        (b"1\n2\n", ["--max-replicas", "0"], "most replicas"),
    ],
)
def test_bad_input_is_one_clear_line(
    content: bytes | None, arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    assert run(["simulate", str(path), *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
