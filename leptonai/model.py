"""Re-exports ``leptonai.lab``: ``from leptonai.model import Dataset``. ``Model`` needs the extra ``torch``."""

from typing import TYPE_CHECKING, Any

from leptonai.lab.dataset import Dataset as Dataset

if TYPE_CHECKING:
    from leptonai.lab.model import Model as Model


def __getattr__(name: str) -> Any:
    if name != "Model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import leptonai

    return leptonai.Model
