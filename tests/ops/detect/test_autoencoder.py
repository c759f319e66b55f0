"""The autoencoder conforms, sees relations that are not linear, and says what it needs."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from leptonai.errors import PluginError
from leptonai.ops.detect.autoencoder import Autoencoder
from leptonai.ops.detect.full import FullTier
from leptonai.protocols import Detector
from leptonai.testing.detector_suite import DetectorSuite

there = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not there, reason="torch is not installed: the autoencoder is not tested here")


class Soon(Autoencoder):
    settle = 60


@needs_torch
class TestAutoencoderConforms(DetectorSuite):
    alone = (1, 4)

    def detector(self) -> Detector:
        return Soon()


@needs_torch
def test_a_relation_that_broke_is_seen_though_each_value_is_ordinary() -> None:
    """Members on a curve of one factor; then two of them change places: the score of the group is 2 and more."""
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((620, 6, 1))
    x = np.concatenate([factor, -factor, np.tanh(2 * factor), factor], axis=2) + 0.2 * rng.standard_normal((620, 6, 4))
    x[560:563, :, 0] = -1.3
    x[560:563, :, 1] = -1.3
    detector = Autoencoder()
    detector.open(24)
    for g in range(6):
        detector.assign(np.arange(4 * g, 4 * g + 4), g)
    every = np.ones(24, dtype=np.bool_)
    told = np.array([detector.step(float(t), row, every).score for t, row in enumerate(x.reshape(620, 24))])
    by_group = told.reshape(620, 6, 4).max(axis=2)
    assert np.median(by_group[560:563].max(axis=0)) >= 2.0
    assert (by_group[500:560] >= 2.0).mean() < 6e-2  # 1e-2, and it goes on learning
    np.testing.assert_allclose(np.nansum(detector.contributions.reshape(6, 4), axis=1), 1.0)


def test_without_torch_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leptonai.ops.detect.autoencoder.find_spec", lambda name: None)
    with pytest.raises(PluginError, match="needs PyTorch"):
        FullTier(voters=("ewma", "autoencoder"))
