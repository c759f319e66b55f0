"""Users: open-loop Poisson traffic of real images through the gateway, every answer checked, some labels sent later.

Runs as a process of its own, ``python -m leptonai.drill.traffic PLAN.json``, until its standard input ends. Open loop:
requests leave at their appointed times whether or not earlier ones were answered, and latency counts from the
appointed time, so a stalled server cannot hide behind a stalled client ("coordinated omission"). How users are in the
mood to ask is in a file that may change at any time.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import httpx
import msgspec
import numpy as np

from leptonai.types import Noun

MOOD_EVERY = 0.2  # seconds between two looks at the mood
POISON = 999.0  # brightness of a pixel that no picture has
QUARANTINED = 422  # what a replica answers to such a request
DIM = 0.6  # brightness of drifted pictures


class Mood(Noun, frozen=True, kw_only=True):
    """How users ask now. ``rate``: times the plan's. ``poison``: share of requests with a pixel that no picture has.

    ``copies``: each request is sent again this often, ``every`` seconds after another, without waiting for an answer.
    ``drift``: only noughts and ones are drawn any more, with a paler pen.
    """

    rate: float = 1.0
    poison: float = 0.0
    copies: int = 0
    every: float = 0.01
    drift: bool = False


class Plan(Noun, frozen=True, kw_only=True):
    url: str  # where requests go: the service's infer endpoint at the gateway
    feedback: str  # where labels go; with the token of the environment
    images: str  # .npz with "image" and "label"
    log: str  # one JSON line an answer is appended here
    service: str
    rate: float = 40.0  # requests a second
    seed: int = 0
    timeout: float = 5.0  # seconds; a request unanswered this long has failed
    label_share: float = 0.3  # of requests whose true label arrives ...
    label_delay: float = 1.0  # ... about this many seconds after the answer
    mood: str = ""  # a file with a Mood; "": users keep theirs


class Answer(Noun, frozen=True, kw_only=True):
    """One request as its user saw it. ``seconds`` counts from ``due``, the appointed time."""

    id: str
    due: float
    seconds: float
    status: int  # 0: no HTTP answer at all
    result: Literal["right", "wrong", "failed"]


class Counts(Noun, frozen=True, kw_only=True):
    """``refused``: of the failed, those told that such requests are in quarantine."""

    sent: int = 0
    failed: int = 0
    refused: int = 0
    wrong: int = 0


def arrivals(rate: Callable[[], float], rng: np.random.Generator) -> Iterator[float]:
    """Seconds since the start at which requests are due: a Poisson process, so the gaps are exponential."""
    due = 0.0
    while True:
        due += float(rng.exponential(1.0 / rate()))
        yield due


def count(answers: Sequence[Answer], start: float, end: float) -> Counts:
    """What happened to the requests due in ``[start, end)``."""
    window = [a for a in answers if start <= a.due < end]
    return Counts(
        sent=len(window),
        failed=sum(a.result == "failed" for a in window),
        refused=sum(a.status == QUARANTINED for a in window),
        wrong=sum(a.result == "wrong" for a in window),
    )


class Tail:
    """Reads a growing log of answers: each call to ``read`` takes in the whole lines written since."""

    def __init__(self, path: Path) -> None:
        self.answers: list[Answer] = []
        self._path = path
        self._offset = 0
        self._decoder = msgspec.json.Decoder(Answer)

    def read(self) -> list[Answer]:
        """All answers so far, in the order in which they came."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._offset += len(whole) + 1
                self.answers.extend(self._decoder.decode(line) for line in whole.split(b"\n"))
        return self.answers


