"""Bad files: each refusal names the file, where in it, and what was expected. And the command, on good ones and bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stage import World

from leptonai.cli.main import run
from leptonai.errors import LeptonError, NotFound
from leptonai.ops.rank import Frame, Graph, Key, read_graph, read_metrics, read_target

GOOD = "s,a,a\nm,latency,requests\nt,Average,Sum\n0,1,2\n300,,2\n"
METRICS = {
    "empty": ("", "0 rows"),
    "header only": ("s,a\nm,l\nt,A\n", "3 rows"),
    "header and index name only": ("s,a\nm,l\nt,A\ntime,\n", "no row below the header"),
    "no series": ("s\nm\nt\n0\n", "row 1: no series"),
    "ragged row": (GOOD + "600,1\n", "row 6: 2 columns, row 1 has 3"),
    "ragged header": ("s,a\nm,l,l\nt,A\n0,1\n", "row 2: 3 columns"),
    "a word for a number": (GOOD + "600,1,many\n", "row 6, column 3: 'many'"),
    "infinity": (GOOD + "600,inf,1\n", "row 6, column 2: 'inf'"),
    "no time": (GOOD + ",1,1\n", "row 6, column 1: no time"),
    "a date for a time": (GOOD + "2024-01-01,1,1\n", "row 6, column 1: '2024-01-01'"),
    "time runs back": (GOOD + "200,1,1\n", "row 6, column 1: time 200 is not after 300"),
    "the same time twice": (GOOD + "300,1,1\n", "row 6, column 1"),
    "the same series twice": ("s,a,a\nm,l,l\nt,A,A\n0,1,1\n", "column 3: the series a,l,A is in column 2"),
    "a service without a name": ("s,\nm,l\nt,A\n0,1\n", "row 1, column 2: empty; expected a service"),
    "a metric without a name": ("s,a\nm,\nt,A\n0,1\n", "row 2, column 2: empty; expected a metric"),
    "a quote that never ends": ('s,"a\nm,l\n', "not a CSV file"),
    "a NUL": ("s,a\nm,l\nt,A\n0,\0\n", "row 4, column 2"),
}
GRAPHS = {
    "empty": ("", "no service in row 1"),
    "no names": ("x\n", "no service in row 1"),
    "ragged": (",a,b\na,0,1\nb,0\n", "row 3: 2 columns"),
    "a caller too many": (",a\na,0\nb,0\n", "row 3: the caller 'b' has no column"),
    "a callee too many": (",a,b\na,0,1\n", "column 3: the callee 'b' has no row"),
    "the same caller twice": (",a,b\na,0,1\na,0,1\n", "column 1, row 3: 'a' stands at 2"),
    "the same callee twice": (",a,a\na,0,1\n", "row 1, column 3: 'a' stands at 2"),
    "a word": (",a,b\na,0,yes\nb,0,0\n", "row 2, column 3: 'yes'"),
    "less than nothing": (",a,b\na,0,-1\nb,0,0\n", "row 2, column 3: '-1'"),
    "nothing": (",a,b\na,0,\nb,0,0\n", "row 2, column 3: ''"),
}


@pytest.mark.parametrize("name", METRICS)
def test_bad_metrics_are_refused_with_place_and_reason(name: str, tmp_path: Path) -> None:
    text, said = METRICS[name]
    file = tmp_path / "metrics.csv"
    file.write_text(text)
    with pytest.raises(LeptonError) as error:
        read_metrics(file)
    assert str(file) in error.value.message and said in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("name", GRAPHS)
def test_bad_graphs_are_refused_with_place_and_reason(name: str, tmp_path: Path) -> None:
    text, said = GRAPHS[name]
    file = tmp_path / "graph.csv"
    file.write_text(text)
    with pytest.raises(LeptonError) as error:
        read_graph(file)
    assert str(file) in error.value.message and said in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("read", [read_metrics, read_graph])
def test_files_that_are_not_text_or_not_there(read: object, tmp_path: Path) -> None:
    assert callable(read)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NotFound):
        read(tmp_path / "none.csv")
    for bad in (tmp_path / "binary", tmp_path):
        with pytest.raises(LeptonError):
            read(bad)


@pytest.mark.parametrize("text", ["", "a", "a,b", "a,,c", ",b,c", "a,b,"])
def test_a_target_has_three_parts(text: str) -> None:
    with pytest.raises(LeptonError, match="SERVICE,METRIC,STATISTIC"):
        read_target(text)


def test_the_name_of_a_service_may_hold_commas() -> None:
    assert read_target("a,b, latency,p99") == Key("a,b", "latency", "p99")


def test_missing_cells_an_index_name_and_empty_last_lines_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("s,a\nm,l\nt,A\nunix_timestamp,\n0,\n300,nan\n600,5\n\n")
    frame = read_metrics(file)
    assert frame.keys == (Key("a", "l", "A"),)
    assert frame.values[2, 0] == 5 and frame.values.shape == (3, 1)


def test_rows_and_columns_of_a_graph_may_come_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "graph.csv"
    file.write_text(",a,b\nb,0,1\na,0,1.0\n")
    graph = read_graph(file)
    assert [(graph.nodes[i], graph.nodes[j]) for i, j in zip(graph.caller, graph.callee, strict=True)] == [("a", "b")]


def write(folder: Path, world: World) -> list[str]:
    window, normal, graph = world.frames()
    for name, frame in (("window", window), ("normal", normal)):
        lines = [",".join([head, *(key[i] for key in frame.keys)]) for i, head in enumerate(("s", "m", "t"))]
        for time, row in zip(frame.times, frame.values, strict=True):
            lines.append(",".join([repr(float(time)), *("" if x != x else repr(float(x)) for x in row)]))
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    edges = {(graph.nodes[i], graph.nodes[j]) for i, j in zip(graph.caller, graph.callee, strict=True)}
    lines = [",".join(["", *graph.nodes])]
    lines += [",".join([a, *("1" if (a, b) in edges else "0" for b in graph.nodes)]) for a in graph.nodes]
    (folder / "graph.csv").write_text("\n".join(lines) + "\n")
    return [str(folder / "window.csv"), "--normal", str(folder / "normal.csv"), "--graph", str(folder / "graph.csv")]


TROUBLE = World({"a": ["b"], "b": ["c"]}, {"a": 20, "b": 20})


def test_the_command_prints_the_ranking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, TROUBLE)
    assert run(["diagnose", *files, "--target", "a,latency,Average", "--json"]) == 0
    suspects = json.loads(capsys.readouterr().out)
    assert suspects[0]["node"] == "b" and set(suspects[0]) == {"node", "metric", "score", "evidence"}
    assert run(["diagnose", *files, "--target", "a,latency,Average"]) == 0
    assert "1. b  (latency, score" in capsys.readouterr().out


def test_the_command_prints_an_empty_list_when_nothing_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write(tmp_path, TROUBLE)
    assert run(["diagnose", *files, "--target", "c,latency,Average", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(["diagnose", *files, "--target", "c,latency,Average"]) == 0
    assert "is not anomalous" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("z,latency,Average", "not in the call graph"),
        ("a,latency,p77", "no series a,latency,p77"),
        ("a", "SERVICE,METRIC,STATISTIC"),
    ],
)
def test_the_command_refuses_unknown_targets_in_a_sentence(
    target: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["diagnose", *write(tmp_path, TROUBLE), "--target", target, "--json"]) == 2
    error = json.loads(capsys.readouterr().err)
    assert said in error["error"] and error["hint"]


def test_a_frame_is_as_wide_as_its_keys() -> None:
    import numpy as np

    with pytest.raises(LeptonError):
        Frame(np.zeros(2), (Key("a", "b", "c"),), np.zeros((2, 2)))
    assert Graph.of({"a": ["a"]}).caller.size == 0
