"""One seed for every generator a training run draws from."""

from __future__ import annotations

import random

from leptonai.errors import SpecError


def seed(value: int, deterministic: bool = False) -> None:
    """Python's, NumPy's and PyTorch's generators start at ``value``; with ``deterministic`` torch refuses
    operations whose result depends on timing."""
    import numpy as np
    import torch

    if not 0 <= value < 2**32:
        raise SpecError(f"seed is {value}; it must be in [0, 2**32)")
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    torch.use_deterministic_algorithms(deterministic)
