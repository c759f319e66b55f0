"""Root-cause ranking on PetShop and in the simulator: recall at 1 and 3, specificity, cost; against two baselines.

    python benchmarks/petshop.py --data DIR [--cases 120]

DIR holds petshop/dataset/... as github.com/amazon-science/petshop-root-cause-analysis lays it out. Recall: the true
service is first, or among the first three. Specificity: the normal data are cut into consecutive windows as long as
an issue; the answer should be empty; `held out` takes the windows from the second half with only the first half as
normal data. Anomaly traversal and ranked correlation are our own re-implementations of the ideas of the data's paper.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rank_systems import KINDS, PAIRS, case, system

from leptonai.ops.rank import Frame, Graph, Key, rank, read_graph, read_metrics
from leptonai.ops.rank.layers import direction

Ranker = Callable[[Frame, Frame, Graph, Key], list[str]]
SIGMAS = 5.0


def blame(window: Frame, normal: Frame, graph: Graph, target: Key) -> list[str]:
    return [suspect.node for suspect in rank(window, normal, graph, target)]


def sigmas(window: Frame, normal: Frame, graph: Graph, target: Key) -> np.ndarray:
    """Per node: the most robust sigmas by which the target's metric left its normal median, in the bad direction."""
    keys = [Key(node, target.metric, target.statistic) for node in graph.nodes]
    x, known = window.take(keys), normal.take(keys)
    out = np.zeros(len(keys))
    for i in range(len(keys)):
        past, now = known[np.isfinite(known[:, i]), i], x[np.isfinite(x[:, i]), i]
        if len(past) and len(now):
            middle = np.median(past)
            spread = 1.4826 * np.median(np.abs(past - middle)) + 1e-3 * abs(middle)
            out[i] = (direction(target.metric) * (now - middle)).max() / max(spread, 1e-12)
    return out


def traversal(window: Frame, normal: Frame, graph: Graph, target: Key) -> list[str]:
    """Anomalous nodes reached from the target through anomalous ones, without an anomalous callee; strongest first."""
    z = sigmas(window, normal, graph, target)
    at = graph.nodes.index(target.service)
    if z[at] < SIGMAS:
        return []
    callees = defaultdict(list)
    for a, b in zip(graph.caller.tolist(), graph.callee.tolist(), strict=True):
        callees[a].append(b)
    seen, front, roots = {at}, [at], []
    while front:
        v = front.pop()
        bad = [c for c in callees[v] if z[c] >= SIGMAS]
        if not bad:
            roots.append(v)
        front += [c for c in bad if c not in seen]
        seen |= set(bad)
    return [graph.nodes[v] for v in sorted(roots, key=lambda v: -z[v])]


def correlation(window: Frame, normal: Frame, graph: Graph, target: Key) -> list[str]:
    """Anomalous nodes by how the target's metric correlates with the target's over normal data and window."""
    z = sigmas(window, normal, graph, target)
    if z[graph.nodes.index(target.service)] < SIGMAS:
        return []
    keys = [Key(node, target.metric, target.statistic) for node in graph.nodes]
    rows = np.concatenate((normal.take(keys), window.take(keys)))
    own = rows[:, graph.nodes.index(target.service)]
    found = []
    for i, node in enumerate(graph.nodes):
        both = np.isfinite(rows[:, i]) & np.isfinite(own)
        if node != target.service and z[i] >= SIGMAS and both.sum() > 2 and rows[both, i].std() > 0:
            found.append((-abs(np.corrcoef(rows[both, i], own[both])[0, 1]), node))
    return [node for _, node in sorted(found)]


RANKERS: dict[str, Ranker] = {"blame flow": blame, "anomaly traversal": traversal, "ranked correlation": correlation}


