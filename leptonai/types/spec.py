"""The spec half of a wish: what a service is. Only a change of it is a revision."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from leptonai.types.keys import DEFAULT_WORKSPACE, Key, Noun, Policy, Strategy, canonical, make_key


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
    """Bounds of the replicas dial and where it starts. ``auto`` None: people and runbooks set it.

    ``owner``: who sets replicas on a cluster. ``kubernetes``: its own autoscaler does, ``keda``: KEDA, by the requests
    that a Prometheus counts; and nothing of ours. One machine has no other owner than us.
    """

    min: int = 0
    max: int = 64
    replicas: int = 1
    idle: float | None = None  # seconds without a request until replicas go to zero; a request wakes it. None: never
    auto: Auto | None = None
    owner: Literal["leptonai", "kubernetes", "keda"] = "leptonai"


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


class Survey(Noun, frozen=True, kw_only=True):
    """What users are asked of a service, and what an answer on its scale means. ``open``: the form is served."""

    open: bool = False
    question: str = ""  # "": the form's own words
    scale: tuple[int, int] = (1, 5)  # the ratings of the form, from worst to best
    satisfied: float = 4.0  # a rating from which a user is satisfied
    complaint: float = 2.0  # a rating up to which it is a complaint


class Golden(Noun, frozen=True, kw_only=True):
    """A body of ``/predict`` and what the answer must be: the outputs named here, numbers within ``tolerance``.

    ``outputs`` None: it must be answered, whatever with.
    """

    inputs: dict[str, Any]
    outputs: Any = None
    tolerance: float = 1e-4  # relative and absolute; float32 kernels of different machines agree to about 1e-6


class ModelTests(Noun, frozen=True, kw_only=True):
    """What operations ask each ready replica by schedule, beside its users. None of it counts as a user's request.

    ``invariances``: what may be done to the inputs of the golden examples without another decision of the model:
    ``repeat`` (asked again), ``noise`` (numbers with a point move by ``noise`` of themselves), ``case`` (texts in
    capitals), ``spaces`` (texts with doubled blanks).
    """

    every: float = 60.0  # seconds from one round to the next, of each replica
    golden: tuple[Golden, ...] = ()
    failing: float = 0.0  # share of the examples that may fail in each test
    invariances: tuple[Literal["repeat", "noise", "case", "spaces"], ...] = ()
    noise: float = 0.01
    latency: float | None = None  # seconds that the median answer of a round may take; None: it is not judged


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
    survey: Survey | None = None
    tests: ModelTests | None = None
    timeout: float = 30.0  # a request is answered 504 after this long
    drain: float = 30.0  # a replica being stopped may finish its requests for this long
    priority: int = 0  # a runbook may take replicas from a service of a lower one, see docs/runbooks.md

    @property
    def key(self) -> Key:
        return make_key(self.name, self.workspace)

    @property
    def balancing(self) -> Balance:
        return self.balance if isinstance(self.balance, Balance) else Balance(policy=self.balance)


class Tuning(Noun, frozen=True, kw_only=True):
    """What a replica can be told while it runs: how to make batches, by when an answer is good or still wanted, which
    requests to refuse (texts of ``InputRule``)."""

    batching: Batching = Batching()
    latency: float = 0.25  # of the SLO
    timeout: float = 30.0
    refuse: tuple[str, ...] = ()

    @staticmethod
    def of(spec: Spec, variant: Variant, refuse: tuple[str, ...] = ()) -> Tuning:
        """What the wish says of ``variant``; ``refuse``: its dials' ``quarantine``."""
        return Tuning(batching=variant.batching, latency=spec.slo.latency, timeout=spec.timeout, refuse=refuse)
