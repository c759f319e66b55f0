"""Training that keeps itself stable: a guard around an ordinary PyTorch loop, a small Trainer, exact checkpoints.

The names are resolved on first use, so that the pure parts work where torch is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leptonai.improve.train.batches import Batches as Batches
    from leptonai.improve.train.decide import decide as decide
    from leptonai.improve.train.guard import Guard as Guard
    from leptonai.improve.train.observed import Rules as Rules
    from leptonai.improve.train.schedule import warmup as warmup
    from leptonai.improve.train.seeds import seed as seed
    from leptonai.improve.train.splits import kfold as kfold
    from leptonai.improve.train.splits import stratified as stratified
    from leptonai.improve.train.trainer import Trainer as Trainer

_HOME = {
    "Batches": "batches",
    "Guard": "guard",
    "Rules": "observed",
    "Trainer": "trainer",
    "decide": "decide",
    "kfold": "splits",
    "seed": "seeds",
    "stratified": "splits",
    "warmup": "schedule",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as e:
        from leptonai.errors import NotInstalled

        raise NotInstalled(f"{__name__}.{name}", e.name) from e
