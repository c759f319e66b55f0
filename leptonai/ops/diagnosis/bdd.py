"""Binary decision diagrams of monotone functions: exact probability and minimal cut sets.

Sources: Bryant, "Graph-based algorithms for Boolean function manipulation" (IEEE Trans. Computers, 1986); Rauzy, "New
algorithms for fault trees analysis" (Reliability Engineering & System Safety, 1993), for the cut sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leptonai.errors import PluginError

NEVER, ALWAYS = 0, 1
MOST_NODES = 200_000


class Diagram:
    """Nodes are numbers; a child is always older than its parent. Variables are 0, 1, ... in the order tested.

    The same nodes speak of functions and, from ``minimal`` on, of families of sets: there the high branch holds the
    sets with the variable. PluginError past ``MOST_NODES``.
    """

    def __init__(self, variables: int) -> None:
        self._last = variables
        self._nodes: list[tuple[int, int, int]] = [(variables, 0, 0), (variables, 1, 1)]
        self._known: dict[tuple[int, int, int], int] = {}
        self._done: dict[tuple[str, int, int], int] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def variable(self, number: int) -> int:
        return self._make(number, NEVER, ALWAYS)

    def both(self, a: int, b: int) -> int:
        return self._apply("and", a, b)

    def either(self, a: int, b: int) -> int:
        return self._apply("or", a, b)

    def at_least(self, k: int, parts: Sequence[int]) -> int:
        """True when k of the parts are."""
        row = [ALWAYS] + [NEVER] * k  # row[j]: at least j of the parts looked at
        for part in parts:
            row = [ALWAYS] + [self.either(row[j], self.both(part, row[j - 1])) for j in range(1, k + 1)]
        return row[k]

    def probability(self, root: int, p: Sequence[float]) -> float:
        """That ``root`` is true, of independent variables true with probability ``p``; by Shannon's expansion."""
        value = {NEVER: 0.0, ALWAYS: 1.0}
        for node in self._below(root):
            variable, low, high = self._nodes[node]
            value[node] = p[variable] * value[high] + (1.0 - p[variable]) * value[low]
        return value[root]

    def minimal(self, root: int) -> int:
        """The family of the minimal sets of variables that make the monotone function ``root`` true."""
        if root <= ALWAYS:
            return root
        if (found := self._done.get(("minimal", root, 0))) is None:
            variable, low, high = self._nodes[root]
            without = self.minimal(low)
            with_ = self._without(self.minimal(high), without)
            found = self._done["minimal", root, 0] = without if with_ == NEVER else self._make(variable, without, with_)
        return found

    def count(self, family: int) -> int:
        """How many sets a family has."""
        value = {NEVER: 0, ALWAYS: 1}
        for node in self._below(family):
            _, low, high = self._nodes[node]
            value[node] = value[low] + value[high]
        return value[family]

    def sets(self, family: int) -> Iterator[frozenset[int]]:
        if family == NEVER:
            return
        if family == ALWAYS:
            yield frozenset()
            return
        variable, low, high = self._nodes[family]
        for rest in self.sets(high):
            yield rest | {variable}
        yield from self.sets(low)

    def any_of(self, family: int, member: int | None = None) -> int:
        """The function that is true when all of some set of the family are; only of sets with ``member``, if given."""
        if member is None and family <= ALWAYS:
            return family
        variable, low, high = self._nodes[family]
        if member is not None and variable > member:
            return NEVER
        key = ("any_of", family, -1 if member is None else member)
        if (found := self._done.get(key)) is None:
            here = self.any_of(high, None if variable == member else member)
            found = self.both(self.variable(variable), here)
            if variable != member:
                found = self.either(found, self.any_of(low, member))
            self._done[key] = found
        return found

    def _without(self, a: int, b: int) -> int:
        """The sets of family ``a`` that contain no set of family ``b``."""
        if a == NEVER or b == ALWAYS:
            return NEVER
        if b == NEVER or a == ALWAYS:
            return a
        if (found := self._done.get(("without", a, b))) is None:
            (va, la, ha), (vb, lb, hb) = self._nodes[a], self._nodes[b]
            if va > vb:
                found = self._without(a, lb)
            else:
                high = self._without(ha, b) if va < vb else self._without(self._without(ha, hb), lb)
                low = self._without(la, b if va < vb else lb)
                found = low if high == NEVER else self._make(va, low, high)
            self._done["without", a, b] = found
        return found

    def _apply(self, op: str, a: int, b: int) -> int:
        if a == b:
            return a
        a, b = min(a, b), max(a, b)
        if a <= ALWAYS:
            return b if a == (ALWAYS if op == "and" else NEVER) else a
        if (found := self._done.get((op, a, b))) is None:
            (va, la, ha), (vb, lb, hb) = self._nodes[a], self._nodes[b]
            top = min(va, vb)
            low = self._apply(op, la if va == top else a, lb if vb == top else b)
            high = self._apply(op, ha if va == top else a, hb if vb == top else b)
            found = self._done[op, a, b] = low if low == high else self._make(top, low, high)
        return found

    def _make(self, variable: int, low: int, high: int) -> int:
        key = (variable, low, high)
        if (found := self._known.get(key)) is None:
            if len(self._nodes) >= MOST_NODES:
                raise PluginError(
                    f"the fault tree needs more than {MOST_NODES:,} nodes to be solved exactly",
                    hint="split it, or let gates share fewer events",
                )
            found = self._known[key] = len(self._nodes)
            self._nodes.append(key)
        return found

    def _below(self, root: int) -> list[int]:
        """Every node under ``root`` and itself, children first."""
        seen, waiting = {root}, [root]
        while waiting:
            for child in self._nodes[waiting.pop()][1:]:
                if child > ALWAYS and child not in seen:
                    seen.add(child)
                    waiting.append(child)
        return sorted(seen - {NEVER, ALWAYS})
