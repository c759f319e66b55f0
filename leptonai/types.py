"""The nouns: frozen values with no I/O, shared by every room.

Units everywhere: times are unix seconds, durations seconds, sizes bytes, shares 0..1.
A service is named by its key: ``name`` in the default workspace, ``workspace/name`` elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

DEFAULT_WORKSPACE = "default"
SCALER = "scaler"  # who proposes replicas of services with ``scale.auto`` or ``scale.idle``
NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")  # a DNS label with room for the suffixes of replicas
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Key = str  # "digits" or "team/digits"; made by make_key, taken apart by parse_key
Role = Literal["viewer", "operator", "admin"]
State = Literal["starting", "ready", "failed", "stopping"]
Severity = Literal["info", "warning", "critical"]
Verdict = Literal["effective", "ineffective", "inconclusive", "harmful"]
Policy = Literal["least_request", "round_robin", "random", "ring_hash", "maglev"]
Strategy = Literal["replace", "canary", "blue_green", "manual"]


def make_key(name: str, workspace: str = DEFAULT_WORKSPACE) -> Key:
    """The key of a service; the default workspace is elided."""
    return name if workspace == DEFAULT_WORKSPACE else f"{workspace}/{name}"


def parse_key(key: Key) -> tuple[str, str]:
    """``(workspace, name)`` of a key; the inverse of make_key."""
    workspace, _, name = key.rpartition("/")
    return workspace or DEFAULT_WORKSPACE, name


class Noun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """What every noun is: immutable, named fields, unknown fields refused when decoded."""


# --- the wish: spec half -------------------------------------------------------------------------------------------


class Resources(Noun, frozen=True, kw_only=True):
    """What one replica may use. None: no limit is set and none is counted against the room."""

    cpu: float | None = None
    memory: int | None = None
    gpu: int = 0


class Batching(Noun, frozen=True, kw_only=True):
    """How a replica makes batches. It may be changed while replicas run: see ``Tuning``.

    ``adaptive`` sizes batches by the learnt cost of the model so that ``slo.latency`` holds, and waits where that would
    have paid so far; ``eager`` takes what is queued, up to ``max_size``, once the oldest has waited ``max_wait``.
    """

    policy: Literal["adaptive", "eager"] = "adaptive"
    max_size: int = 32  # samples in a batch; a larger request is computed in slices
    max_bytes: int = 64 << 20  # of the request bodies in a batch
    max_wait: float = 0.0  # eager only
    max_queue: int = 1024  # samples waiting; past it a request is shed with 429


class Slo(Noun, frozen=True, kw_only=True):
    """What users are promised, over ``period`` seconds. Burn windows scale with the period (30 d is the textbook)."""

    availability: float = 0.999
    latency: float = 0.25  # a request is good when answered within this many seconds
    latency_objective: float = 0.99
    period: float = 30 * 86400.0


class Auto(Noun, frozen=True, kw_only=True):
    """How the number of replicas follows the load. ``policy`` and its numbers are explained in docs/scaling.md."""

    policy: Literal["ours", "hpa", "kpa"] = "ours"
    target: float | None = None  # concurrency wanted per replica; None: 0.7 x concurrency
    concurrency: float = 1.0  # requests a replica serves at once; one compute thread serves one (or one batch)
    window: float = 60.0  # seconds that are averaged
    hold: float | None = None  # seconds that what was needed is kept; None: the policy's own, 300, 300 (hpa), 0 (kpa)


class Scale(Noun, frozen=True, kw_only=True):
    """Bounds of the replicas dial and where it starts. ``auto`` None: people and runbooks set it."""

    min: int = 0
    max: int = 64
    replicas: int = 1
    idle: float | None = None  # seconds without a request until replicas go to zero; a request wakes it. None: never
    auto: Auto | None = None


class Hold(Noun, frozen=True, kw_only=True):
    """Requests that wait at the edge while no replica is ready: how long, and how much of them, per variant."""

    max_wait: float = 10.0  # seconds until a held request is answered 503; 0: none is held
    max_count: int = 1000  # requests held at once; one more is answered 429
    max_bytes: int = 64 << 20  # of their bodies


class Fallback(Noun, frozen=True, kw_only=True):
    """The last good answers, given while no replica can answer. Opt-in; every one is marked as stale."""

    max_age: float = 300.0  # seconds; an older answer is never given
    max_bytes: int = 16 << 20  # of answers kept; the oldest go first
    shared: bool = False  # also to callers with another token than the one that was answered
    sensitive: bool = False  # kept encrypted in the memory of the edge


class Rollout(Noun, frozen=True, kw_only=True):
    """How a new revision replaces the old one, and when it counts as verified-good.

    The fields from ``steps`` to ``disagreement`` are for every strategy but ``replace``. ``alpha``: chance that a
    version no worse than the old one is taken back, however often it is looked at. ``power``: chance that one with
    ``effect`` more errors is found before a step is passed.
    """

    strategy: Strategy = "replace"
    surge: int = 1  # replicas above the wish while replacing
    start_timeout: float = 60.0
    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 1.0)  # shares of the requests, ascending to 1
    step_seconds: float = 60.0  # at least this long at every step: a minute is the usual interval of canary analysis
    step_timeout: float = 3600.0  # without enough evidence for this long: a person is asked
    mirror: bool = True  # copy requests to the new version first; only where every variant is idempotent
    alpha: float = 0.01
    power: float = 0.9
    effect: float = 0.05  # additional share of errors that must be found
    slower: float = 0.25  # tolerated increase of the median and the 95th percentile of latency
    min_samples: int = 100  # answers of the new version before anything is called clear
    disagreement: float = 0.1  # share of mirrored requests answered differently at which it pauses; 1: never
    record: int = 0  # requests recorded from the old version, in memory, and put to the new one before all else
    verify_seconds: float = 60.0  # healthy this long ...
    verify_requests: int = 100  # ... and this many requests answered: verified


class Balance(Noun, frozen=True, kw_only=True):
    """Which replica gets a request. ``hash_on``: ``header:NAME``, ``cookie:NAME``, ``query:NAME``, ``source``."""

    policy: Policy = "least_request"
    hash_on: tuple[str, ...] = ()  # of ring_hash and maglev: the first that a request has; (): x-session-id, source
    cookie_ttl: float | None = None  # the gateway sets the cookie for this long; 0: until the browser closes
    load_factor: float = 0.0  # of a hash policy: no replica gets more than this times the mean; 0: no bound
    slow_start: float = 0.0  # over this long a new replica's share rises to a full one


class Outlier(Noun, frozen=True, kw_only=True):
    """A replica that answers only errors is left out for a while; some always stay, however bad."""

    errors: int = 5  # in a row; 5xx and broken connections count, 429 never
    eject: float = 30.0  # seconds out, times the number of times it was, 10 times at most
    max_share: float = 0.5  # of the replicas that may be out together


class Retry(Noun, frozen=True, kw_only=True):
    """Repetition on another replica. At most ``budget`` of the requests in flight, or ``min``, may be repetitions."""

    attempts: int | None = None  # after the first one; None: gateway.retries
    budget: float = 0.8
    min: int = 100


class Limits(Noun, frozen=True, kw_only=True):
    """What one variant may hold at once, shed with 429 past it. None: no limit of ours."""

    connections: int | None = None
    pending: int | None = None
    requests: int | None = None
    replica_connections: int | None = None


class RateLimit(Noun, frozen=True, kw_only=True):
    """Requests per second of one bearer token; those without one share a bucket. 429 + Retry-After past it."""

    rate: float
    burst: int | None = None  # at once; None: what a second allows
    anonymous: float | None = None  # requests per second of all without a token together; None: as one token


class Variant(Noun, frozen=True, kw_only=True):
    """One model as it runs: everything that, when changed, needs new processes (but ``batching``). See ``digest``."""

    name: str = "main"
    model: str  # "sha256:..." of an artifact once admitted
    options: dict[str, Any] = {}
    env: dict[str, str] = {}
    python: str | None = None  # an interpreter's path; None: the platform's own
    resources: Resources = Resources()
    batching: Batching = Batching()
    idempotent: bool | None = None  # None: true for model files, false for Python code
    trust: Literal["none", "pickle"] = "none"

    @property
    def digest(self) -> str:
        """16 hex digits over every field but ``batching``, which running replicas are told anew.

        Equal exactly when two variants need the same processes.
        """
        return hashlib.sha256(canonical(msgspec.structs.replace(self, batching=Batching()))).hexdigest()[:16]


class Spec(Noun, frozen=True, kw_only=True):
    """The spec half of a wish. Only a change of it is a Revision."""

    name: str
    workspace: str = DEFAULT_WORKSPACE
    variants: tuple[Variant, ...]
    slo: Slo = Slo()
    scale: Scale = Scale()
    rollout: Rollout = Rollout()
    hold: Hold = Hold()
    fallback: Fallback | None = None
    balance: Policy | Balance = "least_request"  # the policy alone is short for Balance(policy=...)
    outlier: Outlier | None = None
    retry: Retry = Retry()
    limits: Limits = Limits()
    rate_limit: RateLimit | None = None
    timeout: float = 30.0  # a request is answered 504 after this long
    drain: float = 30.0  # a replica being stopped may finish its requests for this long

    @property
    def key(self) -> Key:
        return make_key(self.name, self.workspace)

    @property
    def balancing(self) -> Balance:
        return self.balance if isinstance(self.balance, Balance) else Balance(policy=self.balance)


class Tuning(Noun, frozen=True, kw_only=True):
    """What a replica can be told while it runs: how to make batches, and by when an answer is good or still wanted."""

    batching: Batching = Batching()
    latency: float = 0.25  # of the SLO
    timeout: float = 30.0

    @staticmethod
    def of(spec: Spec, variant: Variant) -> Tuning:
        """What the wish says of ``variant``."""
        return Tuning(batching=variant.batching, latency=spec.slo.latency, timeout=spec.timeout)


# --- the wish: dials half ------------------------------------------------------------------------------------------


class Dial(Noun, frozen=True, kw_only=True):
    """One entry of the dials log. ``path``: ``main.replicas|auto|weight|mirror|epoch``, ``evict.<replica id>``,
    ``rollout.<revision>.replicas|weight|mirror|promoted``, or ``fallback``: 0 takes the spec's out of force, 1 puts it
    back."""

    path: str
    value: float
    owner: str  # who set it: "human:ana", "incident:42", "scaler"
    reason: str
    at: float
    expires: float | None = None


class VariantDials(Noun, frozen=True, kw_only=True):
    replicas: int = 1
    weight: float = 1.0
    mirror: float = 0.0
    epoch: int = 0
    auto: bool = True  # False: a person set the replicas, and the scaler leaves them


class Dials(Noun, frozen=True, kw_only=True):
    """The dials half in force: what ``effective_dials`` makes of the log at one moment."""

    variants: dict[str, VariantDials] = {}
    evict: tuple[str, ...] = ()
    fallback: bool = True  # whether the spec's fallback may answer


class Canary(Noun, frozen=True, kw_only=True):
    """The head is on probation: ``stable``, the variants of revision ``revision``, still serve.

    ``replicas`` of the head's variants run beside them, ``weight`` is the head's share of the requests, ``mirror`` the
    share that is copied to it. ``since``: when weight or mirror last changed; ``asked``: when replicas did.
    """

    stable: tuple[Variant, ...]
    revision: int
    replicas: int = 1
    weight: float = 0.0
    mirror: float = 0.0
    since: float = 0.0
    asked: float = 0.0


class Service(Noun, frozen=True, kw_only=True):
    """The whole wish: revision ``revision`` of the spec, and the dials in force.

    ``canary``: the rollout of the head that is under way. ``rejected``: digests that were on probation and never got
    through it: they must not answer anybody.
    """

    spec: Spec
    dials: Dials
    revision: int
    canary: Canary | None = None
    rejected: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.spec.key

    def variant(self, name: str, digest: str) -> Variant:
        """What a replica of this wish is started from: the head's variant, or that of the revision before it."""
        stable = self.canary.stable if self.canary else ()
        return next(v for v in (*self.spec.variants, *stable) if v.name == name and v.digest == digest)

    def revision_of(self, variant: Variant) -> int:
        """The number of the revision that ``variant`` of this wish belongs to."""
        return self.canary.revision if self.canary and variant not in self.spec.variants else self.revision


