"""Does root-cause ranking lean on what it was chosen on? Recall at 1 and 3 away from that.

    python benchmarks/ranking_robust.py [--data DIR] [--part perturbed|injected|worlds] [--cases 200]

perturbed: the PetShop issues with something changed: columns and nodes shuffled and renamed, edges missing or added,
cells and whole metrics missing, other units, fewer normal data, shorter rows, other statistics as target.
injected: faults of our own in the *normal* data of PetShop, at every measured service in turn, carried to the target by
the counted calls; window and normal data are different stretches. What is known of second names is in NAMES, which
only the injection sees.
worlds: simulated systems of other shapes and parameters than those the ranking was chosen on.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rank_systems import KINDS, PAIRS, ROW, System, calls_of, case, system

from leptonai.errors import SpecError
from leptonai.ops.blame import path
from leptonai.ops.rank import Frame, Graph, Key, rank, read_graph, read_metrics

SCENARIOS = ("low_traffic", "high_traffic")
NAMES = {  # a load balancer's or gateway's name -> what answers behind it
    "servi-searc": "PetSearch_AWS::ECS::Fargate",
    "Servi-searc": "PetSearch_AWS::ECS::Fargate",
    "servi-lista": "petlistadoptions_AWS::ECS::Fargate",
    "servi-payfo": "payforadoption_AWS::ECS::Container",
    "execute-api": "PetAdoptionStatusUpdater/prod_AWS::ApiGateway::Stage",
}
LATENCY, AVAILABILITY, REQUESTS = ("latency", "Average"), ("availability", "Average"), ("requests", "Sum")


class Issue(NamedTuple):
    window: Frame
    normal: Frame
    graph: Graph
    target: Key
    cause: str


def issues(folder: Path) -> Iterator[tuple[str, Issue]]:
    for scenario in SCENARIOS:
        graph, normal = (
            read_graph(folder / scenario / "graph.csv"),
            read_metrics(folder / scenario / "noissue" / "metrics.csv"),
        )
        for place in sorted((folder / scenario).glob("*/issue_*")):
            said = json.loads((place / "target.json").read_text())
            target = Key(said["target"]["node"], said["target"]["metric"], said["target"]["agg"])
            yield (
                f"{scenario}/{place.name}",
                Issue(read_metrics(place / "metrics.csv"), normal, graph, target, said["root_cause"]["node"]),
            )


def edges(graph: Graph) -> list[tuple[str, str]]:
    return [(graph.nodes[a], graph.nodes[b]) for a, b in zip(graph.caller.tolist(), graph.callee.tolist(), strict=True)]


def graph_of(nodes: list[str], pairs: list[tuple[str, str]]) -> Graph:
    return Graph.of({n: [b for a, b in pairs if a == n] for n in nodes})


def both(issue: Issue, change: Callable[[Frame], Frame]) -> Issue:
    return issue._replace(window=change(issue.window), normal=change(issue.normal))


def keep(frame: Frame, wanted: Callable[[Key], bool]) -> Frame:
    at = [i for i, k in enumerate(frame.keys) if wanted(k)]
    return Frame(frame.times, tuple(frame.keys[i] for i in at), frame.values[:, at])


def shuffled(issue: Issue, rng: np.random.Generator) -> Issue:
    names = {
        n: f"{x:08x}"
        for n, x in zip(
            issue.graph.nodes, rng.choice(2**31, len(issue.graph.nodes), replace=False).tolist(), strict=True
        )
    }

    def change(frame: Frame) -> Frame:
        order = rng.permutation(len(frame.keys))
        keys = tuple(
            frame.keys[i]._replace(service=names.get(frame.keys[i].service, frame.keys[i].service)) for i in order
        )
        return Frame(frame.times, keys, frame.values[:, order])

    nodes = [names[n] for n in rng.permutation(issue.graph.nodes)]
    pairs = [(names[a], names[b]) for a, b in edges(issue.graph)]
    made = graph_of(nodes, [pairs[i] for i in rng.permutation(len(pairs))])
    return both(issue, change)._replace(
        graph=made, target=issue.target._replace(service=names[issue.target.service]), cause=names[issue.cause]
    )


def fewer_edges(issue: Issue, rng: np.random.Generator, share: float = 0.15) -> Issue:
    """Edges left out at random, so long as the cause can still be reached."""
    pairs = edges(issue.graph)
    while True:
        left = [p for p in pairs if rng.random() >= share]
        if path({a: [d for c, d in left if c == a] for a, _ in left}, issue.target.service, issue.cause):
            return issue._replace(graph=graph_of(list(issue.graph.nodes), left))


def more_edges(issue: Issue, rng: np.random.Generator, share: float = 0.15) -> Issue:
    """Calls that are none."""
    pairs, nodes = edges(issue.graph), list(issue.graph.nodes)
    more = [tuple(rng.choice(nodes, 2, replace=False)) for _ in range(round(share * len(pairs)))]
    return issue._replace(
        graph=graph_of(nodes, [*pairs, *((str(a), str(b)) for a, b in more if b != issue.target.service)])
    )


def holes(issue: Issue, rng: np.random.Generator, share: float = 0.15) -> Issue:
    def change(frame: Frame) -> Frame:
        gone = rng.random(frame.values.shape) < share
        if issue.target in frame.column and frame is issue.window:
            gone[:, frame.column[issue.target]] = False
        return Frame(frame.times, frame.keys, np.where(gone, np.nan, frame.values))

    return both(issue, change)


def silent_services(issue: Issue, rng: np.random.Generator, share: float = 0.2) -> Issue:
    mute = {n for n in issue.graph.nodes if rng.random() < share} - {issue.cause, issue.target.service}
    return both(issue, lambda f: keep(f, lambda k: k.service not in mute))


def units(issue: Issue, rng: np.random.Generator) -> Issue:
    unit = {"latency": 1000.0, "availability": 0.01}
    return both(issue, lambda f: Frame(f.times, f.keys, f.values * np.array([unit.get(k.metric, 1.0) for k in f.keys])))


def finer(issue: Issue, rng: np.random.Generator) -> Issue:
    """Five times as many rows, each with noise of its own and a fifth of the calls."""

    def change(frame: Frame) -> Frame:
        values = np.repeat(frame.values, 5, axis=0)
        values *= np.exp(0.05 * rng.normal(size=values.shape) * np.array([k.metric == "latency" for k in frame.keys]))
        values /= np.where([k.metric == "requests" for k in frame.keys], 5.0, 1.0)
        times = (frame.times[:, None] + np.arange(5) * 60.0).ravel()
        return Frame(times, frame.keys, values)

    return both(issue, change)


def coarser_normal(issue: Issue, rng: np.random.Generator) -> Issue:
    return issue._replace(normal=Frame(issue.normal.times[::2], issue.normal.keys, issue.normal.values[::2]))


def little_normal(issue: Issue, rng: np.random.Generator, rows: int = 72) -> Issue:
    start = int(rng.integers(0, len(issue.normal.times) - rows))
    return issue._replace(normal=issue.normal.rows(start, start + rows))


def longer(issue: Issue, rng: np.random.Generator, lead: int = 12) -> Issue:
    """A stretch of the normal data, levels moved to the window's first rows, before the window."""
    start = int(rng.integers(0, len(issue.normal.times) - lead))
    before = issue.normal.rows(start, start + lead)
    at = [before.column.get(k, -1) for k in issue.window.keys]
    past = np.where(np.array(at) >= 0, before.values[:, at], np.nan)
    times = issue.window.times[0] - 300.0 * np.arange(lead, 0, -1)
    return issue._replace(
        window=Frame(
            np.concatenate((times, issue.window.times)), issue.window.keys, np.concatenate((past, issue.window.values))
        )
    )


