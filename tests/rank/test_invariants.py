"""What a ranking must not depend on: names, order of columns and services, units."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.ops.rank import Frame, Graph, Key, rank

ROWS, NORMAL = 6, 60
METRICS = (("latency", "Average"), ("availability", "Average"), ("requests", "Sum"))


@st.composite
def systems(draw: st.DrawFn) -> tuple[Frame, Frame, Graph]:
    """Any graph of 2 to 7 services, cycles included, with troubles and gaps anywhere."""
    n = draw(st.integers(2, 7))
    edges = draw(st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=3 * n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    graph = Graph.of({f"s{i}": [f"s{j}" for a, j in sorted(edges) if a == i] for i in range(n)})
    keys = tuple(Key(node, *metric) for node in graph.nodes for metric in METRICS)
    levels = np.tile([5.0, 99.0, 80.0], n)

    def frame(rows: int) -> Frame:
        values = levels * (1 + 0.01 * rng.normal(size=(rows, len(keys))))
        values[rng.random(values.shape) < draw(st.sampled_from([0.0, 0.2]))] = np.nan
        return Frame(np.arange(rows) * 60.0, keys, values)

    window, normal = frame(ROWS), frame(NORMAL)
    troubled = draw(st.sets(st.integers(0, n - 1), min_size=1))
    worse = np.array([1 + rng.random() * 3, 0.5, 2.0])
    for i in troubled | {0}:
        window.values[3:, 3 * i : 3 * i + 3] *= worse
    return window, normal, graph


def ranked(window: Frame, normal: Frame, graph: Graph, target: str) -> dict[str, float]:
    return {s.node: s.score for s in rank(window, normal, graph, Key(target, "latency", "Average"))}


def same(a: dict[str, float], b: dict[str, float]) -> bool:
    return a.keys() == b.keys() and all(abs(a[k] - b[k]) < 1e-6 for k in a)


@settings(max_examples=60, deadline=None)
@given(systems(), st.randoms(use_true_random=False))
def test_names_and_order_change_nothing(system: tuple[Frame, Frame, Graph], random: object) -> None:
    """Services renamed, columns and nodes shuffled: the same services get the same scores."""
    window, normal, graph = system
    names = [f"{i}_remote" for i in range(len(graph.nodes))]
    random.shuffle(names)  # type: ignore[attr-defined]
    new = dict(zip(graph.nodes, names, strict=True))

    def shuffled(frame: Frame) -> Frame:
        order = list(range(len(frame.keys)))
        random.shuffle(order)  # type: ignore[attr-defined]
        keys = tuple(frame.keys[i]._replace(service=new[frame.keys[i].service]) for i in order)
        return Frame(frame.times, keys, frame.values[:, order])

    calls = {new[node]: [] for node in graph.nodes}
    for a, b in zip(graph.caller, graph.callee, strict=True):
        calls[new[graph.nodes[a]]].append(new[graph.nodes[b]])
    nodes = list(calls.items())
    random.shuffle(nodes)  # type: ignore[attr-defined]
    there = ranked(shuffled(window), shuffled(normal), Graph.of(dict(nodes)), new["s0"])
    assert same({new[k]: v for k, v in ranked(window, normal, graph, "s0").items()}, there)


@settings(max_examples=60, deadline=None)
@given(systems(), st.sampled_from([1e-3, 0.125, 60.0, 1e6]), st.sampled_from([0.01, 8.0]))
def test_units_change_nothing(system: tuple[Frame, Frame, Graph], seconds: float, percent: float) -> None:
    """Latency in other units of time, availability as a share: the same scores."""
    window, normal, graph = system
    unit = {"latency": seconds, "availability": percent, "requests": 1.0}

    def scaled(frame: Frame) -> Frame:
        return Frame(frame.times, frame.keys, frame.values * np.array([unit[key.metric] for key in frame.keys]))

    assert same(ranked(window, normal, graph, "s0"), ranked(scaled(window), scaled(normal), graph, "s0"))


@settings(max_examples=60, deadline=None)
@given(systems())
def test_scores_are_shares(system: tuple[Frame, Frame, Graph]) -> None:
    """Every score in (0, 1], falling, at most 1 in sum; every suspect can be reached or explains a surge."""
    scores = list(ranked(*system, "s0").values())
    assert all(0 < score <= 1 for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1 + 1e-9


def test_constant_missing_and_new_series_do_no_harm() -> None:
    graph = Graph.of({"a": ["b", "c", "d"], "b": ["new"]})
    window, normal = (np.full((rows, 4), 5.0) for rows in (6, 100))
    window[3:, :2] = 9.0
    normal[:, 2], window[:, 3] = np.nan, np.nan
    keys = tuple(Key(node, "latency", "Average") for node in ("a", "b", "c", "new"))
    times = np.arange(100.0)
    found = rank(Frame(times[:6], keys, window), Frame(times, keys[:3], normal[:, :3]), graph, keys[0])
    assert found[0].node == "b"
