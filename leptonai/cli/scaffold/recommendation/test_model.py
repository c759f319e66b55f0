"""Run with ``pytest`` in this folder, after ``python train.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "model"))


def test_a_known_user_and_a_stranger_get_items_best_first() -> None:
    from model import Recommendation

    model = Recommendation()
    model.setup()
    for user in (next(iter(model.users)), "nobody knows"):
        told = model.predict(user, count=5)
        assert len(told["items"]) == 5
        assert told["ratings"] == sorted(told["ratings"], reverse=True)