def only(*metrics: str) -> Callable[[Issue, np.random.Generator], Issue]:
    return lambda issue, rng: both(
        issue, lambda f: keep(f, lambda k: k.metric in metrics or k.metric == issue.target.metric)
    )


def means(issue: Issue, rng: np.random.Generator) -> Issue:
    return both(issue, lambda f: keep(f, lambda k: k.statistic in ("Average", "Sum")))


def quantile(issue: Issue, rng: np.random.Generator) -> Issue:
    """The same, when only a quantile of latency was kept."""
    if issue.target.metric != "latency":
        return issue
    return both(issue, lambda f: keep(f, lambda k: k.metric != "latency" or k.statistic == "p90"))._replace(
        target=issue.target._replace(statistic="p90")
    )


def tail_target(issue: Issue, rng: np.random.Generator) -> Issue:
    if issue.target.metric != "latency":
        return issue
    return issue._replace(target=issue.target._replace(statistic=str(rng.choice(["p50", "p90", "p95", "p99"]))))


PERTURBED: dict[str, Callable[[Issue, np.random.Generator], Issue]] = {
    "as given": lambda issue, rng: issue,
    "shuffled and renamed": shuffled,
    "15 % of edges missing": fewer_edges,
    "15 % of edges too many": more_edges,
    "15 % of cells missing": holes,
    "20 % of services silent": silent_services,
    "milliseconds and shares": units,
    "rows of a fifth": finer,
    "every other normal row": coarser_normal,
    "6 h of normal data": little_normal,
    "an hour of normal rows before": longer,
    "no requests": only("latency", "availability"),
    "the target's metric alone": only(),
    "no quantiles": means,
    "p90 alone": quantile,
    "another statistic as target": tail_target,
}