def effective_dials(spec: Spec, log: list[Dial], now: float) -> Dials:
    """The dials in force at ``now``: per path the last unexpired entry, bounded by ``spec.scale``; epoch only rises.

    What the scaler set counts only while ``spec.scale`` has ``auto`` or ``idle``. A person who sets ``replicas`` takes
    them out of the scaler's hands (``auto`` false) until that entry expires or ``auto`` is set to 1.
    """
    last: dict[str, Dial] = {}
    epoch: dict[str, int] = {}
    auto: dict[str, bool] = {}
    for entry in log:
        if entry.path.endswith(".epoch"):
            epoch[entry.path] = max(epoch.get(entry.path, 0), int(entry.value))
        elif entry.owner == SCALER and spec.scale.auto is None and spec.scale.idle is None:
            continue
        elif entry.expires is None or entry.expires > now:
            last[entry.path] = entry
            name, _, dial = entry.path.rpartition(".")
            if dial == "auto":
                auto[name] = bool(entry.value)
            elif dial == "replicas" and entry.owner.startswith("human:"):
                auto[name] = False
    variants = {}
    for variant in spec.variants:
        wanted = last.get(f"{variant.name}.replicas")
        weight = last.get(f"{variant.name}.weight")
        mirror = last.get(f"{variant.name}.mirror")
        count = int(wanted.value) if wanted else spec.scale.replicas
        variants[variant.name] = VariantDials(
            replicas=min(max(count, spec.scale.min), spec.scale.max),
            weight=weight.value if weight else 1.0,
            mirror=mirror.value if mirror else 0.0,
            epoch=epoch.get(f"{variant.name}.epoch", 0),
            auto=auto.get(variant.name, True),
        )
    evict = tuple(sorted(p.removeprefix("evict.") for p, d in last.items() if p.startswith("evict.") and d.value))
    fallback = last.get("fallback")
    return Dials(variants=variants, evict=evict, fallback=fallback is None or bool(fallback.value))


