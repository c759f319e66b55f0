"""Pages of others, read at their interval: Prometheus text and OpenMetrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from leptonai.ops.exposition import head
from leptonai.ops.receive import Pairs, Point, Receiver
from leptonai.settings import Scrape, Target

log = logging.getLogger(__name__)
ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.8"  # as Prometheus asks
_EXEMPLAR = re.compile(r" # \{")


class Page(NamedTuple):
    """What a page says. ``samples``: (name, labels, unix seconds or None, value) in its order; ``odd``: lines that
    are no sample; ``whole``: an OpenMetrics page that ends in ``# EOF``, or one in plain text."""

    samples: list[tuple[str, Pairs, float | None, float]]
    odd: int
    whole: bool


def read_page(text: str, openmetrics: bool) -> Page:
    """Pure. Times are milliseconds in plain text, seconds in OpenMetrics; exemplars are passed over."""
    samples: list[tuple[str, Pairs, float | None, float]] = []
    odd, ended = 0, False
    for line in text.split("\n"):
        if not line or line[0] == "#":
            ended = ended or line.startswith("# EOF")
            continue
        if openmetrics and " # {" in line:
            line = _EXEMPLAR.split(line, maxsplit=1)[0]
        end = line.rfind("}") + 1
        start, tail = (line[:end], line[end:].split()) if end else (line.partition(" ")[0], line.split()[1:])
        try:
            value = float(tail[0])
            at = float(tail[1]) * (1.0 if openmetrics else 1e-3) if len(tail) > 1 else None
            name, labels = head(start)
        except (ValueError, IndexError):
            odd += 1
            continue
        if not name or len(tail) > 2:
            odd += 1
            continue
        samples.append((name, tuple(labels.items()), at, value))
    return Page(samples, odd, ended or not openmetrics)


class Scraper:
    """Reads every target until cancelled. Each reading also gives ``up`` (1 when the page was taken),
    ``scrape_duration_seconds`` and ``scrape_samples_count`` with the same labels ``job`` and ``instance``.

    Counted at the receiver by workspace: ``scrape_failed``, ``scrape_odd_lines``.
    """

    def __init__(self, settings: Scrape, receiver: Receiver, clock: Callable[[], float]) -> None:
        self._settings, self._receiver, self._clock = settings, receiver, clock
        self._failing: dict[str, str] = {}

    async def run(self) -> None:
        if not self._settings.targets:
            return
        async with httpx.AsyncClient(trust_env=False) as http:
            await asyncio.gather(*(self._follow(http, target) for target in self._settings.targets))

    async def _follow(self, http: httpx.AsyncClient, target: Target) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self.once(http, target)
            due = max(due + target.interval, loop.time())  # late readings are not made up for
            await asyncio.sleep(due - loop.time())

    async def once(self, http: httpx.AsyncClient, target: Target) -> None:
        """One reading: its samples can be read when this returns. Never raises for what the other side does."""
        at, began = self._clock(), time.perf_counter()
        own: Pairs = (*target.labels.items(), ("job", target.name), ("instance", urlsplit(target.url).netloc))
        points: list[Point] = []
        try:
            async with asyncio.timeout(target.timeout):
                points = self._points(await self._fetch(http, target), own, target, at)
            said = ""
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, OSError) as e:
            said = str(e) or f"no answer within {target.timeout:g} s" if isinstance(e, TimeoutError) else str(e)
            said = said or type(e).__name__
            self._receiver.count(target.workspace, "scrape_failed")
        self._tell(target, said)
        count = len(points)
        for name, value in (
            ("up", float(not said)),
            ("scrape_duration_seconds", time.perf_counter() - began),
            ("scrape_samples_count", float(count)),
        ):
            points.append(Point(name, own, at, value))
        self._receiver.take(points, target.workspace, f"scrape {target.name}")

    async def _fetch(self, http: httpx.AsyncClient, target: Target) -> tuple[str, bool]:
        headers = {"accept": ACCEPT, "accept-encoding": "gzip"}
        if target.token:
            headers["authorization"] = f"Bearer {target.token}"
        limit, page = self._settings.page_bytes, bytearray()
        async with http.stream("GET", target.url, headers=headers, timeout=target.timeout) as answer:
            if answer.status_code != 200:
                raise ValueError(f"answered {answer.status_code}")
            packed = answer.headers.get("content-encoding", "") == "gzip"
            opened = zlib.decompressobj(31)
            async for piece in answer.aiter_raw():
                try:
                    page += opened.decompress(piece, limit + 1 - len(page)) if packed else piece
                except zlib.error as e:
                    raise ValueError(f"the page is no gzip: {e}") from e
                if len(page) > limit:
                    raise ValueError(f"the page has more than {limit} bytes (scrape.page_bytes)")
            kind = answer.headers.get("content-type", "")
        return page.decode("utf-8", "replace"), "openmetrics" in kind

    def _points(self, page: tuple[str, bool], own: Pairs, target: Target, at: float) -> list[Point]:
        text, openmetrics = page
        found = read_page(text, openmetrics)
        if not found.whole:
            raise ValueError("the OpenMetrics page was cut short: it does not end in # EOF")
        if found.odd and not found.samples:
            raise ValueError("the page has no line that is a sample: is it Prometheus text?")
        if len(found.samples) > self._settings.page_series:
            limit = self._settings.page_series
            raise ValueError(f"the page has {len(found.samples)} series, the limit is {limit} (scrape.page_series)")
        if found.odd:
            self._receiver.count(target.workspace, "scrape_odd_lines", found.odd)
        ours = {k for k, _ in own}
        return [
            Point(
                name,
                (*((f"exported_{k}" if k in ours else k, v) for k, v in labels), *own) if labels else own,
                at if moment is None else moment,
                value,
            )
            for name, labels, moment, value in found.samples
        ]

    def _tell(self, target: Target, said: str) -> None:
        before = self._failing.get(target.name, "")
        if said and not before:
            log.error("scrape of %s (%s): %s; told once until it works again", target.name, target.url, said)
        elif before and not said:
            log.info("scrape of %s works again", target.name)
        self._failing[target.name] = said
