"""The online miner: a line in, the id of its template out, in bounded memory and without a clock or randomness."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec

from leptonai.errors import SpecError
from leptonai.ops.logs.split import FEW, split
from leptonai.ops.logs.words import MAX_CHARS, PREFIX, WILD, Words, collapse, gaps, join, read, shapes, squeeze
from leptonai.types import Noun

PATTERNS = 20_000  # examples kept at most; beyond, lines of no known template go to the one template "<*>"
RECALL = 50_000  # lines (up to numbers) whose template is looked up instead of found
FRESH = 10_000  # newest lines kept for whoever judges their words
GROWTH = 2  # a bucket is split anew when it grew by a half
_GLUED = re.compile(r"[A-Za-z][0-9]|[0-9][A-Za-z]").search  # such digits tell alt0 from alt1
_NONE = "\n"  # the shape of a line that is not looked up by one
_DIGIT = re.compile(r"[0-9]").search


class Template(Noun, frozen=True, kw_only=True):
    """``id`` counts from 1 in order of appearance; ``count``: lines seen."""

    id: int
    text: str
    count: int


class _Pattern:
    """One distinct line up to values. ``leaf`` None: to be looked up anew."""

    __slots__ = ("display", "key", "leaf", "line")

    def __init__(self, display: Words, key: Words, line: str) -> None:
        self.display = display
        self.key = key
        self.line = line  # for the white space between its words
        self.leaf: _Leaf | None = None


class _Leaf:
    """One event within a bucket: what its kept patterns have in common. ``public``: the id that users see, the least
    of all leaves with the same words up to runs of values."""

    __slots__ = ("alone", "blank", "display", "fixed", "id", "keys", "public", "said", "size", "words")

    def __init__(self, id: int, display: Sequence[str], keys: Sequence[set[str]], blank: list[str]) -> None:
        self.id = self.public = id
        self.alone = True  # no other leaf has its words
        self.display = list(display)
        self.keys = list(keys)
        self.blank = blank
        self.size = 0  # kept patterns
        self.words: Words | None = None
        self.said = ""  # its text, "" since it has changed
        self.fixed: tuple[tuple[int, ...], Words] | None = None  # positions with one key, and the keys; None: ask anew

    @classmethod
    def of(cls, id: int, patterns: Sequence[_Pattern]) -> _Leaf:
        first = patterns[0]
        if len(patterns) == 1:
            return cls(id, first.display, [{k} for k in first.key], gaps(first.line))
        display = [reduce(join, dict.fromkeys(column)) for column in zip(*(p.display for p in patterns), strict=True)]
        columns = (dict.fromkeys(column) for column in zip(*(p.key for p in patterns), strict=True))
        return cls(id, display, [set(islice(column, FEW + 2)) for column in columns], gaps(first.line))

    def take(self, pattern: _Pattern) -> bool:
        """Learn from a pattern; whether there was anything to learn."""
        news = False
        for p, (shown, key) in enumerate(zip(pattern.display, pattern.key, strict=True)):
            if shown != self.display[p] and (both := join(self.display[p], shown)) != self.display[p]:
                self.display[p] = both
                self.said = ""
                news = True
            seen = self.keys[p]
            if key not in seen and len(seen) <= FEW + 1:  # enough to stay a variable when the bucket is split anew
                seen.add(key)
                self.fixed = None
                news = True
        return news

    def text(self) -> str:
        if not self.said:
            self.said = self._text()
        return self.said

    def _text(self) -> str:
        if len(self.blank) != len(self.display) + 1:
            return " ".join(self.display)
        return "".join(b + w for b, w in zip(self.blank, [*self.display, ""], strict=True)).strip()


class _Bucket:
    """The events of one number of words."""

    def __init__(self) -> None:
        self.kept: list[_Pattern] = []
        self.mined = 0  # kept when last split
        self.extra: list[_Pattern] = []  # nothing to learn from: forgotten at will
        self.leaves: list[_Leaf] = []
        self.whole: dict[Words, _Leaf] = {}  # leaves without a variable
        self.shapes: list[tuple[Callable[[Words], Any] | None, dict[Any, _Leaf]]] = []

    def find(self, key: Words) -> _Leaf | None:
        if found := self.whole.get(key):
            return found
        for fixed, leaves in self.shapes:
            if leaf := leaves.get(fixed(key) if fixed else None):
                return leaf
        return None

    def index(self) -> None:
        """Leaves by which positions they fix, those that fix most first."""
        shapes: dict[tuple[int, ...], dict[Any, _Leaf]] = {}
        self.whole = {}
        for leaf in self.leaves:
            if leaf.fixed is None:
                places = tuple([p for p, keys in enumerate(leaf.keys) if len(keys) == 1])
                leaf.fixed = places, tuple([next(iter(leaf.keys[p])) for p in places])
            fixed, values = leaf.fixed
            if len(fixed) == len(leaf.keys):
                self.whole[values] = leaf
                continue
            by = shapes.setdefault(fixed, {})
            by.setdefault(values[0] if len(fixed) == 1 else values or None, leaf)
        order = sorted(shapes, key=lambda fixed: (-len(fixed), fixed))
        self.shapes = [(itemgetter(*fixed) if fixed else None, shapes[fixed]) for fixed in order]


class Miner:
    """Online: an id is what is known at that line. A later line may show that two events are one (the younger id then
    means the older, see ``resolve``) or that one is two (later lines get a new id). ``settle``, then ``match``, gives
    ids as known at the end.

    Memory is bounded by PATTERNS and RECALL, each of at most MAX_CHARS characters.
    """

    def __init__(self) -> None:
        self.overflow = 0  # distinct lines of no known template after PATTERNS was reached
        self.fresh: deque[Words] = deque(maxlen=FRESH)  # words of the newest lines that were never read before
        self._buckets: dict[int, _Bucket] = {}
        self._recall: dict[str, _Pattern] = {}  # by the line with every lone number as 0
        self._quick: dict[str, _Pattern] = {}  # by the line with every digit as 0, where that says the same
        self._shown: dict[Words, _Pattern] = {}
        self._leaves: dict[int, _Leaf] = {}
        self._twins: dict[Words, list[_Leaf]] = {}  # by words up to runs of values
        self._counts: Counter[int] = Counter()  # by the id given at the time
        self._gone: dict[int, int] = {}  # id of a leaf that is no more -> the leaf with its first pattern
        self._kept = 0
        self._next = 1
        self._other: _Leaf | None = None  # "<*>", once there are PATTERNS

    def add(self, line: str) -> int:
        """Learn one line; the id of its template. A line end within a line counts as a blank."""
        return self.add_many((line,))[0]

    def add_many(self, lines: Sequence[str], known: Sequence[str] = ()) -> list[int]:
        """The same as ``add`` of each in turn, faster. ``known``: their ``shapes``, of lines without line ends and
        PREFIX, where these are known already."""
        if not known:
            text = "\n".join(lines)
            known = shapes(text).split("\n")
            if len(known) != len(lines) or PREFIX in text:
                lines = [line.replace("\n", " ") for line in lines]
                known = [_NONE if PREFIX in line else shapes(line) for line in lines]
        quick = self._quick.get
        found = []
        for i, shape in enumerate(known):
            pattern = quick(shape)
            leaf = pattern.leaf if pattern else None
            found.append((leaf or self._look(lines[i], shape)).public)
        self._counts.update(found)
        return found

    def match(self, lines: Sequence[str]) -> list[int]:
        """Ids of lines without counting them, as known now. A line never seen is learnt by it."""
        counts, self._counts = self._counts, Counter()
        try:
            return self.add_many(lines)
        finally:
            self._counts = counts

    def settle(self) -> None:
        """Split every bucket anew: templates are then those of all lines so far."""
        for bucket in self._buckets.values():
            if len(bucket.kept) > bucket.mined:
                self._mine(bucket)

    def resolve(self, id: int) -> int:
        """The id that an id given earlier has now. Raises KeyError for one never given."""
        while id in self._gone:
            id = self._gone[id]
        return self._leaves[id].public

    def text(self, id: int) -> str:
        leaf = self._leaves.get(id)
        if leaf is None or leaf.public != id:
            leaf = self._leaves[self.resolve(id)]
        return leaf.text() if leaf.alone else " ".join(leaf.words or ())

    @property
    def read_before(self) -> Iterator[Words]:
        """The words of all example lines that are kept, as they are after ``load`` too."""
        return (pattern.display for bucket in self._buckets.values() for pattern in bucket.kept)

    @property
    def templates(self) -> list[Template]:
        """All that are in force, by id."""
        counts: Counter[int] = Counter()
        for id, n in self._counts.items():
            counts[self.resolve(id)] += n
        ids = sorted({leaf.public for leaf in self._leaves.values()})
        return [Template(id=i, text=self.text(i), count=counts[i]) for i in ids]

    def dump(self) -> bytes:
        """JSON from which ``load`` makes a miner that goes on exactly as this one."""
        buckets = []
        for size, b in self._buckets.items():
            place = {leaf.id: i for i, leaf in enumerate(b.leaves)}
            leaves = [(f.id, tuple(f.display), [sorted(k) for k in f.keys], f.blank) for f in b.leaves]
            kept = [(p.display, p.key, p.line, place[p.leaf.id]) for p in b.kept if p.leaf]
            buckets.append((size, b.mined, leaves, kept))
        state = _State(
            version=1,
            overflow=self.overflow,
            next=self._next,
            other=self._other.id if self._other else 0,
            counts=sorted(self._counts.items()),
            gone=sorted(self._gone.items()),
            buckets=buckets,
        )
        return msgspec.json.encode(state)

    @classmethod
    def load(cls, data: bytes) -> Miner:
        """Raises SpecError when ``data`` is not what ``dump`` wrote."""
        try:
            state = msgspec.json.decode(data, type=_State)
            if state.version != 1:
                raise ValueError(f"version {state.version}, not 1")
            return cls._restore(state)
        except (msgspec.DecodeError, ValueError, IndexError) as e:
            raise SpecError(f"this is no dump of a template miner: {e}", hint="mine the log again") from None

    @classmethod
    def _restore(cls, state: _State) -> Miner:
        miner = cls()
        miner.overflow, miner._next = state.overflow, state.next
        miner._counts, miner._gone = Counter(dict(state.counts)), dict(state.gone)
        for size, mined, leaves, kept in state.buckets:
            bucket = miner._buckets[size] = _Bucket()
            bucket.mined = mined
            bucket.leaves = [_Leaf(id, shown, [set(k) for k in keys], blank) for id, shown, keys, blank in leaves]
            for leaf in bucket.leaves:
                miner._name(leaf)
            for display, key, line, place in kept:
                pattern = miner._shown[display] = _Pattern(display, key, line)
                pattern.leaf = bucket.leaves[place]
                pattern.leaf.size += 1
                bucket.kept.append(pattern)
            bucket.index()
            miner._kept += len(kept)
        if state.other:
            miner._other = _Leaf(state.other, [WILD], [{WILD}], [])
            miner._name(miner._other)
        return miner

    def _look(self, line: str, shape: str) -> _Leaf:
        line = collapse(line)
        pattern = self._recall.get(line)
        leaf = pattern.leaf if pattern else None
        if leaf is None:
            leaf = self._learn(line, pattern)
        if shape != _NONE and len(shape) <= MAX_CHARS and (not _GLUED(shape) or _indifferent(shape, leaf)):
            if len(self._quick) >= RECALL:
                self._quick.clear()
            self._quick[shape] = self._recall[line]
        return leaf

    def _learn(self, line: str, pattern: _Pattern | None) -> _Leaf:
        if pattern is None:
            pattern = self._read(line)
            if pattern.leaf:
                return pattern.leaf
        bucket = self._buckets.get(len(pattern.key))
        if bucket is None:
            bucket = self._buckets[len(pattern.key)] = _Bucket()
        leaf = bucket.find(pattern.key)
        if leaf is None:
            if self._kept >= PATTERNS:
                return self._give_up(pattern, bucket)
            leaf = _Leaf.of(self._new(), [pattern])
            bucket.leaves.append(leaf)
            bucket.whole[pattern.key] = leaf
            self._keep(bucket, pattern, leaf)
            self._name(leaf)
        elif leaf.take(pattern):
            self._name(leaf)
            if self._kept < PATTERNS:
                self._keep(bucket, pattern, leaf)
            else:
                bucket.extra.append(pattern)
        else:
            bucket.extra.append(pattern)
        pattern.leaf = leaf
        if len(bucket.kept) - bucket.mined > bucket.mined // GROWTH:
            self._mine(bucket)
        return pattern.leaf or self._learn(line, pattern)

    def _read(self, line: str) -> _Pattern:
        if len(self._recall) >= RECALL:
            self._recall.clear()
            self._quick.clear()
            for bucket in self._buckets.values():
                bucket.extra.clear()
            self._shown = {p.display: p for bucket in self._buckets.values() for p in bucket.kept}
        display, key = read(line)
        pattern = self._shown.get(display)
        if pattern is None:
            pattern = self._shown[display] = _Pattern(display, key, line)
            self.fresh.append(display)
        self._recall[line] = pattern
        return pattern

    def _give_up(self, pattern: _Pattern, bucket: _Bucket) -> _Leaf:
        if self._other is None:
            self._other = _Leaf(self._new(), [WILD], [{WILD}], [])
            self._name(self._other)
        self.overflow += 1
        pattern.leaf = self._other
        bucket.extra.append(pattern)
        return self._other

    def _new(self) -> int:
        self._next += 1
        return self._next - 1

    def _keep(self, bucket: _Bucket, pattern: _Pattern, leaf: _Leaf) -> None:
        bucket.kept.append(pattern)
        leaf.size += 1
        self._kept += 1

    def _mine(self, bucket: _Bucket) -> None:
        """Split the kept patterns anew. A group keeps the oldest id among its patterns that no group before it took;
        an id that no group took leads to the group of its first pattern."""
        bucket.mined = len(bucket.kept)
        groups = [[bucket.kept[i] for i in group] for group in split([p.key for p in bucket.kept])]
        same = {id(group): leaf for group in groups if (leaf := _only(group))}
        stay = {leaf.id for leaf in same.values()}
        for leaf in bucket.leaves:
            if leaf.id not in stay:
                self._unname(leaf)
                del self._leaves[leaf.id]
        bucket.leaves = []
        heir: dict[int, int] = {}
        for group in groups:
            leaf = same.get(id(group)) or self._regroup(group, heir)
            bucket.leaves.append(leaf)
            self._name(leaf)
        self._gone.update((was, now) for was, now in heir.items() if was != now)
        bucket.index()
        for pattern in bucket.extra:
            pattern.leaf = None
        bucket.extra.clear()

    def _regroup(self, group: list[_Pattern], heir: dict[int, int]) -> _Leaf:
        old = dict.fromkeys(p.leaf.id for p in group if p.leaf)
        leaf = _Leaf.of(min((i for i in old if i not in heir), default=0) or self._new(), group)
        leaf.size = len(group)
        for pattern in group:
            pattern.leaf = leaf
        for i in old:
            heir.setdefault(i, leaf.id)
        return leaf

    def _name(self, leaf: _Leaf) -> None:
        """Put the leaf among those of the same words; lists of different lengths become one template here."""
        words = squeeze(leaf.display)
        if leaf.words == words:
            return
        if leaf.words is not None:
            self._unname(leaf)
        leaf.words = words
        self._leaves[leaf.id] = leaf
        self._twins.setdefault(words, []).append(leaf)
        self._publish(words)

    def _unname(self, leaf: _Leaf) -> None:
        words = leaf.words or ()
        self._twins[words].remove(leaf)
        leaf.words = None
        self._publish(words)

    def _publish(self, words: Words) -> None:
        twins = self._twins[words]
        if not twins:
            del self._twins[words]
            return
        public = min(leaf.id for leaf in twins)
        for leaf in twins:
            leaf.public, leaf.alone = public, len(twins) == 1


def _indifferent(shape: str, leaf: _Leaf) -> bool:
    """Whether a line of this shape is of ``leaf`` whatever its digits are, and none of them is news to it.

    Keys see no digits, so the digits of a word can change what a template shows and nothing else; where the template
    shows ``<*>`` already they do not.
    """
    words = shape.split()
    return len(words) == len(leaf.display) and not any(
        _DIGIT(shown) and _GLUED(word) for word, shown in zip(words, leaf.display, strict=True)
    )


_LeafState = tuple[int, tuple[str, ...], list[list[str]], list[str]]
_PatternState = tuple[tuple[str, ...], tuple[str, ...], str, int]


class _State(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    overflow: int
    next: int
    other: int
    counts: list[tuple[int, int]]
    gone: list[tuple[int, int]]
    buckets: list[tuple[int, int, list[_LeafState], list[_PatternState]]]


def _only(group: list[_Pattern]) -> _Leaf | None:
    """The leaf whose kept patterns are exactly these."""
    leaf = group[0].leaf
    whole = leaf is not None and leaf.size == len(group) and all(p.leaf is leaf for p in group)
    return leaf if whole else None