class Revision(Noun, frozen=True, kw_only=True):
    """One spec change in the linear history of a service. ``spec`` None: the service was deleted here."""

    service: Key
    number: int
    by: str
    why: str
    at: float
    spec: Spec | None
    verified: float | None = None  # when it was found good; None: not (yet)


# --- the one door --------------------------------------------------------------------------------------------------


class SpecChange(Noun, frozen=True, kw_only=True, tag="spec"):
    """Replace the spec. ``base``: the revision it was made from (0: the service must not exist)."""

    spec: Spec
    base: int


class DialChange(Noun, frozen=True, kw_only=True, tag="dial"):
    """Set dials of one service, all or none. ``ttl`` seconds until they expire; None: they stay."""

    service: Key
    set: dict[str, float]
    ttl: float | None = None


class DeleteChange(Noun, frozen=True, kw_only=True, tag="delete"):
    service: Key
    base: int


Change = SpecChange | DialChange | DeleteChange


class Proposal(Noun, frozen=True, kw_only=True):
    """A wish for a change, with who and why. ``hash`` covers the change alone: approval binds to it."""

    id: str
    change: Change
    by: str
    why: str
    at: float
    expires: float
    status: Literal["pending", "admitted", "denied", "expired"] = "pending"
    reasons: tuple[str, ...] = ()
    approved_by: str | None = None
    dry_run: bool = False

    @property
    def hash(self) -> str:
        return hashlib.sha256(canonical(self.change)).hexdigest()

    @property
    def service(self) -> Key:
        return self.change.spec.key if isinstance(self.change, SpecChange) else self.change.service


