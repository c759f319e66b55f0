"""The runbook: which remedies are tried for a cause, in which order. Declared as text, checked when read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

import msgspec

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.types import Noun


class Row(Noun, frozen=True, kw_only=True):
    """``reconcile``: nothing is proposed, serve repairs it. Neither: a person is called."""

    remedies: tuple[str, ...] = ()
    reconcile: bool = False


Runbook = Mapping[str, Row]


def load_runbook(path: Path, remedies: Collection[str]) -> Runbook:
    """The checked runbook in ``path``, a row for every cause of the taxonomy.

    Raises PluginError naming the file, the cause and the fault: not YAML, a cause or remedy that is not known, a cause
    without a row, a row that both reconciles and remedies.
    """
    try:
        rows = msgspec.yaml.decode(path.read_bytes(), type=dict[str, Row])
    except (OSError, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise PluginError(f"{path}: {e}", hint="see docs/operations.md for the form of the runbook") from e
    for cause, row in rows.items():
        if cause not in CAUSES:
            raise PluginError(f"{path}: no such cause {cause!r}", hint=f"known: {', '.join(CAUSES)}")
        if unknown := [r for r in row.remedies if r not in remedies]:
            raise PluginError(f"{path}: {cause}: no such remedy {unknown[0]!r}", hint=f"known: {', '.join(remedies)}")
        if row.reconcile and row.remedies:
            raise PluginError(f"{path}: {cause}: reconcile and remedies exclude each other")
    if missing := [c for c in CAUSES if c not in rows]:
        raise PluginError(f"{path}: no row for {', '.join(missing)}", hint="an empty row {} calls a person")
    return rows


@cache
def shipped() -> Runbook:
    """The runbook that ships with us."""
    from leptonai.ops.remedies import OURS

    return load_runbook(Path(__file__).with_name("runbook.yaml"), tuple(OURS))
