"""Text novelty below the template: words of a log line that were never read before, or next to never."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from leptonai.protocols import Floats

WORD = re.compile(r"[^\W\d_]{2,}")  # letters of any script; numbers and single letters are values, not words
CLASSES = 16  # of rarity: in 0, 1, 2 to 3, 4 to 7 ... different lines
KEPT = 50_000  # words remembered; the longest unread are forgotten


class Vocabulary:
    """How rare the rarest word of a line is, as -log10 of the share of lines with a word as rare.

    A word's class is the number of *different* lines it was read in, by powers of two: a line that repeats itself adds
    nothing, so only lines never read before need be looked at, and the others are counted (``known``). What is kept is
    how many lines had their rarest word in each class, when they came (a prequential estimate: Dawid 1984), fading
    over ``memory`` lines; so in a log that is full of new names a new word is no news. Cold start: of the first
    ``warm`` lines only words are learnt, since all words are new once; no score exceeds log10 of the lines since, so
    3 takes 1,000 of them. Cost: 60 bytes a word, at most KEPT, and 3 us a line that is looked at. Fails on: known words
    in an unusual order, and new templates of known words, which template novelty sees.
    """

    name = "words"

    def __init__(self, warm: int = 300, memory: float = 3_000.0, kept: int = KEPT) -> None:
        self.warm, self.memory, self.kept = warm, memory, kept
        self._cold = warm
        self._lines: dict[str, int] = {}  # word -> different lines it was in; the longest unread first
        self._share = np.zeros(CLASSES)  # lines by the class of their rarest word

    def known(self, lines: int) -> None:
        """So many lines came that were read before: no word of theirs is new, and it is not asked how rare they are."""
        counted = max(0, lines - self._cold)
        self._cold = max(0, self._cold - lines)
        self._share *= (1.0 - 1.0 / self.memory) ** counted
        self._share[1] += counted

    def learn(self, lines: Iterable[str]) -> None:
        """Lines of the past: their words are known from now on, and nothing is said of them."""
        for line in lines:
            self._rarest(line)

    def score(self, lines: Sequence[str]) -> Floats:
        """Of each line in turn, which it learns; nan for the first ``warm``, 0 for one without words."""
        out = np.full(len(lines), np.nan)
        fade = 1.0 - 1.0 / self.memory
        for i, line in enumerate(lines):
            rarest = self._rarest(line)
            if self._cold:
                self._cold -= 1
                continue
            total, as_rare = float(self._share.sum()), float(self._share[: rarest + 1].sum())
            out[i] = np.log10((total + 1.0) / (as_rare + 1.0))
            self._share *= fade
            self._share[rarest] += 1.0
        return out

    def _rarest(self, line: str) -> int:
        """The class of the line's rarest word before this line; learns the words."""
        seen, least = self._lines, 1 << CLASSES
        for word in set(WORD.findall(line.lower())):
            lines = seen.pop(word, 0)
            seen[word] = lines + 1
            least = min(least, lines)
        while len(seen) > self.kept:
            del seen[next(iter(seen))]
        return min(least.bit_length(), CLASSES - 1)
