"""What ranking looks at: a table of series, a call graph, one series of the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from leptonai.errors import SpecError
from leptonai.protocols import Floats


class Key(NamedTuple):
    """The name of one series."""

    service: str
    metric: str
    statistic: str

    def __str__(self) -> str:
        return ",".join(self)


@dataclass(frozen=True)
class Frame:
    """Series side by side: ``times`` (T,), seconds, rising; ``values`` (T, K), nan where missing; K distinct keys."""

    times: Floats
    keys: tuple[Key, ...]
    values: Floats
    column: Mapping[Key, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.times), len(self.keys)):
            raise SpecError(
                f"a frame of {self.values.shape} values under {len(self.times)} times and {len(self.keys)} keys",
                hint="one row per time, one column per key",
            )
        object.__setattr__(self, "column", {key: i for i, key in enumerate(self.keys)})

    def take(self, keys: Iterable[Key | None]) -> Floats:
        """(T, len(keys)): these series in this order; all nan where one is absent or None."""
        at = np.array([-1 if key is None else self.column.get(key, -1) for key in keys], dtype=np.intp)
        if not len(self.keys):
            return np.full((len(self.times), len(at)), np.nan)
        out: Floats = np.where(at >= 0, self.values[:, at], np.nan)
        return out

    def rows(self, start: int, stop: int) -> Frame:
        """The rows ``start`` up to, not including, ``stop``."""
        return Frame(self.times[start:stop], self.keys, self.values[start:stop])


@dataclass(frozen=True)
class Graph:
    """Who calls whom: edge i says that node ``caller[i]`` calls node ``callee[i]``. Cycles are allowed."""

    nodes: tuple[str, ...]
    caller: NDArray[np.intp]
    callee: NDArray[np.intp]

    @classmethod
    def of(cls, calls: Mapping[str, Iterable[str]]) -> Graph:
        """The graph of ``{caller: callees}``; a service that calls nobody may be left out of the keys."""
        edges = {(a, b): None for a, callees in calls.items() for b in callees if a != b}
        nodes = tuple(dict.fromkeys([*calls, *(b for _, b in edges)]))
        at = {node: i for i, node in enumerate(nodes)}
        pairs = np.array([(at[a], at[b]) for a, b in edges], dtype=np.intp).reshape(-1, 2)
        return cls(nodes, pairs[:, 0], pairs[:, 1])

    def without(self, silent: NDArray[np.bool_]) -> Graph:
        """The same nodes; who called a ``silent`` node is taken to call what that node called, through any number."""
        if not silent.any():
            return self
        callees: list[list[int]] = [[] for _ in self.nodes]
        for a, b in zip(self.caller.tolist(), self.callee.tolist(), strict=True):
            callees[a].append(b)
        edges: set[tuple[int, int]] = set()
        for a in np.flatnonzero(~silent).tolist():
            seen: set[int] = set()
            front = list(callees[a])
            while front:
                b = front.pop()
                if b in seen:
                    continue
                seen.add(b)
                if silent[b]:
                    front += callees[b]
                elif a != b:
                    edges.add((a, b))
        pairs = np.array(sorted(edges), dtype=np.intp).reshape(-1, 2)
        return Graph(self.nodes, pairs[:, 0], pairs[:, 1])

    def forward(self, start: int) -> Graph:
        """The same nodes without the edges that lead back inside a cycle as seen from node ``start``: none is left.

        An edge leads back when both ends are on one cycle and its callee is no farther from ``start``, in calls.
        """
        n = len(self.nodes)
        calls = coo_array((np.ones(len(self.caller)), (self.caller, self.callee)), shape=(n, n)).tocsr()
        _, cycle = connected_components(calls, directed=True, connection="strong")
        order, parent = breadth_first_order(calls, start, directed=True, return_predecessors=True)
        depth = np.full(n, n)
        depth[start] = 0
        for node in order[1:].tolist():
            depth[node] = depth[parent[node]] + 1
        keep = (cycle[self.caller] != cycle[self.callee]) | (depth[self.callee] > depth[self.caller])
        return Graph(self.nodes, self.caller[keep], self.callee[keep])
