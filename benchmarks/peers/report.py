"""What docs/benchmarks.md says of runs beside the peers: one table of claims, one of medians by scenario. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

from peers.measure import Run

OURS, LIMIT = "leptonai", "lean"
COLUMNS = ("rate", "p50", "p99", "memory", "path_memory", "start")

Median = dict[str, float]
Seen = dict[tuple[str, str], Median]  # scenario, server -> median of each column


class Claim(NamedTuple):
    text: str
    bar: str
    scenarios: tuple[str, ...]
    measured: Callable[[Seen], tuple[str, bool]]


def medians(runs: Iterable[Run]) -> Seen:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.scenario, run.server), []).append(run)
    return {
        key: {column: statistics.median(getattr(r, column) for r in group) for column in COLUMNS}
        for key, group in groups.items()
    }


def peers(seen: Seen, scenario: str) -> dict[str, Median]:
    return {server: m for (at, server), m in seen.items() if at == scenario and server not in (OURS, LIMIT)}


def _faster(scenario: str, times: float) -> Callable[[Seen], tuple[str, bool]]:
    """Throughput against the best peer's."""

    def measured(seen: Seen) -> tuple[str, bool]:
        best = max(peers(seen, scenario).items(), key=lambda item: item[1]["rate"])
        mine = seen[scenario, OURS]["rate"]
        ratio = mine / best[1]["rate"]
        return f"{ratio:.2f} ({mine:,.0f} against {best[0]}'s {best[1]['rate']:,.0f})", ratio >= times

    return measured


def _lower(scenario: str, column: str, share: float = 1.0, unit: str = "ms") -> Callable[[Seen], tuple[str, bool]]:
    """A column against the lowest peer's."""

    def measured(seen: Seen) -> tuple[str, bool]:
        name, least = min(peers(seen, scenario).items(), key=lambda item: item[1][column])
        mine = seen[scenario, OURS][column]
        text = f"{mine:.3g} {unit} against {name}'s {least[column]:.3g}"
        return text, mine < share * least[column]

    return measured


def _of(one: tuple[str, str], other: tuple[str, str], bar: float) -> Callable[[Seen], tuple[str, bool]]:
    def measured(seen: Seen) -> tuple[str, bool]:
        ratio = seen[one]["rate"] / seen[other]["rate"]
        return f"{ratio:.2f} ({seen[one]['rate']:,.0f} : {seen[other]['rate']:,.0f})", ratio >= bar

    return measured


def _whole(seen: Seen) -> tuple[str, bool]:
    mine, ray = seen["two-64", OURS]["memory"], seen["two-64", "ray"]["memory"]
    return f"{mine:.0f} MiB, {mine / ray:.2f} of Ray Serve's {ray:.0f}", mine < 0.5 * ray


def _started(seen: Seen) -> tuple[str, bool]:
    mine = seen["onnx", OURS]["start"]
    return f"{mine:.2f} s", mine < 1.5


CLAIMS = (
    Claim("no-op JSON, 64 connections, one replica", ">= 4 x the best peer", ("noop-64",), _faster("noop-64", 4.0)),
    Claim(
        "the same, against a bare server behind the same gateway",
        ">= 0.8",
        ("noop-64",),
        _of(("noop-64", OURS), ("noop-64", LIMIT), 0.8),
    ),
    Claim("no-op JSON, 1 connection", ">= 1.5 x the best peer", ("noop-1",), _faster("noop-1", 1.5)),
    Claim("the same, p50", "lower than every peer", ("noop-1",), _lower("noop-1", "p50")),
    Claim("no-op JSON, 64 connections, two replicas", ">= 4 x the best peer", ("two-64",), _faster("two-64", 4.0)),
    Claim("ONNX with batching, 64 connections", ">= 3 x the best peer", ("onnx",), _faster("onnx", 3.0)),
    Claim("the same, p99", "lower than every peer", ("onnx",), _lower("onnx", "p99")),
    Claim("OIP, JSON, 1 x 784, 16 connections", ">= 4 x MLServer", ("oip-json",), _faster("oip-json", 4.0)),
    Claim(
        "OIP, binary : our JSON",
        ">= 2",
        ("oip-json", "oip-binary"),
        _of(("oip-binary", OURS), ("oip-json", OURS), 2.0),
    ),
    Claim("deploy to the first 200, ONNX", "< 1.5 s", ("onnx",), _started),
    Claim("the same, stretch", "faster than every peer", ("onnx",), _lower("onnx", "start", unit="s")),
    Claim(
        "memory of the serving path, two replicas",
        "below every peer",
        ("two-64",),
        _lower("two-64", "path_memory", unit="MiB"),
    ),
    Claim("memory of the whole platform, two replicas", "< half of Ray Serve", ("two-64",), _whole),
)


def markdown(runs: list[Run]) -> str:
    """Both tables; what was not run is left out."""
    seen = medians(runs)
    here = {scenario for scenario, _ in seen}
    lines = ["| claim | wanted | measured | |", "|---|---|---|---|"]
    for claim in CLAIMS:
        if here.issuperset(claim.scenarios):
            text, held = claim.measured(seen)
            lines.append(f"| {claim.text} | {claim.bar} | {text} | {'held' if held else '**short**'} |")
    lines += [
        "",
        "| | requests/s | p50 ms | p99 ms | PSS MiB | of the path | start s |",
        "|---|---|---|---|---|---|---|",
    ]
    for (scenario, server), m in seen.items():
        lines.append(
            f"| {scenario}, {server} | {m['rate']:,.0f} | {m['p50']:.2f} | {m['p99']:.2f} | {m['memory']:.0f} "
            f"| {m['path_memory']:.0f} | {m['start']:.1f} |"
        )
    return "\n".join(lines)
