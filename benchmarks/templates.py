"""Template mining on Loghub-2k: GA, FGA, PA, FTA per system, one pass and two, and lines a second; drain3 beside it.

Metrics as in the evaluators of logparser and loghub-2.0. GA: share of lines whose whole group is right. FGA: F1 over
groups. PA: share of lines whose template is the true text. FTA: F1 over templates whose group has one true template
and whose text is that. The miner sees the column Content alone.

    python benchmarks/templates.py --data DIR [--drain3 PYTHON]

``--drain3``: an interpreter of an environment that has drain3 (never one of ours: it pins an unsafe jsonpickle). It
runs with its default configuration.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from leptonai.ops.logs import Miner, words

STEADY = 20_000  # lines of the steady stream of one system
SECONDS = 0.5  # CPU time a rate is measured over, at least: the clock of a virtual machine may tick in 10 ms
METRICS = ("GA", "FGA", "PA", "FTA")

PEER = """
import json, sys, time, logging
logging.disable(logging.CRITICAL)
from drain3 import TemplateMiner
from drain3.template_miner_config import TemplateMinerConfig
job = json.load(sys.stdin)
out = {}
for name, lines in job["systems"].items():
    miner = TemplateMiner(config=TemplateMinerConfig())
    one, shown = [], []
    for line in lines:
        found = miner.add_log_message(line)
        one.append(found["cluster_id"])
        shown.append(found["template_mined"])
    texts = {c.cluster_id: c.get_template() for c in miner.drain.clusters}
    out[name] = {"one": [one, shown], "two": [one, [texts[i] for i in one]]}
def rate(lines):
    seconds = done = 0
    while seconds < job["seconds"]:
        miner = TemplateMiner(config=TemplateMinerConfig())
        begin = time.process_time()
        for line in lines:
            miner.add_log_message(line)
        seconds += time.process_time() - begin
        done += len(lines)
    return done / seconds
kinds = {"cold": job["systems"], "steady": job["steady"]}
speed = {kind: {name: rate(lines) for name, lines in found.items()} for kind, found in kinds.items()}
json.dump({"systems": out, "speed": speed}, sys.stdout)
"""


def load(folder: Path) -> dict[str, tuple[list[str], list[str], list[str]]]:
    found = {}
    for file in sorted(folder.glob("*/*_2k.log_structured.csv")):
        with file.open(encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f))
        found[file.parent.name] = tuple([r[c] for r in rows] for c in ("Content", "EventId", "EventTemplate"))
    return found  # type: ignore[return-value]


def score(ids: list[int], texts: list[str], truth: list[str], true_texts: list[str]) -> tuple[float, ...]:
    ours, true = Counter(ids), Counter(truth)
    right = [(a, n) for (a, b), n in Counter(zip(ids, truth, strict=True)).items() if ours[a] == n == true[b]]
    groups: dict[str, set[str]] = defaultdict(set)
    for text, true_text in zip(texts, true_texts, strict=True):
        groups[text].add(true_text)
    exact = sum(group == {text} for text, group in groups.items())
    return (
        sum(n for _, n in right) / len(ids),
        2 * len(right) / (len(ours) + len(true)),
        sum(a == b for a, b in zip(texts, true_texts, strict=True)) / len(ids),
        2 * exact / (len(groups) + len(set(true_texts))),
    )


def ours(lines: list[str]) -> dict[str, tuple[list[int], list[str]]]:
    miner = Miner()
    one, shown = [], []
    for line in lines:
        one.append(miner.add(line))
        shown.append(miner.text(one[-1]))
    miner.settle()
    two = miner.match(lines)
    return {"one": (one, shown), "two": (two, [miner.text(i) for i in two])}


def steady(lines: list[str]) -> list[str]:
    """Lines of one system in random order, every digit drawn anew: text seen before, values that were not."""
    dice = random.Random(0)
    drawn = (dice.choice(lines) for _ in range(STEADY))
    return ["".join(dice.choice("0123456789") if c.isdigit() else c for c in line) for line in drawn]


def rate(lines: list[str]) -> float:
    seconds = done = 0.0
    while seconds < SECONDS:
        miner = Miner()
        words._lone.clear()  # what is known of words is known to the process: nothing of it before the first line
        words._known.clear()
        begin = time.process_time()
        for i in range(0, len(lines), 1000):
            miner.add_many(lines[i : i + 1000])
        seconds += time.process_time() - begin
        done += len(lines)
    return done / seconds


def drain3(python: str, systems: dict[str, list[str]], steady: dict[str, list[str]]) -> dict[str, Any]:
    """What drain3 in the interpreter ``python`` made of ``systems``, and its lines/s over ``steady``, by name."""
    job = json.dumps({"systems": systems, "steady": steady, "seconds": SECONDS})
    done = subprocess.run([python, "-c", PEER], input=job, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds loghub/")
    parser.add_argument("--drain3", metavar="PYTHON", help="an interpreter that has drain3")
    args = parser.parse_args()
    systems = load(args.data / "loghub")
    if not systems:
        sys.exit(f"Loghub is absent: no */*_2k.log_structured.csv under {args.data / 'loghub'}")
    streams = {name: steady(s[0]) for name, s in systems.items()}
    peer = drain3(args.drain3, {n: s[0] for n, s in systems.items()}, streams) if args.drain3 else None
    for title, passes in (("two passes", "two"), ("one pass", "one")):
        heads = [f"{who} {m}" for who in (["ours", "drain3"] if peer else ["ours"]) for m in METRICS]
        print(f"\n{title}\n| system | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
        table = []
        for name, (lines, ids, texts) in systems.items():
            row = score(*ours(lines)[passes], ids, texts)
            if peer:
                row += score(*peer["systems"][name][passes], ids, texts)
            table.append(row)
            print(f"| {name} | {' | '.join(f'{x:.3f}' for x in row)} |")
        mean = [sum(column) / len(table) for column in zip(*table, strict=True)]
        print(f"| mean of {len(table)} | {' | '.join(f'{x:.3f}' for x in mean)} |")
    print("\n| lines/s of CPU time | cold | drain3 | times | steady | drain3 | times |\n|---|---|---|---|---|---|---|")
    speeds = {name: {"cold": rate(s[0]), "steady": rate(streams[name])} for name, s in systems.items()}
    for name, speed in speeds.items():
        others = {kind: peer["speed"][kind][name] for kind in speed} if peer else {}
        print(tell(name, speed, others))
    mean = {kind: harmonic([s[kind] for s in speeds.values()]) for kind in ("cold", "steady")}
    others = {kind: harmonic(list(peer["speed"][kind].values())) for kind in mean} if peer else {}
    print(tell("all, as many lines of each", mean, others))


def harmonic(rates: list[float]) -> float:
    return len(rates) / sum(1 / r for r in rates)


def tell(name: str, ours: dict[str, float], others: dict[str, float]) -> str:
    cells = [name]
    for kind, mine in ours.items():
        other = others.get(kind)
        cells += [f"{mine:,.0f}", f"{other:,.0f}" if other else "-", f"{mine / other:.1f}" if other else "-"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
