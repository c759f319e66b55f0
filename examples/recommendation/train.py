"""Ratings and the first model: ``python train.py``. No ratings may be shipped, so they are drawn, seeded: tastes of 200
people for 120 things. ``data/new.npz`` is what they rated since the first model was trained."""

import json
import shutil
from pathlib import Path

import numpy as np

from leptonai.improve.train.job import parse, train

HERE = Path(__file__).parent
USERS, ITEMS = 200, 120


def main(rows: int = 3000, epochs: int = 10) -> None:
    data, model = HERE / "data", HERE / "model"
    data.mkdir(exist_ok=True)
    model.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    taste, kind, liked = rng.normal(size=(USERS, 3)), rng.normal(size=(ITEMS, 3)), 0.5 * rng.normal(size=ITEMS)
    truth = np.clip(3.4 + liked + 0.6 * taste @ kind.T, 1, 5)
    pairs = rng.permutation(USERS * ITEMS)
    parts = {"base": pairs[:rows], "new": pairs[rows : 4 * rows], "test": pairs[-1500:]}
    for name, some in parts.items():
        user, item = some // ITEMS, some % ITEMS
        rating = np.clip(truth[user, item] + 0.4 * rng.normal(size=len(some)), 1, 5)
        np.savez(data / f"{name}.npz", x=np.stack([user, item], 1) + 1, y=rating)
    users, items = [f"u{i}" for i in range(USERS)], [f"i{i}" for i in range(ITEMS)]
    (HERE / "known.json").write_text(json.dumps({"users": users, "items": items}))
    with (data / "live.jsonl").open("w") as file:
        for user in rng.permutation(USERS):
            likes = dict(zip(items, truth[user].round(2).tolist(), strict=True))
            file.write(json.dumps({"body": {"user": users[user], "count": 5}, "likes": likes}) + "\n")
    job = parse({"data": "data/base.npz", "module": "net.py", "epochs": epochs, "rate": 2e-2}, "train.py")
    done = train(job, HERE, HERE / "first")
    for path in (HERE / "model.py", HERE / "known.json", HERE / "first" / done.model):
        shutil.copy(path, model)
    print(f"first model: {-done.quality:.2f} stars off, on ratings it did not learn from")


if __name__ == "__main__":
    main()
