"""Our spans to a configured collector, over OTLP/HTTP."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections import Counter, deque
from collections.abc import Sequence

import httpx

from leptonai.ops.otlp.traces import request
from leptonai.settings import Traces
from leptonai.types import Span

log = logging.getLogger(__name__)
BATCH = 512  # spans a request, the default of OpenTelemetry's batch processor
EVERY = 2.0  # seconds between two looks at what waits
RETRY = (429, 502, 503, 504)  # statuses after which a request may be repeated (OTLP/HTTP, "Retryable Response Codes")
LONGEST = 60.0  # seconds between two tries


class Exporter:
    """``counts``: ``exported``, ``refused`` by the collector, ``dropped`` (too many waited), ``failed`` tries."""

    def __init__(self, settings: Traces) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._waiting: deque[Span] = deque()

    def put(self, spans: Sequence[Span]) -> None:
        """Hand over; never waits. The oldest go when too many wait."""
        if not self._settings.export_url:
            return
        self._waiting.extend(spans)
        over = len(self._waiting) - self._settings.export_pending
        if over > 0:
            if not self.counts["dropped"]:
                log.error("the collector %s is too slow or away: spans are dropped", self._settings.export_url)
            self.counts["dropped"] += over
            for _ in range(over):
                self._waiting.popleft()

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        if not self._settings.export_url:
            return
        pause = EVERY
        async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
            while True:
                await asyncio.sleep(pause)
                while self._waiting:
                    if not await self._send(http):
                        pause = min(2 * pause, LONGEST)
                        break
                    pause = EVERY

    async def _send(self, http: httpx.AsyncClient) -> bool:
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
        try:
            answer = await http.post(
                self._settings.export_url,
                content=gzip.compress(request(batch), 1),
                headers={**headers, **self._settings.export_headers},
            )
            status, said = answer.status_code, f"answered {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            status, said = 503, str(e) or type(e).__name__
        if status < 300:
            self.counts["exported"] += len(batch)
            return True
        if status not in RETRY:
            if not self.counts["refused"]:
                log.error("the collector %s refuses spans: %s; told once", self._settings.export_url, said)
            self.counts["refused"] += len(batch)
            return True
        if not self.counts["failed"]:
            log.error("spans cannot be sent to %s: %s; tried again, told once", self._settings.export_url, said)
        self.counts["failed"] += 1
        self._waiting.extendleft(reversed(batch))
        return False
