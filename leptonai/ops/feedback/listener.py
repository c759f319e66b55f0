"""What users say, in the loop of ops: their opinions, what they complain of, whether repairs made that rarer."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Literal

from leptonai.client.wire import IssueVerdict
from leptonai.errors import LeptonError
from leptonai.ops.control import Control
from leptonai.ops.feedback.fell import Fell, fell
from leptonai.ops.feedback.issues import HOUR, counted
from leptonai.ops.feedback.kpi import Opinions
from leptonai.protocols import TelemetryStore
from leptonai.types import Issue, Key, Signal

LOOK_EVERY = 60.0  # seconds between two looks at repaired issues
LONGEST = 7 * 24 * HOUR  # seconds before a repair that its complaints are compared with
RECENT = 24 * HOUR  # seconds whose complaints ``issue_complaints_count`` counts
OPEN: tuple[Literal["open", "in_work"], ...] = ("open", "in_work")  # issues that nobody has repaired


class Listener:
    def __init__(self, control: Control, store: TelemetryStore) -> None:
        self.opinions = Opinions()
        self._control, self._store = control, store
        self._looked = self._counted = float("-inf")
        self._complaints: dict[Key, dict[int, int]] = {}  # service -> issue -> complaints lately

    async def count(self, services: Collection[Key], now: float) -> list[Signal]:
        """``issue_complaints_count`` of each issue that is open or in work, by service and issue; the issues are read
        every LOOK_EVERY seconds."""
        if now - self._counted >= LOOK_EVERY:
            self._counted = now
            found: dict[Key, dict[int, int]] = {}
            for issue in [i for state in OPEN for i in await self._control.issues(state)]:
                if many := counted(issue, now - RECENT, now + HOUR):
                    found.setdefault(issue.service, {})[issue.id] = many
            self._complaints = found
        return [
            Signal(name="issue_complaints_count", labels={"service": key, "issue": str(id)}, at=now, value=float(many))
            for key, issues in self._complaints.items()
            if key in services
            for id, many in issues.items()
        ]

    async def verify(self, now: float) -> None:
        """Each repaired issue of which it can be told by now whether complaints became rarer is closed, or open again.

        Raises the first LeptonError, after the others were looked at.
        """
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        failed: LeptonError | None = None
        for issue in await self._control.issues("fixed"):
            found = self.judge(issue, now)
            if found is None or found.outcome == "unknown":
                continue
            verdict = IssueVerdict(
                fell=found.outcome == "fell", before=found.before, after=found.after, chance=found.chance
            )
            try:
                await self._control.judge_issue(issue.id, verdict)
            except LeptonError as e:
                failed = e
        if failed is not None:
            raise failed

    def judge(self, issue: Issue, now: float) -> Fell | None:
        """None in the first hour: complaints are counted by the hour, and that of the repair belongs to before."""
        if issue.fixed is None or now - issue.fixed < HOUR:
            return None
        start = max(issue.first, issue.fixed - LONGEST) // HOUR * HOUR
        repaired = issue.fixed // HOUR * HOUR + HOUR
        asked = [self._asked(issue.service, a, b) for a, b in ((start, repaired), (repaired, now))]
        if min(asked) <= 0.0:  # requests are not known of both stretches: their lengths are compared
            asked = [repaired - start, now - repaired]
        if min(asked) <= 0.0:
            return None
        return fell(counted(issue, start, repaired), asked[0], counted(issue, repaired, now + HOUR), asked[1])

    def _asked(self, key: Key, start: float, end: float) -> float:
        """Requests of the service between two moments, as far as they were measured."""
        total = 0.0
        for series in self._store.read("request_rate_per_second", start, end, {"service": key}):
            seen = [(t, v) for t, v in zip(series.at, series.value, strict=True) if v == v]
            gaps = sorted(b[0] - a[0] for a, b in pairwise(seen))
            total += sum(v for _, v in seen) * (gaps[len(gaps) // 2] if gaps else 0.0)
        return total