class Users:
    """The requests in flight. ``send`` never waits for an earlier one."""

    def __init__(self, plan: Plan, client: httpx.AsyncClient, log: IO[bytes], token: str) -> None:
        self._plan = plan
        self._client = client
        self._log = log
        self._token = token
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = False
        data = np.load(plan.images)
        self.mood = Mood()
        self._labels: list[int] = data["label"].tolist()
        self._bodies = [_infer_body(image) for image in data["image"]]
        self._drifted = [i for i, label in enumerate(self._labels) if label in (0, 1)]
        self._pale = {i: _infer_body(data["image"][i] * DIM) for i in self._drifted}
        spoilt = np.array(data["image"][0])
        spoilt[0] = POISON
        self._poison = _infer_body(spoilt)

    def send(self, number: int, due: float, rng: np.random.Generator) -> None:
        """One request for a random image, on its way in the background; ``due`` is its appointed unix time."""
        mood = self.mood
        which = int(rng.integers(len(self._bodies)))
        labelled = bool(rng.random() < self._plan.label_share)
        body = self._bodies[which]
        if mood.drift and self._drifted:
            which = self._drifted[which % len(self._drifted)]
            body = self._pale[which]
        if mood.poison and rng.random() < mood.poison:
            body, labelled = self._poison, False
        request = f"user-{self._plan.seed}-{number}"
        self._begin(self._request(request, due, which, labelled, body))
        for n in range(mood.copies):
            self._begin(self._again(request, body, (n + 1) * mood.every))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Returns when every request sent has been answered or has failed."""
        await asyncio.gather(*self._tasks)

    async def _again(self, request: str, body: bytes, after: float) -> None:
        """The same request once more, because somebody does not want to wait; its answer is nobody's."""
        await asyncio.sleep(after)
        try:
            async with asyncio.timeout(self._plan.timeout):
                await self._client.post(self._plan.url, content=body, headers={"x-request-id": request})
        except (httpx.HTTPError, TimeoutError):
            pass

    async def _request(self, request: str, due: float, which: int, labelled: bool, body: bytes) -> None:
        status, label = 0, None
        try:
            async with asyncio.timeout(self._plan.timeout):
                reply = await self._client.post(self._plan.url, content=body, headers={"x-request-id": request})
            status = reply.status_code
            label = _answered(reply) if status == 200 else None
        except (httpx.HTTPError, TimeoutError):
            pass  # no answer: the log says so
        truth = self._labels[which]
        result: Literal["right", "wrong", "failed"] = (
            "failed" if label is None else "right" if label == truth else "wrong"
        )
        answer = Answer(id=request, due=due, seconds=time.time() - due, status=status, result=result)
        self._log.write(msgspec.json.encode(answer) + b"\n")
        if labelled and label is not None:
            await asyncio.sleep(self._plan.label_delay)
            await self._tell(request, truth)

    async def _tell(self, request: str, truth: int) -> None:
        """Somebody looked at the image and says what it shows."""
        body = [{"about": request, "service": self._plan.service, "label": truth}]
        try:
            reply = await self._client.post(
                self._plan.feedback, json=body, headers={"authorization": f"Bearer {self._token}"}
            )
            problem = "" if reply.is_success else f"{reply.status_code} {reply.text[:200]}"
        except httpx.HTTPError as e:
            problem = repr(e)
        if problem and not self._complained:
            self._complained = True
            print(f"labels are not accepted at {self._plan.feedback}: {problem}", file=sys.stderr, flush=True)


def _infer_body(image: Any) -> bytes:
    """An Open Inference Protocol v2 request for one image."""
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, len(image)], "data": image.tolist()}
    return msgspec.json.encode({"inputs": [tensor]})


def _answered(reply: httpx.Response) -> int | None:
    """The label in an Open Inference Protocol v2 answer; None when it is no such answer."""
    try:
        outputs = {tensor["name"]: tensor["data"] for tensor in reply.json()["outputs"]}
        return int(outputs["label"][0])
    except (ValueError, KeyError, TypeError, IndexError):
        return None


async def run(plan: Plan, log: IO[bytes], token: str, stop: asyncio.Event) -> None:
    """Send until ``stop`` is set, then wait for the answers that are still out."""
    rng = np.random.default_rng(plan.seed)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    async with httpx.AsyncClient(timeout=plan.timeout, limits=limits, trust_env=False) as client:
        users = Users(plan, client, log, token)
        start, clock = time.time(), asyncio.get_running_loop().time
        began = clock()
        moods = asyncio.create_task(_follow_mood(users, Path(plan.mood))) if plan.mood else None
        for number, due in enumerate(arrivals(lambda: plan.rate * users.mood.rate, rng)):
            try:
                await asyncio.wait_for(stop.wait(), max(0.0, began + due - clock()))
                break
            except TimeoutError:
                users.send(number, start + due, rng)
        if moods is not None:
            moods.cancel()
        await users.drain()


async def _follow_mood(users: Users, path: Path) -> None:
    """Users are in the mood that the file tells, until cancelled. It is written whole (renamed), never in parts."""
    while True:
        if path.exists():
            users.mood = msgspec.json.decode(path.read_bytes(), type=Mood)
        await asyncio.sleep(MOOD_EVERY)


async def main(plan: Plan, log: IO[bytes]) -> None:
    stop = asyncio.Event()
    # Whoever started us holds the other end of our standard input: when they are gone, however they went, so are we.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    await run(plan, log, os.environ.get("LEPTONAI_TOKEN", ""), stop)


if __name__ == "__main__":
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    with Path(plan.log).open("ab", buffering=0) as log:
        asyncio.run(main(plan, log))
