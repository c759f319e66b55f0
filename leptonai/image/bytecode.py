"""Bytecode beside sources: the root of a container is read-only, and what is not compiled is so at every start."""

from __future__ import annotations

import importlib.util
import marshal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from leptonai.image.layer import Item

_UNCHECKED = 1  # PEP 552: trusted without a look at the source, whose time and hash then do not matter
# Since version 3 the bytes tell which objects other code happens to hold, too; before, they depend on the code alone.
_MARSHAL = 2


def compiled(items: Iterable[Item], python: str) -> Iterator[Item]:
    """The bytecode of every ``.py`` among ``items`` for ``python`` ("python3.11"), which must be ours: else none.

    Tests, and sources that do not compile (templates), are left out. Equal sources give equal bytes in every process.
    """
    if python != f"python3.{sys.version_info.minor}":
        return
    tag = sys.implementation.cache_tag
    for item in items:
        if item.content is None or not item.path.endswith(".py") or "/tests/" in item.path:
            continue
        source = item.content.read_bytes() if isinstance(item.content, Path) else item.content
        try:
            code = compile(source, f"/{item.path}", "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            continue
        folder, _, name = item.path.rpartition("/")
        head = importlib.util.MAGIC_NUMBER + _UNCHECKED.to_bytes(4, "little")
        yield Item(
            f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc",
            head + importlib.util.source_hash(source) + marshal.dumps(code, _MARSHAL),
        )
