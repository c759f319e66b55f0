"""Every call of ``/api/v1`` as a value: method, path, what is sent, what comes back. The clients only send them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from leptonai.client.advice import Advice
from leptonai.client.availability import Availability
from leptonai.client.classifier import Classifier
from leptonai.client.learnt import Learnt, Reset, ResetRequest
from leptonai.client.wire import (
    Accepted,
    AckRequest,
    ApproveRequest,
    ArtifactView,
    Desk,
    EventRequest,
    FeedbackPage,
    FeedbackRequest,
    FreezeRequest,
    FreezeView,
    Graph,
    Health,
    IssueRequest,
    IssueVerdict,
    Moved,
    ProposalRequest,
    ProposalView,
    ReviewPage,
    ReviewRequest,
    SeriesView,
    ServiceView,
    SessionView,
    SilenceRequest,
    TemplateView,
    TokenCreated,
    TokenRequest,
    TokenView,
    TraceView,
    UndoRequest,
    VerifyRequest,
)
from leptonai.errors import LeptonError, PlatformError, from_body
from leptonai.types import (
    Ack,
    Alert,
    Change,
    Event,
    Incident,
    Issue,
    Key,
    LogLine,
    LogPage,
    Replica,
    Review,
    Revision,
    Role,
    Silence,
    Span,
    parse_key,
)

T = TypeVar("T")
PREFIX = "/api/v1"


@dataclass(frozen=True)
class Call(Generic[T]):
    """``body`` is encoded as JSON; ``stream`` is sent as it is; ``answer`` is what a good answer decodes to."""

    method: str
    path: str
    answer: type[T]
    params: dict[str, str] = field(default_factory=dict)
    body: Any = None
    stream: Iterator[bytes] | AsyncIterator[bytes] | None = None

    @property
    def content(self) -> bytes | Iterator[bytes] | AsyncIterator[bytes] | None:
        return self.stream if self.body is None else msgspec.json.encode(self.body)


def read(call: Call[T], status: int, content: bytes) -> T:
    """What the answer says; raises the LeptonError that it carries."""
    if status >= 400:
        try:
            body = msgspec.json.decode(content, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = {"error": f"{call.method} {call.path} was answered {status} by something that is no leptonai API"}
        raise from_body(status, body)
    if not content and call.answer is type(None):
        content = b"null"  # Prometheus wants nothing in return, so nothing is what it gets
    try:
        return msgspec.json.decode(content, type=call.answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise PlatformError(
            f"the answer to {call.method} {call.path} cannot be read: {e}",
            hint="are the client and the platform of the same version? see `leptonai --version` and `leptonai status`",
        ) from e


def unreachable(url: str, error: Exception) -> LeptonError:
    """No answer came; ``retry`` is set because a control process that died is back within seconds."""
    return PlatformError(
        f"no platform answers at {url}: {str(error) or type(error).__name__}",
        hint="start it with `leptonai up`, or name another with --host or LEPTONAI_HOST",
        code="unreachable",
        status=503,
        retry=True,
    )


def _service(key: Key, rest: str = "") -> tuple[str, dict[str, str]]:
    workspace, name = parse_key(key)
    return f"{PREFIX}/services/{quote(name, safe='')}{rest}", {"workspace": workspace}


def _given(**params: Any) -> dict[str, str]:
    return {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in params.items() if v is not None}


def healthz() -> Call[Health]:
    return Call("GET", f"{PREFIX}/healthz", Health)


def services(workspace: str | None = None) -> Call[list[ServiceView]]:
    return Call("GET", f"{PREFIX}/services", list[ServiceView], _given(workspace=workspace))


def service(key: Key) -> Call[ServiceView]:
    path, params = _service(key)
    return Call("GET", path, ServiceView, params)


def availability(key: Key, seconds: float) -> Call[Availability]:
    path, params = _service(key, "/availability")
    return Call("GET", path, Availability, params | _given(seconds=seconds))


def advice(key: Key, seconds: float) -> Call[Advice]:
    path, params = _service(key, "/advice")
    return Call("GET", path, Advice, params | _given(seconds=seconds))


def revisions(key: Key) -> Call[list[Revision]]:
    path, params = _service(key, "/revisions")
    return Call("GET", path, list[Revision], params)


def replicas(key: Key) -> Call[list[Replica]]:
    path, params = _service(key, "/replicas")
    return Call("GET", path, list[Replica], params)


def service_events(key: Key, after: int | None, limit: int) -> Call[list[Event]]:
    path, params = _service(key, "/events")
    return Call("GET", path, list[Event], params | _given(after=after, limit=limit))


def logs(key: Key, replica: str | None, since: float, limit: int) -> Call[list[LogLine]]:
    path, params = _service(key, "/logs")
    return Call("GET", path, list[LogLine], params | _given(replica=replica, since=since, limit=limit))


def verify(key: Key, revision: int, detail: str) -> Call[Revision]:
    path, params = _service(key, f"/revisions/{revision}/verify")
    return Call("POST", path, Revision, params, VerifyRequest(detail=detail))


def adopt(moved: Moved) -> Call[Revision]:
    path, params = _service(moved.service, "/adopt")
    return Call("POST", path, Revision, params, moved)


def propose(
    change: Change, why: str, dry_run: bool, expires_in: float | None, by: str | None, ask: str = ""
) -> Call[ProposalView]:
    body = ProposalRequest(change=change, why=why, dry_run=dry_run, expires_in=expires_in, by=by, ask=ask)
    return Call("POST", f"{PREFIX}/proposals", ProposalView, body=body)


def undo(key: Key, why: str) -> Call[ProposalView]:
    path, params = _service(key, "/undo")
    return Call("POST", path, ProposalView, params, UndoRequest(why=why))


def proposals(status: str | None = None) -> Call[list[ProposalView]]:
    return Call("GET", f"{PREFIX}/proposals", list[ProposalView], _given(status=status))


def proposal(id: str) -> Call[ProposalView]:
    return Call("GET", f"{PREFIX}/proposals/{quote(id, safe='')}", ProposalView)


def approve(proposal: str, hash: str) -> Call[ProposalView]:
    path = f"{PREFIX}/proposals/{quote(proposal, safe='')}/approve"
    return Call("POST", path, ProposalView, body=ApproveRequest(hash=hash))


def upload(stream: Iterator[bytes] | AsyncIterator[bytes]) -> Call[ArtifactView]:
    return Call("POST", f"{PREFIX}/artifacts", ArtifactView, stream=stream)


def incidents(open: bool | None = None) -> Call[list[Incident]]:
    return Call("GET", f"{PREFIX}/incidents", list[Incident], _given(open=open))


def incident(id: int) -> Call[Incident]:
    return Call("GET", f"{PREFIX}/incidents/{id}", Incident)


def put_incident(incident: Incident) -> Call[Incident]:
    if incident.id == 0:
        return Call("POST", f"{PREFIX}/incidents", Incident, body=incident)
    return Call("PUT", f"{PREFIX}/incidents/{incident.id}", Incident, body=incident)


def review(incident: int, request: ReviewRequest) -> Call[Review]:
    return Call("POST", f"{PREFIX}/incidents/{incident}/review", Review, body=request)


def reviews_of(incident: int) -> Call[list[Review]]:
    return Call("GET", f"{PREFIX}/incidents/{incident}/reviews", list[Review])


def reviews(after: int, limit: int) -> Call[ReviewPage]:
    return Call("GET", f"{PREFIX}/reviews", ReviewPage, _given(after=after, limit=limit))


def issues(service: Key | None, state: str | None) -> Call[list[Issue]]:
    return Call("GET", f"{PREFIX}/issues", list[Issue], _given(service=service, state=state))


def issue(id: int) -> Call[Issue]:
    return Call("GET", f"{PREFIX}/issues/{id}", Issue)


def change_issue(id: int, request: IssueRequest) -> Call[Issue]:
    return Call("POST", f"{PREFIX}/issues/{id}", Issue, body=request)


def judge_issue(id: int, verdict: IssueVerdict) -> Call[Issue]:
    return Call("POST", f"{PREFIX}/issues/{id}/verdict", Issue, body=verdict)


def classifier() -> Call[Classifier]:
    return Call("GET", f"{PREFIX}/classifier", Classifier)


def learnt() -> Call[Learnt]:
    return Call("GET", f"{PREFIX}/learnt", Learnt)


def reset_learnt(why: str, restore: bool) -> Call[Reset]:
    path = f"{PREFIX}/learnt/{'restore' if restore else 'reset'}"
    return Call("POST", path, Reset, body=ResetRequest(why=why))


def send_feedback(items: Sequence[FeedbackRequest]) -> Call[Accepted]:
    return Call("POST", f"{PREFIX}/feedback", Accepted, body=list(items))


def feedback(after: int, limit: int) -> Call[FeedbackPage]:
    return Call("GET", f"{PREFIX}/feedback", FeedbackPage, _given(after=after, limit=limit))


def record(kind: str, subject: str, detail: dict[str, Any]) -> Call[Event]:
    body = EventRequest(kind=kind, subject=subject, detail=detail)
    return Call("POST", f"{PREFIX}/events", Event, body=body)


def events(after: int | None, subject: str | None, limit: int) -> Call[list[Event]]:
    return Call("GET", f"{PREFIX}/events", list[Event], _given(after=after, subject=subject, limit=limit))


def signals(name: str, start: float, end: float, labels: dict[str, str] | None, step: float) -> Call[list[SeriesView]]:
    params = dict(labels or {}) | _given(name=name, start=start, end=end, step=step)
    return Call("GET", f"{PREFIX}/signals", list[SeriesView], params)


def signal_names() -> Call[list[str]]:
    return Call("GET", f"{PREFIX}/signals/names", list[str])


def trace(id: str) -> Call[list[Span]]:
    return Call("GET", f"{PREFIX}/traces/{quote(id, safe='')}", list[Span])


def traces(service: str, failed: bool, slower_than: float, limit: int) -> Call[list[TraceView]]:
    params = _given(service=service or None, failed=failed, slower_than=slower_than, limit=limit)
    return Call("GET", f"{PREFIX}/traces", list[TraceView], params)


def search_logs(
    search: str, service: str, template: int, level: str, since: float, before: int | None, limit: int
) -> Call[LogPage]:
    params = _given(search=search or None, service=service or None, template=template or None, level=level or None)
    return Call("GET", f"{PREFIX}/logs", LogPage, params | _given(since=since, before=before, limit=limit))


def templates(service: str) -> Call[list[TemplateView]]:
    return Call("GET", f"{PREFIX}/logs/templates", list[TemplateView], _given(service=service))


def graph(seconds: float) -> Call[Graph]:
    return Call("GET", f"{PREFIX}/graph", Graph, _given(seconds=seconds))


def import_samples(body: bytes, workspace: str) -> Call[None]:
    """An empty ``body`` ends an import: all of it can be read then."""
    params = {"workspace": workspace, "done": str(not body).lower()}
    return Call("POST", f"{PREFIX}/import", type(None), params, stream=iter([body]))


def write_samples(body: bytes, workspace: str) -> Call[None]:
    """A remote-write 1.0 request of samples of now."""
    return Call("POST", f"{PREFIX}/write", type(None), {"workspace": workspace}, stream=iter([body]))


def telemetry() -> Call[dict[str, Any]]:
    return Call("GET", f"{PREFIX}/telemetry", dict[str, Any])


def alerts() -> Call[list[Alert]]:
    return Call("GET", f"{PREFIX}/alerts", list[Alert])


def desk() -> Call[Desk]:
    return Call("GET", f"{PREFIX}/alerts/desk", Desk)


def ack(incident: int, comment: str) -> Call[Ack]:
    return Call("POST", f"{PREFIX}/incidents/{incident}/ack", Ack, body=AckRequest(comment=comment))


def silences(over: bool) -> Call[list[Silence]]:
    return Call("GET", f"{PREFIX}/silences", list[Silence], _given(over=over))


def silence(request: SilenceRequest) -> Call[Silence]:
    return Call("POST", f"{PREFIX}/silences", Silence, body=request)


def end_silence(id: int) -> Call[Silence]:
    return Call("DELETE", f"{PREFIX}/silences/{id}", Silence)


def alert_rules(key: Key | None, scrape: float) -> Call[str]:
    params = _given(service=key, scrape=scrape)
    return Call("GET", f"{PREFIX}/alerts/rules", str, params)


def platform() -> Call[dict[str, Any]]:
    return Call("GET", f"{PREFIX}/platform", dict[str, Any])


def freeze() -> Call[FreezeView]:
    return Call("GET", f"{PREFIX}/freeze", FreezeView)


def turn(on: bool, why: str) -> Call[FreezeView]:
    return Call("PUT", f"{PREFIX}/freeze", FreezeView, body=FreezeRequest(on=on, why=why))


def tokens() -> Call[list[TokenView]]:
    return Call("GET", f"{PREFIX}/tokens", list[TokenView])


def create_token(name: str, role: Role, workspaces: Sequence[str], ttl: float | None) -> Call[TokenCreated]:
    body = TokenRequest(name=name, role=role, workspaces=tuple(workspaces), ttl=ttl)
    return Call("POST", f"{PREFIX}/tokens", TokenCreated, body=body)


def revoke_token(name: str) -> Call[TokenView]:
    return Call("DELETE", f"{PREFIX}/tokens/{quote(name, safe='')}", TokenView)


def session() -> Call[SessionView]:
    return Call("POST", f"{PREFIX}/sessions", SessionView)