def petshop(folder: Path) -> None:
    hits: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in RANKERS}
    empty: dict[str, dict[str, list[bool]]] = {name: defaultdict(list) for name in RANKERS}
    for scenario in sorted(p for p in folder.iterdir() if (p / "graph.csv").exists()):
        if not (scenario / "noissue" / "metrics.csv").exists():
            print(f"{scenario.name}: no normal data, left out")
            continue
        graph, normal = read_graph(scenario / "graph.csv"), read_metrics(scenario / "noissue" / "metrics.csv")
        targets, rows = set(), 0
        for issue in sorted(scenario.glob("*/issue_*")):
            said = json.loads((issue / "target.json").read_text())
            target = Key(said["target"]["node"], said["target"]["metric"], said["target"]["agg"])
            window = read_metrics(issue / "metrics.csv")
            targets.add(target)
            rows = len(window.times)
            for name, ranker in RANKERS.items():
                found = ranker(window, normal, graph, target)
                cause = said["root_cause"]["node"]
                place = found.index(cause) + 1 if cause in found else 10**9
                for cell in (f"{scenario.name} {target.metric}", "pooled"):
                    hits[name][cell].append(place)
        half = len(normal.times) // 2
        for target in targets:
            for name, ranker in RANKERS.items():
                for start in range(0, len(normal.times) - rows + 1, rows):
                    window = normal.rows(start, start + rows)
                    empty[name]["in sample"].append(not ranker(window, normal, graph, target))
                    if start >= half:
                        empty[name]["held out"].append(not ranker(window, normal.rows(0, half), graph, target))
    cells = list(hits["blame flow"])
    print("top-1 / top-3 recall:  " + " | ".join(f"{c} (n={len(hits['blame flow'][c])})" for c in cells))
    for name, found in hits.items():
        row = [f"{np.mean(np.array(found[c]) == 1):.3f}/{np.mean(np.array(found[c]) <= 3):.3f}" for c in cells]
        specific = ", ".join(f"{k} {np.mean(v):.3f} of {len(v)}" for k, v in empty[name].items())
        print(f"{name:>19}:  {' | '.join(row)} | specificity {specific}")


def simulated(cases: int, seed: int) -> None:
    for count in (1, 2):
        mixes = [(kind,) for kind in KINDS] if count == 1 else list(PAIRS)
        results: dict[str, dict[str, list[tuple[bool, bool]]]] = {name: defaultdict(list) for name in RANKERS}
        for i in range(cases):
            kinds = mixes[(i * 7) % len(mixes)]
            made = case(seed + i, system(seed + i // 6), kinds)
            for name, ranker in RANKERS.items():
                found = ranker(made.window, made.normal, made.graph, made.target)
                got = (bool(found) and found[0] in made.causes, set(made.causes) <= set(found[:3]))
                for cell in ("all", *dict.fromkeys(kinds)):
                    results[name][cell].append(got)
        for name, cells in results.items():
            text = " | ".join(
                f"{c} {np.mean([a for a, _ in v]):.2f}/{np.mean([b for _, b in v]):.2f}" for c, v in cells.items()
            )
            print(f"{count} fault(s), {cases} cases, a cause first / all in first 3, {name}: {text}")


def cost(services: int = 1000, series: int = 20, rows: int = 240, normal_rows: int = 960) -> None:
    """One hour of 15 s rows against four hours; a third of the services in trouble."""
    rng = np.random.default_rng(0)
    graph = Graph.of(
        {f"s{i}": [f"s{j}" for j in rng.integers(i + 1, i + 20, 3) if j < services] for i in range(services)}
    )
    names = ["latency", "availability", "requests", "error_ratio", *(f"resource_{i}" for i in range(series - 4))]
    keys = tuple(Key(node, name, "Average") for node in graph.nodes for name in names)
    values = rng.lognormal(0, 0.1, (rows + normal_rows, len(keys)))
    window = Frame(np.arange(rows) * 15.0, keys, values[normal_rows:])
    window.values[rows // 2 :, : 20 * (services // 3) : 20] *= 3
    normal = Frame(np.arange(normal_rows) * 15.0, keys, values[:normal_rows])
    took = []
    for _ in range(5):
        begin = time.process_time()
        found = rank(window, normal, graph, keys[0])
        took.append(time.process_time() - begin)
    median = np.median(took)
    print(
        f"cost: {services} services x {series} series x {rows} rows: median {median:.2f} s CPU, {len(found)} suspects"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=120, help="simulated cases with one fault, and as many with two")
    parser.add_argument("--seed", type=int, default=20000)
    given = parser.parse_args()
    folder = given.data / "petshop" / "dataset"
    if folder.is_dir():
        petshop(folder)
    else:
        print(f"petshop: absent, there is no {folder}")
    if given.cases:
        simulated(given.cases, given.seed)
    cost()


if __name__ == "__main__":
    main()
