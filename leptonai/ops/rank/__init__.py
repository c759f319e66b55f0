"""Root-cause ranking over a call graph: which services' own trouble explains the trouble of a target.

``rank`` is the whole of it; ``read_metrics``, ``read_graph`` and ``read_target`` make its arguments from CSV files.
"""

from __future__ import annotations

from leptonai.ops.rank.frame import Frame, Graph, Key
from leptonai.ops.rank.ranking import Suspect, rank
from leptonai.ops.rank.read import read_graph, read_metrics, read_target

__all__ = ["Frame", "Graph", "Key", "Suspect", "rank", "read_graph", "read_metrics", "read_target"]
