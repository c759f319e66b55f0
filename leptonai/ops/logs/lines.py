"""Lines in columns: what one source wrote in one look. An object for each would cost more than all else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from leptonai.ops.logs.query import Query
from leptonai.types import DEFAULT_WORKSPACE, LogEntry


class Columns(NamedTuple):
    """Lines as they were read, all of equal length; ``trace`` and ``span`` may be empty: no line has one. ``shapes``:
    of each ``body`` (``words.shapes``), or empty: not known."""

    at: list[float]
    severity: list[int]
    body: list[str]
    trace: list[str]
    span: list[str]
    shapes: list[str] = []

    def part(self, start: int, end: int) -> Columns:
        which = slice(start, end)
        kept = (self.at[which], self.severity[which], self.body[which], self.trace[which], self.span[which])
        return Columns(*kept, shapes=self.shapes[which])


class Lines(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Kept lines of one source; ``first`` is the ``seq`` of the first of them. ``followed``: they can be read again
    from their file."""

    first: int
    service: str
    workspace: str = DEFAULT_WORKSPACE
    source: dict[str, str]
    followed: bool
    at: list[float]
    severity: list[int]
    template: list[int]
    texts: dict[int, str]  # of these templates, as known when the lines came
    body: list[str]
    trace: list[str]
    span: list[str]

    def __len__(self) -> int:
        return len(self.body)

    @property
    def last(self) -> int:
        return self.first + len(self.body) - 1

    def entry(self, i: int) -> LogEntry:
        return LogEntry(
            seq=self.first + i,
            at=self.at[i],
            service=self.service,
            source=self.source,
            severity=self.severity[i],
            template_id=self.template[i],
            template=self.texts[self.template[i]],
            body=self.body[i],
            trace=self.trace[i] if self.trace else "",
            span=self.span[i] if self.span else "",
            workspace=self.workspace,
        )

    def entries(self) -> list[LogEntry]:
        return [self.entry(i) for i in range(len(self))]

    def find(self, query: Query, before: int) -> Iterator[LogEntry]:
        """Those older than ``before`` that match, newest first."""
        if query.service and self.service != query.service:
            return
        if query.workspaces is not None and self.workspace not in query.workspaces:
            return
        text = query.text.lower()
        for i in range(min(len(self), before - self.first) - 1, -1, -1):
            if (
                self.severity[i] >= query.level
                and query.since <= self.at[i] < query.until
                and (not query.template or self.template[i] == query.template)
                and (not text or text in self.body[i].lower())
            ):
                yield self.entry(i)


def total(blocks: Sequence[Lines]) -> int:
    return sum(len(block) for block in blocks)
