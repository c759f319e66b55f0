"""What travels over ``/api/v1`` beside the nouns: one definition, used by the server and by both clients."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from leptonai.types import (
    DEFAULT_WORKSPACE,
    Ack,
    Anomaly,
    Change,
    Feedback,
    Incident,
    Key,
    Noun,
    Proposal,
    Replica,
    Review,
    Revision,
    Role,
    Series,
    Service,
    Silence,
    VariantDials,
)
from leptonai.types.keys import Verdict as Worked


class ServiceView(Noun, frozen=True, kw_only=True):
    """One service as a caller sees it: the wish, what runs for it, and one line that says how it stands.

    ``ready`` counts ready replicas of the wished digests; ``wanted`` is what the dials ask for.
    ``verified`` is the newest revision found good, None when none was. ``room``: of a service with ``scale.auto``, how
    many more replicas of each variant fit; None: no limit is known. ``scaled_by``: who sets replicas in our place, as
    ``scale.owner`` says; the dials show its numbers then. "": nobody does.
    """

    service: Service
    replicas: tuple[Replica, ...]
    ready: int
    wanted: int
    status: str
    url: str
    verified: int | None = None
    room: dict[str, int | None] = {}
    scaled_by: str = ""

    @property
    def key(self) -> Key:
        return self.service.key


class Verdict(Noun, frozen=True, kw_only=True):
    """How the rollout of ``revision`` ended, or that it did not within the time given."""

    revision: int
    outcome: Literal["promoted", "rolled back", "not enough evidence"]
    why: str


class SilenceRequest(Noun, frozen=True, kw_only=True):
    """``matchers`` as Alertmanager spells them, ``service="digits"``; it begins now unless ``starts`` says later."""

    matchers: tuple[str, ...]
    seconds: float
    comment: str
    starts: float | None = None
    until_resolved: bool = False


class AckRequest(Noun, frozen=True, kw_only=True):
    comment: str = ""


class Desk(Noun, frozen=True, kw_only=True):
    """What people and others have said about alerts: silences not over yet, acknowledgements of open incidents, and the
    open incidents that are about something else than a service of ours."""

    silences: tuple[Silence, ...] = ()
    acks: tuple[Ack, ...] = ()
    external: tuple[Incident, ...] = ()


class ProposalRequest(Noun, frozen=True, kw_only=True):
    """``by`` may be set by the ops token only (``incident:42``, ``scaler``); everyone else signs with their name.

    ``ask``: why an admin must approve it first, whatever the settings say.
    """

    change: Change
    why: str
    dry_run: bool = False
    expires_in: float | None = None
    by: str | None = None
    ask: str = ""


class FreezeRequest(Noun, frozen=True, kw_only=True):
    """The kill switch: ``on``, and why."""

    on: bool
    why: str = ""


class FreezeView(Noun, frozen=True, kw_only=True):
    """``said``: who turned the kill switch on and why; "": automation may act."""

    said: str


class ProposalView(Proposal, frozen=True, kw_only=True):
    """A proposal with the hash that an approval of it has to name."""

    hash: str


def viewed(proposal: Proposal) -> ProposalView:
    return ProposalView(**msgspec.structs.asdict(proposal), hash=proposal.hash)


class ApproveRequest(Noun, frozen=True, kw_only=True):
    """``hash`` of the proposal that was read: what changed since is not approved."""

    hash: str


class VerifyRequest(Noun, frozen=True, kw_only=True):
    detail: str = ""


class Moved(Noun, frozen=True, kw_only=True):
    """A service with its past, as it moves from one platform to another: what a bundle says beside the models' files.

    ``revisions`` from the first on, ``dials`` as they stood, ``incidents`` that are closed and ``feedback``, each the
    oldest first.
    """

    bundle: int = 1
    service: Key
    revisions: tuple[Revision, ...]
    dials: dict[str, VariantDials] = {}
    incidents: tuple[Incident, ...] = ()
    feedback: tuple[Feedback, ...] = ()


class UndoRequest(Noun, frozen=True, kw_only=True):
    """``why`` is added to what the undo says of itself."""

    why: str = ""


class ArtifactView(Noun, frozen=True, kw_only=True):
    digest: str


class FeedbackRequest(Noun, frozen=True, kw_only=True):
    """``about``: the ``x-request-id`` of a prediction, or ``incident:N``. Who and when are noted by the server."""

    about: str
    service: Key = ""
    label: Any = None
    rating: float | None = None
    verdict: str | None = None
    note: str = ""


class ReviewRequest(Noun, frozen=True, kw_only=True):
    """``analysis``: the one that was read; "" is the one in force. Who and when are noted by the server."""

    cause: str = ""
    hypotheses: dict[str, bool] = {}
    remedies: dict[str, Worked] = {}
    note: str = ""
    source: Literal["operator", "drill"] = "operator"
    analysis: str = ""


class ReviewPage(Noun, frozen=True, kw_only=True):
    """``next`` is what to ask for after this page: ``after=next``."""

    items: list[tuple[int, Review]]
    next: int


class IssueRequest(Noun, frozen=True, kw_only=True):
    """What changes; None stays as it is. ``revision``: the one that repairs it, with state ``fixed``."""

    state: Literal["open", "in_work", "fixed", "closed"] | None = None
    owner: str | None = None
    revision: int | None = None
    note: str | None = None


class IssueVerdict(Noun, frozen=True, kw_only=True):
    """Whether complaints became rarer since the repair, per request (or per second), as ops has counted."""

    fell: bool
    before: float
    after: float
    chance: float


class Accepted(Noun, frozen=True, kw_only=True):
    accepted: int


class FeedbackPage(Noun, frozen=True, kw_only=True):
    """``next`` is what to ask for after this page: ``after=next``."""

    items: list[tuple[int, Feedback]]
    next: int


class EventRequest(Noun, frozen=True, kw_only=True):
    kind: str
    subject: str
    detail: dict[str, Any] = {}


class TokenRequest(Noun, frozen=True, kw_only=True):
    """``ttl`` seconds until it expires; None: it stays until it is revoked."""

    name: str
    role: Role = "viewer"
    workspaces: tuple[str, ...] = (DEFAULT_WORKSPACE,)
    ttl: float | None = None


class TokenView(Noun, frozen=True, kw_only=True):
    """A token without anything that could be used in its place."""

    name: str
    role: Role
    workspaces: tuple[str, ...]
    created: float
    expires: float | None
    revoked: bool


class TokenCreated(Noun, frozen=True, kw_only=True):
    """``secret`` is shown this once and kept nowhere."""

    token: TokenView
    secret: str


class SessionView(Noun, frozen=True, kw_only=True):
    """``url`` opens the console once, within ``expires_in`` seconds."""

    url: str
    expires_in: float


class Health(Noun, frozen=True, kw_only=True):
    status: str
    version: str


class JudgedView(Noun, frozen=True, kw_only=True):
    """A series with what was expected of it, the band around that, and -log10 of how unlikely each value is.

    ``ahead``: (seconds from its newest value, value, and its 95 % band). ``anomalies``: of it, open now.
    """

    name: str
    labels: dict[str, str]
    at: list[float]
    value: list[float | None]
    expected: list[float | None]
    low: list[float | None]
    high: list[float | None]
    score: list[float | None]
    ahead: list[tuple[float, float, float, float]]
    anomalies: list[Anomaly] = []


class SeriesView(Noun, frozen=True, kw_only=True):
    """A Series in JSON, which has no nan: nothing seen is null."""

    name: str
    labels: dict[str, str]
    at: list[float]
    value: list[float | None]

    def series(self) -> Series:
        value = [math.nan if v is None else v for v in self.value]
        return Series(name=self.name, labels=self.labels, at=self.at, value=value)


class TraceView(Noun, frozen=True, kw_only=True):
    """One trace in a list: its root as far as it was seen, and what it went through."""

    trace: str
    request: str
    name: str
    start: float
    seconds: float
    failed: bool
    services: tuple[str, ...]
    spans: int


class TemplateView(Noun, frozen=True, kw_only=True):
    """A template of a service's log. ``sample``: its newest line, masked; ``first``: when it was first seen, None if
    before ops started."""

    template_id: int
    template: str
    count: int
    severity: int
    sample: str
    first: float | None


class Edge(Noun, frozen=True, kw_only=True):
    """Calls seen from one service to another. ``seconds``: their mean."""

    caller: str
    callee: str
    calls: int
    failed: int
    seconds: float


class Node(Noun, frozen=True, kw_only=True):
    """A service in the graph. ``spans`` 0: it is only named by its callers."""

    service: str
    spans: int
    failed: int


class Graph(Noun, frozen=True, kw_only=True):
    """Who called whom: services by name, calls by caller and callee."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
