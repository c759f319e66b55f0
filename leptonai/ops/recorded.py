"""Requests that the old version answered lately, put to the new one before it is given any. Kept in memory only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import isclose
from typing import Any

import httpx
import msgspec

from leptonai.plan.lanes import lanes
from leptonai.plan.rollout import RECORDED, Finding
from leptonai.types import Answered, Replica, Service

MOST_BYTES = 1 << 20  # of one replica's requests and answers in one look
EVERY = 3600.0  # seconds until the same question is recorded again: different ones say more
AT_ONCE = 20  # recorded requests put to the new version in one look
PATIENCE = 2.0  # seconds for one answer
TRIES = 3  # failures of one request that convict: a chance failure does not come three times in a row
AGAIN = (429, 503)  # not now; no judgement of the request
NEAR = 0.05  # relative difference of numbers that is none
_ABOUT = {"id", "model_name", "model_version", "parameters"}  # of an answer, that say who answered


class Recorded:
    """Of one rollout with ``rollout.record``. ``step`` records and asks, ``finding`` says what came of it."""

    def __init__(self, secret: Callable[[], str] = lambda: "") -> None:
        """``secret``: by which replicas in pods take orders; "" where they are processes of this machine."""
        self._secret = secret
        self.requests: dict[tuple[bytes, bytes, bytes], Answered] = {}
        self.left: list[Answered] = []
        self.alike = self.unlike = self.refused = 0
        self.example = ""  # of a difference or a failure, in words
        self._tries: dict[int, int] = {}

    async def step(self, service: Service, replicas: Sequence[Replica]) -> None:
        """Ask the old version what it was asked until enough is recorded, then put some of it to the new one."""
        canary, wanted = service.canary, service.spec.rollout.record
        if canary is None or not wanted or canary.weight > 0 or canary.mirror > 0:
            return
        found = lanes(service)
        ready = [r for r in replicas if r.service == service.key and r.state == "ready" and r.address]
        new = [r for r in ready if any(lane.only is not None and lane.holds(r) for lane in found)]
        old = [r for r in ready if r not in new and any(lane.holds(r) for lane in found)]
        for replica in old:
            if len(self.requests) < wanted:
                self._keep(await _recorded(replica, self._secret()), wanted)
        if new and self.left:
            now, self.left = self.left[:AT_ONCE], self.left[AT_ONCE:]
            async with _client(new[0]) as http:
                for asked in now:
                    self._judge(asked, await _ask(http, asked))

    def finding(self, service: Service) -> Finding | None:
        """None where nothing is to be recorded, or another watch did it before us."""
        canary, rollout = service.canary, service.spec.rollout
        if canary is None or not rollout.record:
            return None
        asked = self.alike + self.unlike + self.refused
        if not asked and (canary.weight > 0 or canary.mirror > 0):
            return None
        said = f"{self.alike} of {asked} recorded requests were answered alike, {self.unlike} differently"
        numbers: dict[str, float] = {
            "alike": self.alike,
            "differ": self.unlike,
            "failed": self.refused,
            "recorded": len(self.requests),
        }
        if self.refused:
            text = f"{self.refused} of {asked} recorded requests, which the old version answered, failed{self.example}"
            return Finding(measure=RECORDED, verdict="convicted", text=text, numbers=numbers)
        if asked < rollout.record:
            text = f"{said} ({rollout.record} are to be recorded, {len(self.requests)} were)"
            return Finding(measure=RECORDED, verdict="not enough evidence", text=text, numbers=numbers)
        over = self.unlike > rollout.disagreement * asked
        return Finding(
            measure=RECORDED,
            verdict="disagrees" if over else "clear",
            text=said + (self.example if over else ""),
            numbers=numbers,
        )

    def _keep(self, found: Sequence[Answered], wanted: int) -> None:
        for asked in found:
            key = (asked.target, asked.json_size, asked.body)
            if len(self.requests) < wanted and key not in self.requests and b"/versions/" not in asked.target:
                self.requests[key] = asked
                self.left.append(asked)

    def _judge(self, asked: Answered, answer: tuple[int, bytes] | None) -> None:
        if answer is None or answer[0] in AGAIN:
            self.left.append(asked)
        elif answer[0] != 200:
            self._tries[id(asked)] = self._tries.get(id(asked), 0) + 1
            if self._tries[id(asked)] < TRIES:
                self.left.append(asked)
            else:
                self.refused += 1
                self.example = f": {answer[0]} {answer[1][:120].decode('utf-8', 'replace')}"
        elif asked.answer_json_size is not None or same(asked.answer, answer[1]):
            self.alike += 1  # of a binary answer it is judged that there is one
        else:
            self.unlike += 1
            was, now = (b[:80].decode("utf-8", "replace") for b in (asked.answer, answer[1]))
            self.example = f"; {was} became {now}"


def same(a: bytes, b: bytes) -> bool:
    """Whether two JSON answers say the same, but for who answered: numbers within 5 %, everything else equal."""
    try:
        return _alike(msgspec.json.decode(a), msgspec.json.decode(b))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return a == b


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        names = a.keys() - _ABOUT
        return names == b.keys() - _ABOUT and all(_alike(a[n], b[n]) for n in names)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, float) or isinstance(b, float):
        numbers = isinstance(a, int | float) and isinstance(b, int | float)
        return numbers and isclose(a, b, rel_tol=NEAR, abs_tol=1e-6)
    return bool(a == b)


def _client(replica: Replica) -> httpx.AsyncClient:
    at = replica.address.removeprefix("unix:")
    if not at.startswith("/"):
        return httpx.AsyncClient(base_url=f"http://{at}", trust_env=False, timeout=PATIENCE)
    transport = httpx.AsyncHTTPTransport(uds=at)
    return httpx.AsyncClient(transport=transport, base_url="http://replica", trust_env=False, timeout=PATIENCE)


async def _recorded(replica: Replica, secret: str) -> list[Answered]:
    """What it answered well since the last call; [] when it does not say."""
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    terms = msgspec.json.encode({"every": EVERY, "max_bytes": MOST_BYTES})
    try:
        async with asyncio.timeout(PATIENCE), _client(replica) as http:
            found = await http.post("/-/recorded", content=terms, headers=headers)
        return msgspec.msgpack.decode(found.content, type=list[Answered]) if found.status_code == 200 else []
    except (httpx.HTTPError, TimeoutError, msgspec.DecodeError):
        return []


async def _ask(http: httpx.AsyncClient, asked: Answered) -> tuple[int, bytes] | None:
    """Status and body; None when there was no answer."""
    headers = {"content-type": "application/json"}
    if asked.json_size:
        headers["inference-header-content-length"] = asked.json_size.decode("latin-1")
        headers["content-type"] = "application/octet-stream"
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await http.post(asked.target.decode("latin-1"), content=asked.body, headers=headers)
        return answer.status_code, answer.content
    except (httpx.HTTPError, TimeoutError):
        return None
