"""Autoscaling replayed: violations against replica-seconds of each policy over its one knob.

    python benchmarks/autoscaling.py --data DIR [--only burst|season] [--plot FILE.png]

Service time 1 s, one request a replica, start-up 30 s, a wait of more than 1 s violates, at most 64 replicas.
burst:  DIR/traces/AzureLLMInferenceTrace_code.csv as it is.
season: DIR/nab/data/realKnownCause/nyc_taxi.csv as an arrival rate: each half-hour becomes a minute with Poisson
        arrivals (seeded), 4 a second on average. The last 30 % are counted, the 10 % before them only teach.
Costs between two points of a knob are interpolated linearly on the lower envelope of what the policy reached.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import msgspec
import numpy as np

from leptonai.plan.scale import Setup, read, simulate

KNOBS = {
    "ours": (0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0),
    "hpa": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 2.0),
    "kpa": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 2.0),
    "oracle": (1.0, 1.25, 1.5, 2.0),
}
WIDTH, RATE, TAUGHT, COUNTED = 60.0, 4.0, 0.1, 0.3
Frontier = list[tuple[float, int, float]]  # (replica-seconds, violations, knob)


def season(path: Path) -> np.ndarray:
    with path.open() as file:
        counts = np.array([float(row["value"]) for row in csv.DictReader(file)])
    rate = counts / counts.mean() * RATE
    rate = rate[-int(len(rate) * (TAUGHT + COUNTED)) :]
    rng = np.random.default_rng(0)
    arrivals = np.repeat(np.arange(len(rate)), rng.poisson(rate * WIDTH)) + 0.0
    return np.sort((arrivals + rng.uniform(0, 1, len(arrivals))) * WIDTH)


def sweep(arrivals: np.ndarray, setup: Setup, counts: range) -> dict[str, Frontier]:
    runs = [(name, name, knob) for name, knobs in KNOBS.items() for knob in knobs]
    runs += [("fixed", f"fixed:{n}", float(n)) for n in counts]
    out: dict[str, Frontier] = {}
    for kind, name, knob in runs:
        done = simulate(arrivals, name, setup, None if kind == "fixed" else knob)
        out.setdefault(kind, []).append((done.replica_seconds, done.slo_violations, knob))
    for n in counts:  # the other knob of ours, as `scale.min` of a service: what is always there
        done = simulate(arrivals, "ours", msgspec.structs.replace(setup, least=n, initial=n), 1.0)
        out.setdefault("floor", []).append((done.replica_seconds, done.slo_violations, float(n)))
    return out


def reached(frontier: Frontier, cost: float) -> float:
    """The fewest violations for at most ``cost``; nan: the policy was never that cheap."""
    points = sorted(frontier)
    costs = [p[0] for p in points]
    return float(np.interp(cost, costs, np.minimum.accumulate([p[1] for p in points]))) if cost >= costs[0] else np.nan


def report(title: str, out: dict[str, Frontier], requests: int) -> None:
    print(f"\n{title}: {requests:,} requests counted")
    for kind, frontier in out.items():
        print(f"  {kind:6s} " + "  ".join(f"{knob:g}: {late:,}/{cost:,.0f}" for cost, late, knob in sorted(frontier)))
    print("  knob of ours  replica-seconds    ours     hpa     kpa   fixed  oracle   ours : best of the three")
    for cost, late, knob in sorted(out["ours"]):
        peers = {kind: reached(out[kind], cost) for kind in ("hpa", "kpa", "fixed", "oracle")}
        best = np.nanmin([peers[kind] for kind in ("hpa", "kpa", "fixed")])
        cells = "".join(f"{'-' if np.isnan(v) else format(v, ',.0f'):>8s}" for v in peers.values())
        print(f"  {knob:12g}  {cost:15,.0f}{late:8,d}{cells}   {late / best if best else np.inf:8.2f}")
    for share in (0.2, 0.1, 0.05):  # three costs: where the best fixed count lets this share of requests violate
        cost = next((c for c, late, _ in sorted(out["fixed"]) if late <= share * requests), None)
        if cost is not None:
            ours, floor, fixed = (reached(out[kind], cost) for kind in ("ours", "floor", "fixed"))
            print(
                f"  at the cost of the fixed count that violates <= {share:.0%}: ours {ours:,.0f}, ours with the knob "
                f"--min-replicas and target 1 {floor:,.0f}, fixed {fixed:,.0f}"
            )


def plot(path: Path, results: dict[str, dict[str, Frontier]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(7 * len(results), 5), squeeze=False)
    for axis, (title, out) in zip(axes[0], results.items(), strict=True):
        for kind, frontier in out.items():
            points = sorted(frontier)
            axis.plot([p[0] for p in points], [max(p[1], 0.5) for p in points], ".-", label=kind)
        axis.set(title=title, xlabel="replica-seconds", ylabel="requests that waited longer than 1 s", yscale="log")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=["burst", "season"])
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="needs matplotlib")
    options = parser.parse_args()
    results = {}
    azure = options.data / "traces" / "AzureLLMInferenceTrace_code.csv"
    taxi = options.data / "nab" / "data" / "realKnownCause" / "nyc_taxi.csv"
    if options.only != "season":
        if azure.exists():
            arrivals = read(azure).arrivals
            results["burst"] = sweep(arrivals, Setup(), range(2, 65, 2))
            report("burst (Azure LLM inference 2023, code)", results["burst"], len(arrivals))
        else:
            print(f"burst: {azure} is absent, left out")
    if options.only != "burst":
        if taxi.exists():
            arrivals = season(taxi)
            setup = Setup(counted_from=TAUGHT / (TAUGHT + COUNTED))
            results["season"] = sweep(arrivals, setup, range(4, 17, 2))
            counted = int((arrivals >= setup.counted_from * (arrivals[-1] - arrivals[0]) + arrivals[0]).sum())
            report("season (nyc_taxi, half-hours as minutes)", results["season"], counted)
        else:
            print(f"season: {taxi} is absent, left out")
    if options.plot and results:
        plot(options.plot, results)


if __name__ == "__main__":
    main()
