"""Headlines and the first model: ``python train.py``. No corpus may be shipped, so a grammar writes them, seeded.

What the first model learns from has no denials ("fails to", "denies"); readers' headlines have. ``data/new.npz`` is
what was labelled since, denials among it: the pipeline learns from both.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from model import LABELS, numbers

from leptonai.improve.train.job import parse, train

HERE = Path(__file__).parent
FIRMS = (
    "Acme", "Borealis", "Cobalt", "Dunmore", "Elster", "Fairmont", "Granite", "Halden", "Ibex", "Juniper", "Kestrel",
    "Lumen",
)  # fmt: skip
GOOD = ("profit", "revenue", "order book", "dividend", "margin", "cash flow")  # rising is good
BAD = ("costs", "debt", "losses", "complaints", "layoffs", "write offs")  # rising is bad
UP = ["rises", "climbs", "jumps", "grows", "surges"]
DOWN = ["falls", "drops", "slides", "shrinks", "tumbles"]
TIME = ("in the third quarter", "this year", "before the holidays", "after a weak start", "in Europe", "overseas")
DULL = ("names a new board member", "holds its annual meeting", "moves its head office", "publishes its calendar",
        "changes the date of its report", "renews a lease")  # fmt: skip
DENIAL = ("fails to confirm that", "denies that", "sees no sign that")


def headline(rng: np.random.Generator, denials: float) -> tuple[str, int]:
    """A headline and 0, 1 or 2: negative, neutral, positive."""
    firm, when = rng.choice(FIRMS), rng.choice(TIME)
    if rng.random() < 0.25:
        return f"{firm} {rng.choice(DULL)} {when}", 1
    good, up = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    said = f"{rng.choice(GOOD if good else BAD)} {rng.choice(UP if up else DOWN)} {when}"
    right = good == up
    if rng.random() < denials:
        return f"{firm} {rng.choice(DENIAL)} {said}", 0 if right else 2
    return f"{firm} {said}", 2 if right else 0


def main(rows: int = 1500, epochs: int = 8) -> None:
    data, model = HERE / "data", HERE / "model"
    data.mkdir(exist_ok=True)
    model.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    parts = {"base": (rows, 0.0), "new": (rows, 0.4), "test": (600, 0.3), "live": (400, 0.3)}
    texts = {name: [headline(rng, denials) for _ in range(count)] for name, (count, denials) in parts.items()}
    learnt = sorted({w for text, _ in texts["base"] + texts["new"] for w in text.lower().split()})
    words = {w: i + 2 for i, w in enumerate(learnt)}
    (HERE / "words.json").write_text(json.dumps(words))
    for name, lines in texts.items():
        np.savez(data / f"{name}.npz", x=[numbers(t, words) for t, _ in lines], y=[y for _, y in lines])
    with (data / "live.jsonl").open("w") as file:
        for text, y in texts["live"]:
            file.write(json.dumps({"body": {"text": text}, "label": LABELS[y]}) + "\n")
    job = parse({"data": "data/base.npz", "module": "net.py", "epochs": epochs, "rate": 3e-3}, "train.py")
    done = train(job, HERE, HERE / "first")
    for path in (HERE / "model.py", HERE / "words.json", HERE / "first" / done.model):
        shutil.copy(path, model)
    print(f"first model: {done.quality:.1%} of headlines like those it learnt from")


if __name__ == "__main__":
    main()