class Token(Noun, frozen=True, kw_only=True):
    """Who a caller is and what they may do. The secret itself is never kept, only its sha256."""

    name: str
    role: Role
    workspaces: tuple[str, ...] = ("*",)
    secret_sha256: str
    created: float
    expires: float | None = None
    revoked: bool = False


# --- the world -----------------------------------------------------------------------------------------------------


class Replica(Noun, frozen=True, kw_only=True):
    """One process of one variant, as observed; never stored. ``reason`` is a slug, ``detail`` a sentence."""

    id: str
    service: Key
    variant: str
    digest: str
    epoch: int = 0
    state: State
    reason: str = ""
    detail: str = ""
    since: float
    started: float = 0.0
    address: str = ""  # "unix:/path" or "host:port"
    pid: int | None = None
    attempt: int = 0  # consecutive crashes before this start
    tuning: Tuning | None = None  # in force there; None: not known
    cost: tuple[float, float] | None = None  # learnt: n samples take cost[0] * n + cost[1] seconds; None: not (yet)

    @property
    def gone(self) -> bool:
        """True when nothing runs any more: serve replaces it. A hung replica is present, and ops' business."""
        return self.state == "failed" and self.reason != "hung"


class Start(Noun, frozen=True, kw_only=True, tag="start"):
    service: Key
    variant: str
    digest: str
    epoch: int
    attempt: int = 0


class Retire(Noun, frozen=True, kw_only=True, tag="retire"):
    """Take out of rotation, let it finish its requests, stop it."""

    replica: str
    reason: str


class Forget(Noun, frozen=True, kw_only=True, tag="forget"):
    """Drop the record of a replica that is gone."""

    replica: str


class Tune(Noun, frozen=True, kw_only=True, tag="tune"):
    """Tell a running replica how to make batches from now on."""

    replica: str
    tuning: Tuning


Step = Start | Retire | Forget | Tune


class Launch(Noun, frozen=True, kw_only=True):
    """What a replica process is told: ``launch.json`` in its run directory, read by ``python -m leptonai.runtime``."""

    replica: str
    service: Key
    variant: Variant
    revision: int
    artifact: str  # a read-only folder with the model's files
    socket: str  # the Unix socket to listen on
    run_dir: str  # the replica's own folder: prediction log, failure.json
    timeout: float = 30.0
    latency: float = 0.25  # of the SLO
    drain: float = 30.0
    prediction_log_bytes: int = 8_000_000


