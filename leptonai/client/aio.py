"""The asynchronous client: what ops sees of the platform and all it may do to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx

from leptonai.client import calls
from leptonai.client.availability import Availability
from leptonai.client.calls import Call
from leptonai.client.home import find_home, find_platform, local_url
from leptonai.client.wire import (
    Desk,
    FeedbackPage,
    FeedbackRequest,
    FreezeView,
    IssueVerdict,
    ProposalView,
    ReviewPage,
    ReviewRequest,
    ServiceView,
)
from leptonai.errors import LeptonError
from leptonai.types import (
    Change,
    Event,
    Incident,
    Issue,
    Key,
    LogLine,
    Proposal,
    Replica,
    Review,
    Revision,
    Series,
    Silence,
)

T = TypeVar("T")


class AsyncClient:
    """As ``Client``, for one event loop.

    ``local``: the platform of ``home`` whatever the environment says; when it came back elsewhere, it is found there.
    """

    def __init__(
        self,
        host: str | None = None,
        token: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        local: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self._home = find_home(home)
        self._local = local
        if local:
            host = local_url(self._home)
        self.url, secret = find_platform(host, token, self._home)
        self._services: tuple[tuple[int, bytes], list[ServiceView]] = ((0, b""), [])  # the last answer, read
        self._http = httpx.AsyncClient(
            headers={"authorization": f"Bearer {secret}", "content-type": "application/json"},
            timeout=timeout,
            trust_env=False,
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        return calls.read(call, *await self._ask(call))

    async def _ask(self, call: Call[Any]) -> tuple[int, bytes]:
        try:
            answer = await self._http.request(
                call.method, self.url + call.path, params=call.params, content=call.content
            )
        except httpx.HTTPError as e:
            error = calls.unreachable(self.url, e)
            if self._local:
                with contextlib.suppress(LeptonError):
                    self.url = local_url(self._home)
            raise error from e
        return answer.status_code, answer.content

    async def services(self, workspace: str | None = None) -> list[ServiceView]:
        """The same objects as the last time where nothing has changed: who asks each second reads thousands of them."""
        call = calls.services(workspace)
        answer = status, content = await self._ask(call)
        if answer != self._services[0]:
            self._services = answer, calls.read(call, status, content)
        return list(self._services[1])

    async def service(self, key: Key) -> ServiceView:
        return await self.send(calls.service(key))

    async def availability(self, key: Key, seconds: float = 7 * 86400.0) -> Availability:
        """How available the service was in the last ``seconds``, with what to expect and 95 % intervals."""
        return await self.send(calls.availability(key, seconds))

    async def revisions(self, key: Key) -> list[Revision]:
        return await self.send(calls.revisions(key))

    async def replicas(self, key: Key) -> list[Replica]:
        return await self.send(calls.replicas(key))

    async def logs(self, key: Key, replica: str | None = None, since: float = 0.0, limit: int = 1000) -> list[LogLine]:
        return await self.send(calls.logs(key, replica, since, limit))

    async def events(self, after: int | None = None, subject: str | None = None, limit: int = 200) -> list[Event]:
        return await self.send(calls.events(after, subject, limit))

    async def incidents(self, open: bool | None = None) -> list[Incident]:
        return await self.send(calls.incidents(open))

    async def incident(self, id: int) -> Incident:
        return await self.send(calls.incident(id))

    async def desk(self) -> Desk:
        """Silences, acknowledgements, and open incidents about something else than a service."""
        return await self.send(calls.desk())

    async def end_silence(self, id: int) -> Silence:
        return await self.send(calls.end_silence(id))

    async def signals(
        self, name: str, start: float, end: float, labels: dict[str, str] | None = None, step: float = 0.0
    ) -> list[Series]:
        return [view.series() for view in await self.send(calls.signals(name, start, end, labels, step))]

    async def signal_names(self) -> list[str]:
        return await self.send(calls.signal_names())

    async def platform(self) -> dict[str, Any]:
        """``Platform.describe()`` with ``version``, ``started``, ``ops``: ``{"alive", "seen"}``, and ``store``."""
        return await self.send(calls.platform())

    async def propose(
        self, change: Change, why: str, dry_run: bool = False, expires_in: float | None = None, by: str | None = None,
        ask: str = "",
    ) -> Proposal:  # fmt: skip
        """The proposal as it now stands, also when denied. ``by`` names the incident it is made for, ``ask`` why a
        person must approve it first."""
        return await self.send(calls.propose(change, why, dry_run, expires_in, by, ask))

    async def freeze(self) -> FreezeView:
        """How the kill switch stands."""
        return await self.send(calls.freeze())

    async def proposals(self, status: str | None = None) -> list[ProposalView]:
        return await self.send(calls.proposals(status))

    async def proposal(self, id: str) -> ProposalView:
        return await self.send(calls.proposal(id))

    async def verify(self, key: Key, revision: int, detail: str = "") -> Revision:
        return await self.send(calls.verify(key, revision, detail))

    async def put_incident(self, incident: Incident) -> Incident:
        """The incident as kept; id 0 is created and comes back with its number."""
        return await self.send(calls.put_incident(incident))

    async def send_feedback(self, items: Sequence[FeedbackRequest]) -> int:
        return (await self.send(calls.send_feedback(items))).accepted

    async def feedback(self, after: int = 0, limit: int = 1000) -> FeedbackPage:
        return await self.send(calls.feedback(after, limit))

    async def review(self, incident: int, request: ReviewRequest) -> Review:
        """As ``Client.review``."""
        return await self.send(calls.review(incident, request))

    async def reviews(self, after: int = 0, limit: int = 1000) -> ReviewPage:
        """Of all incidents."""
        return await self.send(calls.reviews(after, limit))

    async def issues(self, state: str | None = None) -> list[Issue]:
        return await self.send(calls.issues(None, state))

    async def judge_issue(self, id: int, verdict: IssueVerdict) -> Issue:
        return await self.send(calls.judge_issue(id, verdict))

    async def record(self, kind: str, subject: str, detail: dict[str, Any]) -> Event:
        return await self.send(calls.record(kind, subject, detail))
