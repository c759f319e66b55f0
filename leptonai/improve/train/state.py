"""The state of a training run: copies in memory to go back to, and everything a checkpoint needs to go on exactly."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import torch


class Snapshot:
    """Weights, buffers and optimizer state at one moment, copied. ``put_back`` leaves learning rates alone."""

    def __init__(self, model: Any, optimizer: Any, at: int) -> None:
        self.at = at
        self._model = {k: v.detach().clone() for k, v in model.state_dict().items() if torch.is_tensor(v)}
        self._optimizer = copied(optimizer.state_dict()["state"])

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "model": self._model, "optimizer": self._optimizer}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Snapshot:
        new = cls.__new__(cls)
        new.at, new._model, new._optimizer = state["at"], state["model"], state["optimizer"]
        return new

    def put_back(self, model: Any, optimizer: Any) -> None:
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if name in self._model:
                    value.copy_(self._model[name])
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": copied(self._optimizer), "param_groups": groups})


def copied(state: Any) -> Any:
    """An optimizer's state, its tensors cloned: a tenth of what ``deepcopy`` takes."""
    if torch.is_tensor(state):
        return state.detach().clone()
    if isinstance(state, dict):
        return {k: copied(v) for k, v in state.items()}
    return deepcopy(state)


class Snapshots:
    """The first snapshot of a run and the last few; ``good`` tells the newest that later steps have vouched for."""

    def __init__(self, settle: int, keep: int = 3) -> None:
        self._settle, self._keep = settle, keep
        self._all: list[Snapshot] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, snapshot: Snapshot) -> None:
        self._all.append(snapshot)
        if len(self._all) > self._keep + 1:
            del self._all[1]

    def clear(self) -> None:
        self._all.clear()

    def good(self, now: int, older: bool) -> Snapshot:
        """The newest snapshot at least ``settle`` steps old, or with ``older`` the one before; later ones are dropped.

        The very first is always good: there is nothing before it. Needs at least one snapshot.
        """
        fit = [s for s in self._all if now - s.at >= self._settle] or self._all[:1]
        chosen = fit[-2] if older and len(fit) > 1 else fit[-1]
        self._all = self._all[: self._all.index(chosen) + 1]
        return chosen


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's generators, as values a weights-only load accepts."""
    import numpy as np

    kind, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [kind, list(words), gauss],
        "numpy": [
            str(name),
            torch.tensor(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    import numpy as np

    kind, words, gauss = states["python"]
    random.setstate((kind, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
