"""What is made of what is seen: anomalies, incidents, alerts, feedback, and the audit log."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from leptonai.types.door import Change
from leptonai.types.keys import Key, Noun, Severity, Verdict, canonical


class Reason(Noun, frozen=True, kw_only=True):
    """What one detector said of a signal. ``share``: the signal's part in what a group is blamed for, None: alone."""

    detector: str
    score: float
    share: float | None = None


class Anomaly(Noun, frozen=True, kw_only=True):
    signal: str
    labels: dict[str, str]
    began: float
    last: float
    score: float  # -log10 tail probability
    fell: bool = False  # below what was expected
    detail: str = ""
    reasons: tuple[Reason, ...] = ()  # loudest first


class Evidence(Noun, frozen=True, kw_only=True):
    """One recorded fact an incident may cite. ``text`` says it with its numbers."""

    id: str
    kind: str
    at: float
    text: str
    data: dict[str, Any] = {}


class Cause(Noun, frozen=True, kw_only=True):
    name: str  # a state change, never a symptom; "unknown" is an answer
    subject: str
    confidence: float
    evidence: tuple[str, ...] = ()


class Action(Noun, frozen=True, kw_only=True):
    """One step of a runbook that was taken. ``undone``: the proposal that took it back."""

    remedy: str  # "rollback", "evict", "restart", or "none: reconciled"
    proposal: str | None
    at: float
    verdict: Verdict | None = None  # None: still being verified
    detail: str = ""
    judged: float | None = None
    about: str = ""  # the fault it was taken against: "hung_replica", "bad_revision_errors of digits#4"
    service: Key = ""  # whose wish it changed; "": that of the incident
    revision: int = 0  # of that service once it was admitted; a higher one is somebody else's
    set: dict[str, float] = {}  # the dials it set
    undo: Change | None = None  # what would take it back; None: nothing can, or the runbook does not want it
    undone: str | None = None
    approved: bool | None = None  # by a person; None: nobody had to. False: not (yet), and nothing was done


class Incident(Noun, frozen=True, kw_only=True):
    """``subject``: ``workspace/kind/name``, kind ``service`` or ``external``."""

    id: int
    subject: str
    severity: Severity
    title: str
    began: float  # onset as estimated
    opened: float
    diagnosed: float | None = None
    mitigated: float | None = None
    closed: float | None = None
    escalated: float | None = None
    anomalies: tuple[Anomaly, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    causes: tuple[Cause, ...] = ()
    actions: tuple[Action, ...] = ()
    summary: str = ""
    features: dict[str, float] = {}  # what was seen at the newest diagnosis, in numbers (``ops.features``)

    @property
    def analysis(self) -> str:
        """What a review judges: 16 hex digits of the causes and subjects in their order. Confidences may move."""
        ranked = [(cause.name, cause.subject) for cause in self.causes]
        return hashlib.sha256(canonical(ranked)).hexdigest()[:16]


class Matcher(Noun, frozen=True, kw_only=True):
    """One condition on a label, as Alertmanager's: a missing label equals "", a pattern must match the whole value."""

    label: str
    op: Literal["=", "!=", "=~", "!~"] = "="
    value: str = ""


class Alert(Noun, frozen=True, kw_only=True):
    """What somebody may have to be told. ``labels`` name it (``alertname``, ``service``, ``workspace``, ``severity``).

    Two alerts whose labels agree but for ``severity`` are one. ``pending``: the condition holds, but not long enough.
    """

    labels: dict[str, str]
    state: Literal["pending", "firing", "resolved"]
    summary: str = ""
    since: float  # the condition has held since
    last: float  # it held last
    fired: float | None = None
    resolved: float | None = None
    fires: tuple[float, ...] = ()  # when it fired lately: what makes it flap
    incident: int = 0  # the open incident that tells more; 0: none
    muted: str = ""  # why nobody is told: "silence 3", "inhibited by ..."; "": somebody is
    flapping: bool = False
    receivers: tuple[str, ...] = ()  # who is to be told by the route and, so far, the escalation
    told: tuple[str, ...] = ()  # of these, who knows that it fires
    acked: str = ""  # who has acknowledged its incident


class Silence(Noun, frozen=True, kw_only=True):
    """Nobody is told of alerts that agree with all ``matchers`` from ``starts`` until ``ends``.

    ``until_resolved``: it ends sooner, once what it muted has resolved.
    """

    id: int
    matchers: tuple[Matcher, ...]
    starts: float
    ends: float
    by: str
    comment: str
    made: float
    until_resolved: bool = False


class Ack(Noun, frozen=True, kw_only=True):
    """Somebody has taken an incident: it is not escalated any further."""

    incident: int
    by: str
    at: float
    comment: str = ""


class Feedback(Noun, frozen=True, kw_only=True):
    """What a user or operator said of a prediction (``about``: a request id) or of ``incident:N``."""

    about: str
    by: str
    at: float
    service: Key = ""
    label: Any = None
    rating: float | None = None
    verdict: str | None = None
    note: str = ""


class Review(Noun, frozen=True, kw_only=True):
    """What somebody who knows says of an incident: each part by itself, what is left out is not said.

    ``cause``: what it truly was; "unknown" when none of the taxonomy. ``hypotheses``: causes that were named -> right?
    ``remedies``: of those that were tried. ``analysis``: the ``Incident.analysis`` that was judged; of another one the
    hypotheses say nothing any more, while the cause and the remedies stay as true as they were. Of one reviewer the
    newest review of an incident counts. ``drill``: said by whoever made the fault.
    """

    incident: int
    by: str
    at: float
    analysis: str
    cause: str = ""
    hypotheses: dict[str, bool] = {}
    remedies: dict[str, Verdict] = {}
    note: str = ""
    source: Literal["operator", "drill"] = "operator"


class Issue(Noun, frozen=True, kw_only=True):
    """Complaints about one service that say the same.

    ``fixed``: when somebody said that ``revision`` repairs it; ``closed`` when complaints were seen to be rarer since,
    with ``before`` and ``after`` per request (per second where requests are not known). A complaint to a closed one
    opens it again. ``hours``: (hour since 1970, complaints in it). Texts are masked.
    """

    id: int
    service: Key
    title: str
    terms: tuple[str, ...] = ()
    count: int
    first: float
    last: float
    examples: tuple[str, ...] = ()  # the newest texts
    hours: tuple[tuple[int, int], ...] = ()
    state: Literal["open", "in_work", "fixed", "closed"] = "open"
    owner: str = ""
    revision: int | None = None
    fixed: float | None = None
    closed: float | None = None
    before: float | None = None
    after: float | None = None
    note: str = ""


class Event(Noun, frozen=True, kw_only=True):
    """One line of the audit log: a decision with all its terms, chained by hash to the line before."""

    seq: int
    at: float
    actor: str
    kind: str  # "proposal.admitted", "plan.start", "replica.failed", "gateway.pushed", ...
    subject: str
    detail: dict[str, Any]
    hash: str
