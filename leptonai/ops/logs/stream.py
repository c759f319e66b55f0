"""The log of one service: its templates, their signals, and what it was like before."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from leptonai.ops.detect.words import Vocabulary
from leptonai.ops.logs.lines import Columns
from leptonai.ops.logs.miner import Miner
from leptonai.ops.logs.series import Rates, log_signals
from leptonai.ops.logs.shifts import Seen, Shift, Step, shifts
from leptonai.types import Signal

SHOWN = 10  # templates with a signal of their own: what is rare is found by the counts of new ones and of changes
KEEP = 900.0  # seconds of counts remembered
ERROR = 17  # OpenTelemetry's number from which a line is an error
RARE = 3.0  # decades of a line's rarest word from which it is counted
SAMPLE = 500  # characters of a line kept as a sample
REMEMBERED = 5_000  # templates with a sample; the longest unseen are forgotten


class Stream:
    """``lines`` counts all that were written, ``mined`` those read in full: a flood is sampled."""

    def __init__(self, service: str, now: float, miner: Miner | None = None) -> None:
        self.service = service
        self.began = self.last = now
        self.lines = self.mined = 0
        self.miner = miner or Miner()
        self._rates = Rates()
        self._history: deque[Step] = deque()
        self._seen: dict[int, Seen] = {}
        self._words, self._rare = Vocabulary(), 0
        self._words.learn(" ".join(words) for words in self.miner.read_before)

    def add(self, lines: Columns, now: float) -> list[int]:
        """The template of each line."""
        ids = self.miner.add_many(lines.body, lines.shapes)
        fresh = [" ".join(words) for words in self.miner.fresh]
        self.miner.fresh.clear()
        self._words.known(len(ids) - len(fresh))
        self._rare += int((self._words.score(fresh) >= RARE).sum())
        newest = dict(zip(ids, range(len(ids)), strict=True))
        for id, i in newest.items():
            old = self._seen.pop(id, None)  # last in the order of those to forget
            first = old.first if old else now
            self._seen[id] = Seen(first=first, sample=lines.body[i][:SAMPLE], severity=lines.severity[i])
        while len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return ids

    def step(self, ids: Sequence[int], errors: int, lines: int, now: float, elapsed: float) -> list[Signal]:
        """Signals of one step of ``elapsed`` seconds with ``lines`` lines, of which ``ids`` and ``errors`` were read:
        all are counted, templates and errors in proportion."""
        self.lines += lines
        self.mined += len(ids)
        if lines:
            self.last = now
        share = lines / len(ids) if ids else 1.0
        counts = {id: round(n * share) for id, n in Counter(ids).items()}
        if ids:
            self._history.append(Step(at=now, counts=counts))
        while self._history and self._history[0].at < now - KEEP:
            self._history.popleft()
        labels = {"service": self.service}
        signals, self._rates = log_signals(self._rates, counts, labels, now, SHOWN, elapsed)
        rates = {"log_rate_per_second": float(lines), "log_error_rate_per_second": errors * share}
        told = [s for s in signals if s.name != "log_lines_count"]
        told.append(Signal(name="log_rare_word_count", labels=labels, at=now, value=float(self._rare)))
        self._rare = 0
        return [
            *(Signal(name=n, labels=labels, at=now, value=v / elapsed) for n, v in rates.items()),
            *told,
        ]

    def shifts(self, onset: float, now: float) -> tuple[Shift, ...]:
        resolve = self.miner.resolve
        steps = []
        for step in self._history:
            counts: Counter[int] = Counter()
            for id, n in step.counts.items():
                counts[resolve(id)] += n
            steps.append(Step(at=step.at, counts=counts))
        seen: dict[int, Seen] = {}
        for id, one in self._seen.items():
            other = seen.get(resolve(id), one)
            text, first = self.miner.text(id), min(one.first, other.first)
            seen[resolve(id)] = Seen(first=first, sample=one.sample, severity=one.severity, text=text)
        return shifts(steps, seen, self.began, onset, now)

    def templates(self) -> list[dict[str, object]]:
        """All templates in force, most frequent first, with the newest line of each."""
        found = []
        for t in sorted(self.miner.templates, key=lambda t: (-t.count, t.id)):
            seen = self._seen.get(t.id)
            found.append(
                {
                    "template_id": t.id,
                    "template": t.text,
                    "count": t.count,
                    "severity": seen.severity if seen else 0,
                    "sample": seen.sample if seen else "",
                    "first": seen.first if seen else None,
                }
            )
        return found
