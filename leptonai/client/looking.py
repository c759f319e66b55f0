"""What the blocking client can see of a platform: its connection, and every call that changes nothing."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from leptonai.client import calls
from leptonai.client.advice import Advice
from leptonai.client.availability import Availability
from leptonai.client.calls import Call
from leptonai.client.classifier import Classifier
from leptonai.client.home import find_home, find_platform
from leptonai.client.learnt import Learnt
from leptonai.client.wire import (
    FreezeView,
    Graph,
    Health,
    ReviewPage,
    ServiceView,
    TemplateView,
    TraceView,
)
from leptonai.types import (
    Alert,
    Event,
    Incident,
    Issue,
    Key,
    LogLine,
    LogPage,
    Replica,
    Review,
    Revision,
    Series,
    Silence,
    Span,
)

T = TypeVar("T")


class Looking:
    """Looks at one platform: ``host`` and ``token`` as given, else from the environment, else the local home.

    Every method raises the LeptonError the platform answered with, or PlatformError ``unreachable``.
    """

    def __init__(
        self,
        host: str | None = None,
        token: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.url, secret = find_platform(host, token, find_home(home))
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {secret}", "content-type": "application/json"},
            timeout=timeout,
            trust_env=False,  # a proxy of the environment must not see tokens meant for loopback
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def send(self, call: Call[T]) -> T:
        try:
            answer = self._http.request(call.method, call.path, params=call.params, content=call.content)
        except httpx.HTTPError as e:
            raise calls.unreachable(self.url, e) from e
        return calls.read(call, answer.status_code, answer.content)

    def healthz(self) -> Health:
        return self.send(calls.healthz())

    def services(self, workspace: str | None = None) -> list[ServiceView]:
        """All services the token may see, or those of one workspace, ordered by key."""
        return self.send(calls.services(workspace))

    def service(self, key: Key) -> ServiceView:
        return self.send(calls.service(key))

    def availability(self, key: Key, seconds: float = 7 * 86400.0) -> Availability:
        """How available the service was in the last ``seconds``, with what to expect and 95 % intervals."""
        return self.send(calls.availability(key, seconds))

    def advice(self, key: Key, seconds: float = 3600.0) -> Advice:
        """The first limit of the service and the load at which it bites, from its last ``seconds``."""
        return self.send(calls.advice(key, seconds))

    def revisions(self, key: Key) -> list[Revision]:
        """The whole history, oldest first."""
        return self.send(calls.revisions(key))

    def replicas(self, key: Key) -> list[Replica]:
        return self.send(calls.replicas(key))

    def logs(self, key: Key, replica: str | None = None, since: float = 0.0, limit: int = 1000) -> list[LogLine]:
        """The newest ``limit`` lines of one replica or of all, oldest first."""
        return self.send(calls.logs(key, replica, since, limit))

    def why(self, key: Key, after: int | None = None, limit: int = 200) -> list[Event]:
        """What was decided about a service and from which terms, oldest first: the newest, or those past ``after``."""
        return self.send(calls.service_events(key, after, limit))

    def events(self, after: int | None = None, subject: str | None = None, limit: int = 200) -> list[Event]:
        """The audit log, oldest first: its newest ``limit`` lines, or the next ones past ``after``."""
        return self.send(calls.events(after, subject, limit))

    def incidents(self, open: bool | None = None) -> list[Incident]:
        return self.send(calls.incidents(open))

    def incident(self, id: int) -> Incident:
        return self.send(calls.incident(id))

    def reviews(self, incident: int) -> list[Review]:
        """The newest of each reviewer of one incident, oldest first."""
        return self.send(calls.reviews_of(incident))

    def all_reviews(self, after: int = 0, limit: int = 1000) -> ReviewPage:
        return self.send(calls.reviews(after, limit))

    def issues(self, service: Key | None = None, state: str | None = None) -> list[Issue]:
        """Complaints that say the same, the newest first."""
        return self.send(calls.issues(service, state))

    def issue(self, id: int) -> Issue:
        return self.send(calls.issue(id))

    def classifier(self) -> Classifier:
        """The classifiers that vote beside the rules, and how good they are."""
        return self.send(calls.classifier())

    def learnt(self) -> Learnt:
        """What reviews have taught, and whether it is in force."""
        return self.send(calls.learnt())

    def alerts(self) -> list[Alert]:
        """Firing first, then pending, then those that resolved lately; the newest first."""
        return self.send(calls.alerts())

    def silences(self, over: bool = False) -> list[Silence]:
        """Those in force or to come, newest first; ``over``: the others, too."""
        return self.send(calls.silences(over))

    def alert_rules(self, key: Key | None = None, scrape: float = 15.0) -> str:
        """Prometheus alert rules (YAML) for the promises of one service, or of all."""
        return self.send(calls.alert_rules(key, scrape))

    def signals(
        self, name: str, start: float, end: float, labels: dict[str, str] | None = None, step: float = 0.0
    ) -> list[Series]:
        return [view.series() for view in self.send(calls.signals(name, start, end, labels, step))]

    def signal_names(self) -> list[str]:
        return self.send(calls.signal_names())

    def trace(self, id: str) -> list[Span]:
        """The spans of one trace, by its id or that of its request, in order of their start. NotFound: none is kept."""
        return self.send(calls.trace(id))

    def traces(
        self, *, service: str = "", failed: bool = False, slower_than: float = 0.0, limit: int = 50
    ) -> list[TraceView]:
        """The newest traces that are kept, newest first."""
        return self.send(calls.traces(service, failed, slower_than, limit))

    def search_logs(
        self,
        search: str = "",
        *,
        service: str = "",
        template: int = 0,
        level: str = "",
        since: float = 0.0,
        before: int | None = None,
        limit: int = 100,
    ) -> LogPage:
        """One page of kept log lines, newest first; ``next`` is the ``before`` of the page after it."""
        return self.send(calls.search_logs(search, service, template, level, since, before, limit))

    def templates(self, service: str) -> list[TemplateView]:
        """What the log of a service consists of, most frequent first. NotFound: nothing of it was mined."""
        return self.send(calls.templates(service))

    def graph(self, seconds: float = 3600.0) -> Graph:
        """Who called whom in the last ``seconds``."""
        return self.send(calls.graph(seconds))

    def telemetry(self) -> dict[str, Any]:
        """What became of telemetry that was sent, by workspace and policy."""
        return self.send(calls.telemetry())

    def platform(self) -> dict[str, Any]:
        """``Platform.describe()`` with ``version``, ``started``, ``ops``: ``{"alive", "seen"}``, and ``store``."""
        return self.send(calls.platform())

    def freeze(self) -> FreezeView:
        """How the kill switch stands."""
        return self.send(calls.freeze())
