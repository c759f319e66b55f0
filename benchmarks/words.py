"""Rare words beside new templates, on Loghub: what is found of words put in, and how often ordinary lines are told.

    python benchmarks/words.py --data FOLDER

``--data``: the folder that holds ``loghub/``. A system's 2,000 lines come ten times, every digit drawn anew; in the
last pass each twentieth line is said once more with one word exchanged for a word of another system that never was in
this one: in the place of a number, and in the place of a word. Told: by the words, a score of 3, each judged as the
only one put in; by the templates, a new one, in a miner that has seen those before. Ordinary lines: those of the last
pass; and the last 1,000 of the first pass, in which most lines are new.
"""

from __future__ import annotations

import argparse
import copy
import csv
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.rarity import Rarity
from leptonai.ops.detect.words import WORD, Vocabulary
from leptonai.ops.logs.miner import Miner
from leptonai.protocols import Floats, Scored

SYSTEMS = ("Android", "BGL", "HPC", "HealthApp", "Mac", "OpenStack", "Spark", "Windows")
VALUE, DIGIT = re.compile(r"(?<!\S)[0-9]+(?!\S)"), re.compile(r"[0-9]")
PASSES, EVERY, ALARM = 10, 20, 3.0
STEP = 50  # lines of one step of counts


def content(data: Path, system: str) -> list[str]:
    with (data / "loghub" / system / f"{system}_2k.log_structured.csv").open(encoding="utf-8", newline="") as file:
        return [row["Content"] for row in csv.DictReader(file)]


def drawn(rng: np.random.Generator, line: str) -> str:
    return DIGIT.sub(lambda m: str(rng.integers(10)), line)


def judged(lines: list[str], put: dict[int, str]) -> tuple[list[tuple[float, bool]], list[tuple[float, bool]]]:
    """Of ``lines`` and of those put in after them: the score of the words, and whether the template is new."""
    vocabulary, miner, newest = Vocabulary(), Miner(), 0
    ordinary: list[tuple[float, bool]] = []
    strange: list[tuple[float, bool]] = []
    for i, line in enumerate(lines):
        for said, text in ((ordinary, line), *(((strange, put[i]),) if i in put else ())):
            id = miner.add(text)
            fresh = [" ".join(words) for words in miner.fresh]
            miner.fresh.clear()
            # each that is put in is judged as the only one: many in one log would make new words usual
            of = vocabulary if said is ordinary else copy.deepcopy(vocabulary)
            of.known(1 - len(fresh))
            said.append((float(of.score(fresh)[0]) if fresh else 0.0, id > newest))
            newest = max(newest, id)
    return ordinary, strange


def exchanged(rng: np.random.Generator, lines: list[str], foreign: list[str], where: re.Pattern[str]) -> dict[int, str]:
    out = {}
    for i in range(len(lines) * (PASSES - 1) // PASSES, len(lines), EVERY):
        if found := list(where.finditer(lines[i])):
            place = found[rng.integers(len(found))]
            out[i] = lines[i][: place.start()] + foreign[rng.integers(len(foreign))] + lines[i][place.end() :]
    return out


def share(said: list[tuple[float, bool]]) -> str:
    words, templates = np.array([s >= ALARM for s, _ in said]), np.array([new for _, new in said])
    told = (words.mean(), templates.mean(), (words | templates).mean()) if len(said) else (np.nan,) * 3
    return "".join(f"{x:8.4f}" for x in told)


class Poisson(Rarity):
    """Rarity without the learnt variance over the mean."""

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        told = super().step(at, x, learn)
        self._own["spread"][:] = 1.0
        return told


def counted(known: dict[str, list[str]], system: str) -> list[str]:
    """Shares of new templates and of bursts told, and of ordinary steps, by Rarity and by Poisson."""
    rng, miner = np.random.default_rng(0), Miner()
    lines = [drawn(rng, line) for _ in range(PASSES) for line in known[system]]
    miner.add_many(lines)
    miner.settle()
    ids = np.array(miner.match(lines))
    steps, most = len(ids) // STEP, int(ids.max()) + 1
    table = np.zeros((steps, most + 1))
    np.add.at(table, (np.arange(steps * STEP) // STEP, ids[: steps * STEP]), 1)
    last = steps * (PASSES - 1) // PASSES
    out = []
    for make in (Rarity, Poisson):
        new, burst, quiet = [], [], []
        detector, every = make(), np.ones(most + 1, dtype=np.bool_)
        detector.open(most + 1)
        for step, row in enumerate(table):
            if step < last:
                detector.step(float(step), row, every)
                continue
            for said, slot, n in ((new, most, 1.0), (burst, int(rng.choice(ids)), 10.0)):
                strange = row.copy()
                strange[slot] = n * max(1.0, table[:last, slot].max())
                said.append(copy.deepcopy(detector).step(float(step), strange, every).score[slot] >= ALARM)
            quiet.append((detector.step(float(step), row, every).score >= ALARM).any())
        out += [f"{np.mean(told):8.3f}" for told in (new, burst, quiet)]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    known = {s: content(data, s) for s in SYSTEMS}
    words = {s: {w for line in known[s] for w in WORD.findall(line.lower())} for s in SYSTEMS}
    print(
        f"{'by words, templates, either:':30}"
        + "".join(c.ljust(26) for c in ("ordinary", "first pass", "number", "word"))
    )
    for system in SYSTEMS:
        foreign = sorted({w for s in SYSTEMS if s != system for w in words[s]} - words[system])
        cells = []
        for where in (VALUE, WORD):
            rng = np.random.default_rng(0)
            lines = [drawn(rng, line) for _ in range(PASSES) for line in known[system]]
            ordinary, strange = judged(lines, exchanged(rng, lines, foreign, where))
            cells.append(share(strange))
        one = len(known[system])
        print(f"{system:28}" + "  ".join((share(ordinary[-one:]), share(ordinary[one // 2 : one]), *cells)), flush=True)
    print(f"\n{'rarity: new, bursts, ordinary':30}{'learnt':>22}{'Poisson':>24}")
    for system in SYSTEMS:
        print(f"{system:28}" + "".join(counted(known, system)), flush=True)


if __name__ == "__main__":
    main()
