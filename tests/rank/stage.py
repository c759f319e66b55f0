"""Small worlds by hand: a graph, its normal data, and a window in which named services are slower or fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from leptonai.ops.rank import Frame, Graph, Key, Suspect, rank

Calls = Mapping[str, Sequence[str]]


@dataclass
class World:
    """``calls`` as they are; every node has latency 10 + what its callees take, availability 100, 100 requests a row.

    ``added``, ``failing`` and ``asked`` say what the window adds per row from ``onset`` to each node's latency, failed
    percent, and requests, after propagation has been worked out by the test itself: what is written is what is seen.
    """

    calls: Calls
    added: Mapping[str, float] = field(default_factory=dict)
    failing: Mapping[str, float] = field(default_factory=dict)
    asked: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    rows: int = 6
    onset: int = 3
    seed: int = 0
    requests: Mapping[str, float] = field(default_factory=dict)

    def frames(self) -> tuple[Frame, Frame, Graph]:
        graph = Graph.of(self.calls)
        rng = np.random.default_rng(self.seed)
        made = []
        for rows, troubled in ((self.rows, True), (200, False)):
            after = (np.arange(rows) >= self.onset) & troubled
            keys, columns = [], []
            for node in graph.nodes:
                latency = 10 + rng.normal(0, 0.2, rows) + after * self.added.get(node, 0.0)
                availability = 100 - after * self.failing.get(node, 0.0)
                requests = self.requests.get(node, 100.0) + rng.normal(0, 1, rows) + after * self.asked.get(node, 0.0)
                if node in self.missing:
                    requests = np.where(after, 0.0, requests)
                    latency, availability = (np.where(after, np.nan, x) for x in (latency, availability))
                keys += [
                    Key(node, "latency", "Average"),
                    Key(node, "availability", "Average"),
                    Key(node, "requests", "Sum"),
                ]
                columns += [latency, availability, requests]
            made.append(Frame(np.arange(rows) * 300.0, tuple(keys), np.column_stack(columns)))
        return made[0], made[1], graph

    def suspects(self, target: str, metric: str = "latency") -> list[Suspect]:
        window, normal, graph = self.frames()
        return rank(window, normal, graph, Key(target, metric, "Average"))