class Standby(Noun, frozen=True, kw_only=True):
    """What the edge does for one cluster while no replica can answer; in the metadata of its priority-1 endpoint."""

    service: Key
    variant: str
    digest: str
    idempotent: bool
    asleep: bool  # none is wished for now; a held request wakes it
    hold: Hold
    fallback: Fallback | None = None


class Answered(Noun, frozen=True, kw_only=True, array_like=True):
    """A request and its good answer, as a replica hands them to the edge (``POST /-/answers``, MessagePack)."""

    at: float
    target: bytes
    authorization: bytes
    json_size: bytes  # of the request, its Inference-Header-Content-Length; b"": all of it is JSON
    body: bytes
    content_type: bytes
    answer: bytes
    answer_json_size: int | None = None  # None: all of the answer is what its content type says


class LogLine(Noun, frozen=True, kw_only=True):
    at: float
    replica: str
    text: str


class Fault(Noun, frozen=True, kw_only=True):
    """A real fault for drills; ``amount``: leak bytes/s, hog cores, delay seconds, error share."""

    kind: Literal["kill", "stop", "leak", "hog", "delay", "error", "disk_full"]
    replica: str
    amount: float = 0.0
    heal_after: float = 60.0


# --- what is seen, and what is made of it --------------------------------------------------------------------------


class Signal(Noun, frozen=True, kw_only=True):
    """One sample. The name ends in its unit: ``_seconds``, ``_bytes``, ``_ratio``, ``_per_second``, ``_count``."""

    name: str
    labels: dict[str, str]
    at: float
    value: float


class Series(Noun, frozen=True, kw_only=True):
    """A stretch of one signal over ``[start, end)``, times ascending; nan where nothing was seen."""

    name: str
    labels: dict[str, str]
    at: list[float]
    value: list[float]


class LogRecord(Noun, frozen=True, kw_only=True):
    """One line or event that something wrote. ``source``: what wrote it, ``{"service": "till", "host": "shop-3"}``."""

    at: float
    source: dict[str, str]
    body: str
    severity: int = 0  # OpenTelemetry's number: 1 trace, 5 debug, 9 info, 13 warning, 17 error, 21 fatal; 0: not told
    trace: str = ""  # 32 hex digits of the trace it belongs to, when it says so
    span: str = ""


class LogEntry(Noun, frozen=True, kw_only=True):
    """One kept line, as a search answers. ``seq`` rises in order of arrival; what is secret in it is masked."""

    seq: int
    at: float
    service: str
    source: dict[str, str] = {}  # what else is known of who wrote it: replica, host, file ...
    severity: int = 0
    template_id: int = 0
    template: str = ""
    body: str
    trace: str = ""
    span: str = ""
    workspace: str = DEFAULT_WORKSPACE  # "*": of the platform itself


class LogPage(Noun, frozen=True, kw_only=True):
    """``items``: newest first. ``next``: give it as ``before`` to go on; None: nothing older is kept."""

    items: list[LogEntry]
    next: int | None


class Span(Noun, frozen=True, kw_only=True):
    """One piece of work of one service within a trace. Ids are hex as in W3C trace context; parent "": a root."""

    trace: str  # 32 hex digits
    id: str  # 16 hex digits
    parent: str = ""
    name: str
    service: str  # a key of ours, or the ``service.name`` that a foreign one gives itself
    kind: Literal["internal", "server", "client", "producer", "consumer"] = "internal"
    start: float
    seconds: float
    failed: bool = False
    request: str = ""  # the x-request-id, where there is one
    workspace: str = DEFAULT_WORKSPACE
    attributes: dict[str, str] = {}


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
    remedy: str  # "rollback", "evict", "restart", or "none: reconciled"
    proposal: str | None
    at: float
    verdict: Verdict | None = None  # None: still being verified
    detail: str = ""
    judged: float | None = None


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


class Event(Noun, frozen=True, kw_only=True):
    """One line of the audit log: a decision with all its terms, chained by hash to the line before."""

    seq: int
    at: float
    actor: str
    kind: str  # "proposal.admitted", "plan.start", "replica.failed", "gateway.pushed", ...
    subject: str
    detail: dict[str, Any]
    hash: str


def canonical(value: Any) -> bytes:
    """The one JSON spelling of a value, for hashing: sorted keys, no blanks. Equal values give equal bytes."""
    return msgspec.json.encode(value, order="deterministic")
