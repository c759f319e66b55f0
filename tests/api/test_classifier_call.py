"""What is told of the classifiers: the version in force, whether it counts, its scores; a damaged one is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leptonai.ops.classify.ensemble import CLASSES, Ensemble
from leptonai.ops.classify.files import FOLDER, OURS, glance, keep
from leptonai.ops.classify.models import Net, Scaler
from leptonai.ops.features import FEATURES

if TYPE_CHECKING:
    from api_stage import Stage

OF = {"incidents": 2, "precision": 1.0, "recall": 1.0, "f1": 1.0}
HELD = {
    "incidents": 2, "first": 1.0, "first_two": 1.0, "macro_f1": 1.0, "interval": [0.9, 1.0], "calibration": 0.01,
    "causes": {"disk_full": OF}, "confusion": {"disk_full": {"disk_full": 2}}, "bins": [[0.95, 1.0, 2]],
}  # fmt: skip


def made(**about: object) -> Ensemble:
    n, k = len(FEATURES), len(CLASSES)
    zero = np.zeros(n)
    net = Net((np.zeros((n, k)),), (np.zeros(k),))
    return Ensemble(Scaler(tuple(FEATURES), zero, zero, np.ones(n)), (net,), (1.0,), (0.5, 0.5), about=dict(about))


def test_the_version_in_force_is_told_with_its_scores(stage: Stage) -> None:
    with stage.client("viewer") as client:
        before = client.classifier()
        assert before.version == OURS and not before.counts
        keep(stage.home / FOLDER, made(simulated=9, held_out=HELD))
        found = client.classifier()
        assert (found.version, found.counts, found.weights) == ("1", True, {"net": 0.5, "rules": 0.5})
        assert found.held_out is not None and found.held_out.confusion == {"disk_full": {"disk_full": 2}}
        assert found.about == {"simulated": 9}
        keep(stage.home / FOLDER, made(held_out="good"))
        assert client.classifier().held_out is None
        (stage.home / FOLDER / "3.npz").write_bytes(b"PK\x05\x06")
        damaged = client.classifier()
        assert damaged.version == "2" and "3.npz" in damaged.broken


def test_a_glance_sees_what_ops_puts_in_force(stage: Stage) -> None:
    folder = stage.home / FOLDER
    assert glance(folder, None) == ("", None, "")
    keep(folder, made())
    version, meta, broken = glance(folder, None)
    assert (version, broken) == ("1", "") and meta is not None and meta.models == ("net",)
