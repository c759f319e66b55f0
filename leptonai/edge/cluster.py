"""The edge of one cluster: requests in their order, held while nothing can answer them, then sent on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from leptonai.edge.answers import Answers
from leptonai.edge.endpoints import Cluster as Endpoints
from leptonai.edge.forward import Forward, Outcome
from leptonai.edge.http import Request
from leptonai.errors import CapacityError, LeptonError, PlatformError
from leptonai.types import Standby

# Requests sent on to one ready replica at once. A thousand that waited must not meet a fresh one's queue all together;
# at 32 it is never idle, since each is sent as soon as another ends.
WINDOW = 32
AGAIN = 0.02  # seconds until a replica that refused, broke or shed is asked again
GIVEN_UP = 4096  # ids of requests that were answered 503 ...
GIVEN_UP_FOR = 5.0  # ... so many seconds ago at most: Envoy asks again at once, and must not make them wait anew


class _Held:
    """What is known of one request that was taken."""

    __slots__ = ("forward", "id", "timer", "twins", "waited")

    def __init__(self, id: bytes) -> None:
        self.id = id
        self.waited = False  # it was held, so it can also wait for a busy replica
        self.timer: asyncio.TimerHandle | None = None
        self.forward: Forward | None = None
        self.twins: list[Request] = []  # the same request, which Envoy hedges while it waits


class Cluster:
    """The handler of one cluster's connections. ``told`` is called when requests begin to be held, and when none is."""

    def __init__(self, endpoints: Endpoints, told: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = told
        self._queue: deque[Request] = deque()
        self._ids: dict[bytes, _Held] = {}
        self._given_up: OrderedDict[bytes, float] = OrderedDict()
        self._bad: dict[str, float] = {}  # address -> loop time from which it may be asked again
        self._count = self._bytes = self._sent = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self.counts: Counter[str] = Counter()
        self.answers = Answers()
        self.standby: Standby = endpoints.standby
        self.ready: tuple[str, ...] = ()
        self.update(endpoints)

    @property
    def held(self) -> int:
        return len(self._queue)

    @property
    def oldest(self) -> float:
        """Seconds that the longest held request has waited; 0 when none is."""
        return self._loop.time() - min((r.arrived for r in self._queue), default=self._loop.time())

    @property
    def busy(self) -> bool:
        """Whether a request is waiting, being sent on, or arriving."""
        return self._count > 0

    def update(self, endpoints: Endpoints) -> None:
        """What is wished of the edge, and who is ready, from now on."""
        self.standby, self.ready = endpoints.standby, endpoints.ready
        self._bad = {a: at for a, at in self._bad.items() if a in self.ready}
        self.answers.configure(endpoints.standby)
        self._pump()

    def close(self) -> None:
        """The cluster is gone: what waits is answered so."""
        self._bad.clear()
        while self._queue:
            self._give_up(self._queue[0], "is removed")

    # --- what connections ask ----------------------------------------------------------------------------------------

    def reserve(self, count: int, size: int) -> LeptonError | None:
        hold = self.standby.hold
        if self._count + count > hold.max_count:
            problem = f"{self._count} requests wait already, the limit is {hold.max_count} (hold.max_count)"
        elif self._bytes + size > hold.max_bytes:
            problem = f"{self._bytes} bytes wait already and {size} more came, the limit is {hold.max_bytes}"
            problem += " (hold.max_bytes)"
        else:
            self._count += count
            self._bytes += size
            return None
        self.counts["full"] += 1
        return CapacityError(
            f"no replica of {self.standby.service} is ready: {problem}",
            hint="try again with back-off",
            code="hold_full",
            status=429,
            retry_after=1,
        )

    def release(self, count: int, size: int) -> None:
        self._count -= count
        self._bytes -= size

    def handle(self, request: Request) -> None:
        id = request.header(b"x-request-id")
        if (first := self._ids.get(id)) is not None:
            first.twins.append(request)
            return
        request.state = held = _Held(id)
        if self._given_up.get(id, 0.0) > self._loop.time() and not self.ready:
            request.fail(self._no_replica(self._late()))
            return
        if id:
            self._ids[id] = held
        self._take(request)

    def left(self, request: Request) -> None:
        held: _Held | None = request.state
        if held is None:  # a twin
            for first in self._ids.values():
                if request in first.twins:
                    first.twins.remove(request)
            return
        self.counts["client_gone"] += 1
        if held.forward is not None:
            held.forward.cancel()
            self._sent -= 1
        self._unqueue(request)
        twins = self._over(held)
        if twins:
            request, *twins = twins
            self.handle(request)
            for twin in twins:
                self.handle(twin)
        self._pump()

    # --- deciding -----------------------------------------------------------------------------------------------------

    def _take(self, request: Request) -> None:
        """Send it on when somebody can answer; else an old answer; else it waits."""
        available = self._available()
        if available and self._sent < WINDOW * len(available) and not self._queue:
            self._send(request, available)
        elif available or self.standby.asleep or not self._stale(request):
            self._hold(request)

    def _hold(self, request: Request) -> None:
        wait = self.standby.hold.max_wait
        held: _Held = request.state
        if wait <= 0.0 and not self._available():
            self._give_up(request, "is ready")
            return
        held.waited = True
        left = max(wait, AGAIN) - (self._loop.time() - request.arrived)
        if held.timer is None:
            held.timer = self._loop.call_later(max(0.0, left), self._expire, request)
        self._queue.append(request)
        if len(self._queue) == 1:
            self._told()

    def _expire(self, request: Request) -> None:
        held: _Held = request.state
        held.timer = None
        if held.forward is None and not self._stale(request):
            self._give_up(request, self._late())

    def _available(self) -> list[str]:
        if not self._bad:
            return list(self.ready)
        now = self._loop.time()
        return [a for a in self.ready if self._bad.get(a, 0.0) <= now]

    def _pump(self) -> None:
        """Send on what waits, in its order, as far as replicas take it."""
        available = self._available()
        had = bool(self._queue)
        while available and self._queue and self._sent < WINDOW * len(available):
            self._send(self._queue.popleft(), available)
        if had and not self._queue:
            self._told()

    def _pump_later(self) -> None:
        if self._later is None:

            def pump() -> None:
                self._later = None
                self._pump()
                if self._queue and self.ready:
                    self._pump_later()

            self._later = self._loop.call_later(AGAIN, pump)

    def _send(self, request: Request, available: list[str]) -> None:
        address = random.choice(available)
        held: _Held = request.state
        kept = set()
        if held.waited or self.answers.on:
            kept.add(429)
        if self.standby.idempotent:
            kept.add(503)
        self._sent += 1
        forward = Forward(request, frozenset(kept), lambda r, outcome: self._ended(r, outcome, address))
        held.forward = forward
        task = self._loop.create_task(forward.connect(address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ended(self, request: Request, outcome: Outcome, address: str) -> None:
        held: _Held = request.state
        held.forward = None
        self._sent -= 1
        if outcome == "done":
            self.counts["forwarded"] += 1
            self._end_twins(self._over(held))
            self._pump()
            return
        if outcome != 429:
            self._bad[address] = self._loop.time() + AGAIN
        if outcome == "lost" and not self.standby.idempotent:
            self.counts["lost"] += 1
            request.fail(
                PlatformError(
                    "the replica went away while answering",
                    hint="it may have been computed; it is not repeated, since the service is not idempotent",
                    code="replica_lost",
                    status=503,
                )
            )
            self._end_twins(self._over(held))
        elif outcome == 429 and not held.waited:
            if not self._stale(request):
                self.counts["shed"] += 1
                request.fail(
                    CapacityError("every replica sheds", hint="send slower", code="shed", status=429, retry_after=1)
                )
                self._end_twins(self._over(held))
        elif held.waited and held.timer is None:
            self._give_up(request, "answered in time")
        elif outcome != 429 and not self._available() and self._stale(request):
            pass
        else:
            held.waited = True
            if held.timer is None:
                left = self.standby.hold.max_wait - (self._loop.time() - request.arrived)
                held.timer = self._loop.call_later(max(AGAIN, left), self._expire, request)
            self._queue.appendleft(request)
            if len(self._queue) == 1:
                self._told()
        self._pump_later()

    # --- answering ----------------------------------------------------------------------------------------------------

    def _stale(self, request: Request) -> bool:
        """Whether an old answer was given."""
        answer = self.answers.find(request) if self.answers.on else None
        if answer is None:
            return False
        self.counts["stale"] += 1
        self._unqueue(request)
        twins = self._over(request.state)
        for one in (request, *twins):
            one.answer(200, answer.body, answer.headers, answer.content_type)
        return True

    def _give_up(self, request: Request, what: str) -> None:
        self.counts["timed_out" if "within" in what else "refused"] += 1
        self._unqueue(request)
        held: _Held = request.state
        error = self._no_replica(what)
        if held.id:
            self._given_up[held.id] = self._loop.time() + GIVEN_UP_FOR
            while len(self._given_up) > GIVEN_UP:
                self._given_up.popitem(last=False)
        twins = self._over(held)
        for one in (request, *twins):
            one.fail(error)

    def _late(self) -> str:
        return f"became ready within {self.standby.hold.max_wait:g} s"

    def _no_replica(self, what: str) -> LeptonError:
        return CapacityError(
            f"no replica of {self.standby.service} {what}",
            hint="see leptonai status NAME",
            code="no_ready_replica",
            status=503,
            retry_after=max(1.0, self.standby.hold.max_wait / 2),
        )

    def _end_twins(self, twins: list[Request]) -> None:
        for twin in twins:  # Envoy has had its answer, and resets them itself
            twin.connection.finish(twin)

    def _unqueue(self, request: Request) -> None:
        if request in self._queue:
            self._queue.remove(request)
            if not self._queue:
                self._told()

    def _over(self, held: _Held) -> list[Request]:
        """The request is over; returns its twins."""
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        self._ids.pop(held.id, None)
        twins, held.twins = held.twins, []
        return twins