def perturbed(folder: Path, cases: int, named: str = "") -> None:
    given = list(issues(folder))
    for name, change in PERTURBED.items():
        if named not in name:
            continue
        places = []
        missed: dict[str, int] = defaultdict(int)
        for draw in range(max(1, cases // 20) if name != "as given" else 1):
            for i, (called, issue) in enumerate(given):
                made = change(issue, np.random.default_rng([draw, i]))
                found = [s.node for s in rank(made.window, made.normal, made.graph, made.target)]
                places.append(found.index(made.cause) + 1 if made.cause in found else 10**9)
                if places[-1] > 1:
                    missed[called] += 1
        tell(name, places, dict(missed))


def tell(name: str, places: list[int], more: object = "") -> None:
    p = np.array(places)
    empty = f" no answer or not in it {np.mean(p > 20):.2f}"
    print(
        f"{name:>32}: first {np.mean(p == 1):.3f}, in three {np.mean(p <= 3):.3f} of {len(p)},{empty} {more or ''}",
        flush=True,
    )


class Shop(NamedTuple):
    graph: Graph
    normal: Frame
    calls: dict[tuple[str, str], float]  # edge -> calls a row
    twin: dict[str, str]
    order: list[str]  # callees before callers


def shop(folder: Path, scenario: str) -> Shop:
    graph, normal = (
        read_graph(folder / scenario / "graph.csv"),
        read_metrics(folder / scenario / "noissue" / "metrics.csv"),
    )
    counted = np.nan_to_num(np.nanmean(normal.take([Key(n, *REQUESTS) for n in graph.nodes]), axis=0))
    requests = dict(zip(graph.nodes, counted.tolist(), strict=True))
    pairs = edges(graph)
    arriving = {b: sum(requests[a] for a, c in pairs if c == b) for _, b in pairs}
    calls = {(a, b): requests[b] * requests[a] / arriving[b] if arriving[b] else 0.0 for a, b in pairs}
    twin = {n: real for n in graph.nodes for start, real in NAMES.items() if n.startswith(start)}
    order: list[str] = []

    def visit(node: str, above: frozenset[str]) -> None:
        for a, b in pairs:
            if a == node and b not in order and b not in above:
                visit(b, above | {node})
        if node not in order:
            order.append(node)

    for node in graph.nodes:
        visit(node, frozenset())
    return Shop(graph, normal, calls, twin, order)


def inject(
    world: Shop, rng: np.random.Generator, cause: str, kind: str, target: str, rows: int = 5, strength: float = 1.0
) -> Issue | None:
    """A stretch of the normal data with a fault at ``cause`` from a random row on; None when the target shows none."""
    normal = world.normal
    start = int(rng.integers(0, len(normal.times) - rows))
    window = Frame(normal.times[start : start + rows], normal.keys, normal.values[start : start + rows].copy())
    cut = (max(0, start - rows), min(len(normal.times), start + 2 * rows))
    rest = Frame(
        np.concatenate((normal.times[: cut[0]], normal.times[cut[1] :])),
        normal.keys,
        np.concatenate((normal.values[: cut[0]], normal.values[cut[1] :])),
    )
    onset = int(rng.integers(0, rows - 1))
    level = {
        n: np.nanmedian(normal.take([Key(n, *m) for m in (LATENCY, AVAILABILITY, REQUESTS)]), axis=0)
        for n in world.graph.nodes
    }
    spread = np.nanstd(normal.take([Key(target, *LATENCY)]))
    asked = strength * (
        8 * spread * rng.uniform(1, 4) if kind == "latency" else rng.uniform(1.5, 20)
    )  # what the target shall show
    added, failed = ({n: 0.0 for n in world.graph.nodes} for _ in range(2))
    added[cause], failed[cause] = float(kind == "latency"), float(kind != "latency")
    for a in world.order:
        for (x, b), count in world.calls.items():
            if x == a and a != cause and b not in world.twin and level[a][2] > 0:
                added[a] += added[b] * count / level[a][2]
                failed[a] += failed[b] * min(1.0, count / level[a][2])
    if not np.nan_to_num(window.take([Key(cause, *REQUESTS)])).all():
        return None  # not called in this stretch
    reach = (added if kind == "latency" else failed)[target]
    if reach <= 1e-6:
        return None
    size = asked / reach
    if kind == "latency":
        if size > 30.0 or size < 0.5 * np.nanstd(normal.take([Key(cause, *LATENCY)])):
            return None
    elif size > 100.0:
        return None
    for node in world.graph.nodes:
        real = world.twin.get(node, node)
        keys = [Key(node, *LATENCY), Key(node, *AVAILABILITY), Key(node, *REQUESTS)]
        wobble = np.exp(0.15 * rng.normal(size=rows - onset))
        if keys[0] in window.column and added[real] > 0:
            window.values[onset:, window.column[keys[0]]] += added[real] * size * wobble
        if keys[1] in window.column and failed[real] > 0 and keys[2] in window.column:
            n = np.nan_to_num(window.values[onset:, window.column[keys[2]]]).astype(int)
            lost = rng.binomial(n, min(1.0, failed[real] * size / 100)) / np.maximum(n, 1)
            window.values[onset:, window.column[keys[1]]] *= 1 - lost
    for i, key in enumerate(window.keys):  # quantiles follow the mean
        mean = Key(key.service, *LATENCY)
        if key.metric == "latency" and key != mean and mean in window.column:
            j = window.column[mean]
            with np.errstate(invalid="ignore", divide="ignore"):
                window.values[onset:, i] *= window.values[onset:, j] / normal.values[start + onset : start + rows, j]
    if kind == "errors":  # what fails early does not call
        lost = min(1.0, size / 100) * float(rng.choice([0.0, 1.0]))
        for (a, b), count in world.calls.items():
            if a == cause and Key(b, *REQUESTS) in window.column:
                mine = min(1.0, count / max(level[b][2], 1e-9))
                window.values[onset:, window.column[Key(b, *REQUESTS)]] *= 1 - lost * mine
    metric = LATENCY if kind == "latency" else AVAILABILITY
    return Issue(window, rest, world.graph, Key(target, *metric), cause)


def injected(folder: Path, cases: int) -> None:
    for scenario in SCENARIOS:
        world = shop(folder, scenario)
        for kind in ("latency", "errors"):
            places: dict[str, list[int]] = defaultdict(list)
            others: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
            for i, cause in enumerate(world.graph.nodes):
                if cause in world.twin:
                    continue
                for draw in range(max(4, cases // 20)):
                    rng = np.random.default_rng([7, i, draw, kind == "latency"])
                    made = inject(world, rng, cause, kind, "PetSite")
                    if made is None:
                        continue
                    found = [s.node for s in rank(made.window, made.normal, made.graph, made.target)]
                    places[cause].append(found.index(cause) + 1 if cause in found else 10**9)
                    if places[cause][-1] != 1:
                        others[cause][found[0] if found else "nothing"] += 1
            tell(f"{scenario} {kind}, all", [p for v in places.values() for p in v])
            for cause, mine in places.items():
                if np.mean(np.array(mine) == 1) < 0.9:
                    tell(f"{cause[:31]}", mine, dict(others[cause]))


def reshaped(seed: int, n: int, depth: int, fan: float, entries: int, aliases: float, proxies: float) -> System:
    """Another family of systems: attached at random to services of the level above, most to what is popular already."""
    rng = np.random.default_rng([seed, 99])
    level = np.concatenate((np.zeros(entries, dtype=int), np.sort(rng.integers(1, depth, n - entries))))
    for d in range(1, depth):  # every level has somebody
        if not (level == d).any():
            level[entries + d] = d
    level = np.concatenate((level[:entries], np.sort(level[entries:])))
    degree = np.ones(n)
    pairs: list[tuple[int, int]] = []
    twin, forwards = np.full(n, -1), rng.random(n) < proxies
    forwards[:entries] = False
    for v in range(entries, n):
        above = np.flatnonzero((level < level[v]) & (twin < 0))
        if rng.random() < aliases and v > n // 4:
            known = [(a, b) for a, b in pairs if twin[b] < 0]
            a, b = known[int(rng.integers(len(known)))]
            if not (twin == b).any():
                twin[v] = b
                pairs.append((a, v))
                continue
        near = above[level[above] == level[above].max()]
        near = (
            near[~forwards[near] | np.array([not any(a == x for a, _ in pairs) for x in near])] if len(near) else near
        )
        near = near if len(near) else np.arange(entries)
        weight = degree[near] / degree[near].sum()
        for a in {int(x) for x in rng.choice(near, size=1 + rng.poisson(fan), p=weight)}:
            pairs.append((a, v))
            degree[a] += 1
    made = np.array(pairs, dtype=np.intp)
    m = len(made)
    names = tuple(f"n{x}" for x in rng.permutation(n).tolist())
    ratio = rng.uniform(0.05, 1.0, m)
    ratio[forwards[made[:, 0]]] = 1.0
    world = System(
        Graph(names, made[:, 0], made[:, 1]),
        ratio,
        np.where(forwards[made[:, 0]], 1.0, rng.uniform(0, 1, m)),
        rng.random(m) > 0.1,
        np.where(forwards, 1e-3, rng.lognormal(-5.0, 1.2, n)),
        np.ones(n),
        np.where(forwards, 0.05, rng.uniform(0.02, 0.35, n)),
        rng.choice([0.0, 1e-3], size=n),
        np.where(np.arange(n) < entries, rng.uniform(100, 4000, n), 0.0),
        twin,
        rng.uniform(0.1, 0.6, n),
    )
    calls = calls_of(world, world.arriving[None, :])[0]
    busy = rng.uniform(0.1, 0.75, n)
    return replace(world, capacity=np.maximum(calls, 1.0) / ROW * world.seconds / busy)


WORLDS: dict[str, tuple[Callable[[int], System], int, int]] = {
    "chosen on: 200 services": (lambda s: system(s), 12, 288),
    "40 services, 1 entry": (lambda s: system(s, n=40, entries=1), 12, 288),
    "40 services, 5 rows": (lambda s: system(s, n=40, entries=1), 5, 576),
    "500 services": (lambda s: system(s, n=500, entries=8), 12, 288),
    "60 rows": (lambda s: system(s), 60, 576),
    "other family: deep, thin": (lambda s: reshaped(s, 120, 12, 0.2, 3, 0.05, 0.1), 12, 288),
    "other family: flat, dense": (lambda s: reshaped(s, 120, 4, 1.5, 3, 0.05, 0.05), 12, 288),
    "other family: names, proxies": (lambda s: reshaped(s, 120, 7, 0.5, 3, 0.2, 0.2), 12, 288),
    "other family: 5 rows": (lambda s: reshaped(s, 50, 6, 0.5, 1, 0.1, 0.1), 5, 576),
}


def worlds(cases: int, seed: int) -> None:
    for name, (build, rows, past) in WORLDS.items():
        for count in (1, 2):
            mixes = [(kind,) for kind in KINDS] if count == 1 else list(PAIRS)
            places: dict[str, list[int]] = defaultdict(list)
            for i in range(cases):
                kinds = mixes[(i * 7) % len(mixes)]
                try:
                    made = case(seed + i, build(seed + i // 6), kinds, rows, past)
                except SpecError:  # no such fault shows at an entry
                    continue
                found = [s.node for s in rank(made.window, made.normal, made.graph, made.target)]
                place = max(found.index(c) + 1 if c in found else 10**9 for c in made.causes)
                for cell in ("all", *kinds):
                    places[cell].append(place)
            tell(
                f"{name}, {count}",
                places["all"],
                {
                    k: f"{np.mean(np.array(v) <= (1 if count == 1 else 3)):.2f}/{len(v)}"
                    for k, v in places.items()
                    if k != "all"
                },
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--part", choices=["perturbed", "injected", "worlds"], action="append")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=70000)
    given = parser.parse_args()
    parts = given.part or ["perturbed", "injected", "worlds"]
    folder = given.data / "petshop" / "dataset" if given.data else None
    for name, part in (("perturbed", perturbed), ("injected", injected)):
        if name in parts:
            if folder is not None and folder.is_dir():
                part(folder, given.cases)
            else:
                print(f"{name}: needs petshop under --data")
    if "worlds" in parts:
        worlds(given.cases, given.seed)


if __name__ == "__main__":
    main()
