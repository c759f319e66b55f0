"""What happened, and what runs: ``Store`` (SQLite, append-only, one writer) and ``Artifacts`` (content-addressed).

``leptonai.store.tree`` packs and hashes model folders; importing it loads no SQLite, so that clients stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leptonai.store.artifacts import Artifacts as Artifacts
    from leptonai.store.store import Store as Store

__all__ = ["Artifacts", "Store"]


def __getattr__(name: str) -> object:
    if name == "Store":
        from leptonai.store.store import Store

        return Store
    if name == "Artifacts":
        from leptonai.store.artifacts import Artifacts

        return Artifacts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
