"""Every setting with its unit, its default, and the reason for it. Read from ``<home>/settings.yaml``."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec

from leptonai.errors import SpecError
from leptonai.types import Noun
from leptonai.yaml import decode


class Api(Noun, frozen=True, kw_only=True):
    host: str = "127.0.0.1"  # loopback: nothing is open to a network until an operator says so
    port: int = 8310  # 0: any free port, written to control.json
    max_body: int = 1 << 30  # bytes; an uploaded artifact must fit
    ops_deadman: float = 10.0  # seconds without a sign of ops until status says so
    feedback_rate: float = 500.0  # items a second of one token; each is synced to disk, so a flood would starve changes
    feedback_burst: float = 2000.0  # items at once: a batch of labels that arrive late


class Gateway(Noun, frozen=True, kw_only=True):
    host: str = "127.0.0.1"  # where users reach the gateway; loopback until an operator says otherwise
    port: int = 8320  # 0: any free port
    public: str = ""  # how users elsewhere reach it, as http://models.example; "": its own address is told
    threads: int = 0  # Envoy workers; 0: half the cores, at least 2 of two: one carries less than a lean replica
    max_body: int = 64 << 20  # bytes of one request
    health_interval: float = 0.5  # seconds; with 2 misses a hung replica is out of rotation within 2 s
    health_timeout: float = 0.5  # seconds until an unanswered probe counts as a miss
    retries: int = 3  # of idempotent requests, on another host
    hedge_after: float = 2.0  # seconds unanswered until an idempotent request is asked of another replica too; 0: never
    respawn: float = 1.0  # seconds until a dead Envoy is started again at the latest
    trace_share: float = 0.01  # share of good, quick requests whose trace is kept; failed and slow ones always are
    trace_slow: float = 0.25  # seconds from which a request is slow for traces: the latency promised by default


class Local(Noun, frozen=True, kw_only=True):
    probe_interval: float = 0.5  # seconds between readiness probes of a replica
    hung_after: float = 2.0  # seconds without an answer while it is alive and had a processor: failed, reason "hung"
    backoff_first: float = 1.0  # seconds before the second start of a crashing replica, doubled each time ...
    backoff_max: float = 64.0  # ... up to this
    stable_after: float = 10.0  # ready this long: a crash counts as the first again
    log_bytes: int = 8_000_000  # of one replica's log file before it is rotated
    log_files: int = 3  # kept of each replica: the one being written and its predecessors
    isolate: bool = True  # when root: another uid, no new privileges, cgroup limits
    kill_after: float = 5.0  # seconds between SIGTERM's grace and SIGKILL


class Kubernetes(Noun, frozen=True, kw_only=True):
    enabled: bool = False  # replicas are pods of a cluster; false: processes of this machine
    context: str = ""  # of the kubeconfig; "": the current one
    namespace: str = ""  # that everything is made in; "": the context's, or the pod's own
    # of a replica; fields: workspace, service, variant, digest (of the variant), model (its artifact's digits)
    image: str = "localhost/{service}-{variant}:{model}"
    # what leads requests of others in the cluster; auto: gateway where one is named, else istio where it is served
    traffic: Literal["auto", "service", "gateway", "istio"] = "auto"
    gateway: str = ""  # of traffic gateway: the Gateway that routes join, namespace/name
    callers: tuple[str, ...] = ()  # other namespaces whose pods may call
    prometheus: str = ""  # that KEDA asks, as it reaches it; for services with scale.owner keda
    gateway_pods: bool = False  # our gateway is in pods of its own, as `leptonai export control` makes them; not here
    resync: float = 600.0  # seconds until everything is listed anew; in between changes are watched
    lease: float = 15.0  # seconds without a sign of the copy that leads until another may take over; client-go's


class Admit(Noun, frozen=True, kw_only=True):
    pace_count: int = 10  # automatic proposals admitted at most ...
    pace_seconds: float = 60.0  # ... in this long, over all services
    cooldown: float = 10.0  # seconds between two automatic changes of one service
    scale_count: int = (
        30  # changes of one service that the scaler may make in pace_seconds: its policies decide each 2 s
    )
    proposal_ttl: float = 900.0  # seconds a pending proposal may wait for approval
    approval: tuple[str, ...] = ()  # remedies or kinds ("delete", "rollback") that need a person's approval
    frozen: bool = False  # no automatic proposal is admitted, ever; `leptonai freeze` does so at once, until `thaw`


class Ops(Noun, frozen=True, kw_only=True):
    period: float = 1.0  # seconds between collections
    keep: float = 3600.0  # seconds of telemetry in memory
    settle: float = 3.0  # seconds a cause must lead to be acted upon, and of health until a remedy counts as effective
    verify_timeout: float = 30.0  # seconds after which a remedy without health is ineffective
    attempts: int = 2  # ineffective tries before an incident is escalated
    stale_periods: float = 5.0  # collections missed until telemetry is too old to act upon
    min_confidence: float = 0.7  # below it a cause is told and nothing is done (the value kubernaut settled on)
    denials: int = 5  # refusals of the door until a person is called
    concurrent: int = 3  # remedies on their way at once, over all services: more is a fault of the platform itself
    shadow: bool = False  # decide and record everything, propose nothing: how to begin where nobody trusts us yet
    reopen: float = 30.0  # seconds after closing in which the same trouble is the same incident
    anomaly_score: float = 4.0  # -log10 tail probability at which one point counts
    anomaly_share: float = 0.3  # share of a service's golden signals that must be anomalous together
    # trained: one of your own counts beside the rules, the shipped one is only told; or vote, shadow (told), off
    classifiers: Literal["trained", "vote", "shadow", "off"] = "trained"
    gpus: str = ""  # a JSON file with readings of GPUs, in place of NVML: simulated ones, or another vendor's


class Watched(Noun, frozen=True, kw_only=True):
    name: str  # its incidents are about <workspace>/external/<name>
    signals: tuple[str, ...] = ("*",)  # patterns of names, like press_*
    labels: dict[str, str] = {}  # that a series must have
    workspace: str = "default"  # that sends them
    limits: dict[str, tuple[float | None, float | None]] = {}  # name -> [least, most]: beyond them it is wrong


class Detecting(Noun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `leptonai tune` finds with `detect`; a step is one collection, a second unless ops.period says otherwise."""

    alpha: float = 0.01  # share of each new value in the level and in the spread around it
    order: int = 3  # values before that the autoregression forecasts from
    patience: int = 60  # steps until a level shift is adopted
    every: int = 12  # steps of one sample of the search for shapes that never were
    day: float = 86_400.0  # seconds of the season
    weekly: bool = True  # Saturdays and Sundays have seasons of their own


class Watch(Noun, frozen=True, kw_only=True):
    groups: tuple[Watched, ...] = ()  # things that are watched: each {name, signals, labels, workspace, limits}
    by: tuple[str, ...] = ("machine", "instance", "host", "job")  # labels that name a thing no group chose
    series: int = 5_000  # received series that are watched; the others are kept all the same
    seats: int = 1_000  # series in the full tier, some 12 kB each
    horizon: float = 900.0  # seconds ahead in which a limit that will be reached is told
    holidays: tuple[date, ...] = ()  # local days that are like Sundays, as 2026-12-25
    utc_offset: float = 0.0  # seconds that the days of those who are watched begin before UTC's
    share: float = 0.5  # share of a thing's signals that must be anomalous together
    hold: float = 10.0  # seconds that must last
    # {alpha, order, patience, every, day, weekly} of the detectors, as `leptonai tune` chooses them on labelled series
    detector: Detecting = Detecting()
    state_bytes: int = 32_000_000  # of what was learnt, kept over a restart; past it those that came last are left out
    frozen: float = 3600.0  # seconds an open incident keeps its signals from being learnt from


class Telemetry(Noun, frozen=True, kw_only=True):
    segment_seconds: float = 300.0  # until the log becomes a Parquet segment: some 300 rows a series, as one row group
    log_bytes: int = 64_000_000  # of the log until it becomes a segment sooner: some 3 million samples to sort at once
    sync: float = 5.0  # seconds of telemetry a power cut may cost; a killed process loses none that was written
    hot_samples: int = 8_000_000  # in memory at most, 16 bytes each; the rest is read from segments
    series: int = 100_000  # in memory at most; the longest silent ones are read from segments
    retain: float = 30 * 86400.0  # seconds a segment is kept after it was written, the period of the textbook SLO
    retain_bytes: int = 2_000_000_000  # on disk at most; the oldest goes first
    request_bytes: int = 32 << 20  # of one received request, unpacked: 2,000 samples with 8 labels have some 0.6 MB
    tenant_series: int = 50_000  # that one workspace may send; past it new ones are refused, loudly
    labels: int = 64  # of one received series
    label_bytes: int = 1024  # characters of one received label or its value
    log_records: int = 20_000  # received log records that wait for their consumer; past it the oldest go, counted
    jump: float = 30.0  # seconds by which a sender's clock must move against ours between two requests to be told
    ahead: float = 600.0  # seconds a received sample may lie ahead of our clock: a wrong clock must not age all others


class Target(Noun, frozen=True, kw_only=True):
    name: str  # becomes the label ``job``
    url: str  # of a page in Prometheus text or OpenMetrics
    interval: float = 15.0  # seconds between two readings
    timeout: float = 5.0  # seconds one reading may take
    labels: dict[str, str] = {}  # given to every series of the page
    workspace: str = "default"  # whose limits count, and who may read
    token: str = ""  # sent as a bearer token


class Scrape(Noun, frozen=True, kw_only=True):
    targets: tuple[Target, ...] = ()  # foreign pages: each {name, url, interval, timeout, labels, workspace, token}
    page_bytes: int = 16 << 20  # of one page, unpacked; a larger one is refused whole
    page_series: int = 20_000  # of one page; a page with more is refused whole: half a page would look like a fault


class Prometheus(Noun, frozen=True, kw_only=True):
    url: str = ""  # of a Prometheus that keeps the telemetry instead of our own files; "": our own files
    labels: dict[str, str] = {}  # on every series written and asked for, so that platforms can share one Prometheus
    timeout: float = 10.0  # seconds one question or one write may take
    pending: int = 1_000_000  # samples that wait for a Prometheus that is away; past it the oldest go, counted


class Traces(Noun, frozen=True, kw_only=True):
    spans: int = 50_000  # kept, about 1 kB each; past it the oldest traces go
    log_bytes: int = 64_000_000  # of the files that bring them back after a restart
    received_per_second: float = 5_000.0  # foreign spans of one workspace; more are refused, loudly
    export_url: str = ""  # of an OTLP/HTTP collector, like http://127.0.0.1:4318/v1/traces; "": nothing leaves
    export_headers: dict[str, str] = {}  # sent to it
    export_pending: int = 10_000  # spans that wait for the collector; past it the oldest go, counted


class Receiver(Noun, frozen=True, kw_only=True):
    name: str
    urls: tuple[
        str, ...
    ] = ()  # apprise URLs: json://host/path, mailto://user:password@host?to=ana@example.com, slack://
    resolved: bool = True  # told of what is over, too
    per_minute: float = 10.0  # notifications at most; of one group that waits, only the newest is sent


class AlertRoute(Noun, frozen=True, kw_only=True, rename={"proceed": "continue"}):
    """A node of the routing tree; what is not given is as in the node above."""

    matchers: tuple[str, ...] = ()  # 'service="digits"', 'severity=~"critical|warning"'; all must agree
    receiver: str = ""  # a receiver's name, or "owner"
    group_by: tuple[str, ...] | None = None
    group_wait: float | None = None
    group_interval: float | None = None
    repeat_interval: float | None = None
    proceed: bool = False  # spelled ``continue``: the nodes after this one are tried, too
    routes: tuple[AlertRoute, ...] = ()


class Inhibit(Noun, frozen=True, kw_only=True):
    source: tuple[str, ...]  # matchers
    target: tuple[str, ...]
    equal: tuple[str, ...] = ()  # labels that must agree; both missing is agreement


class EscalationStep(Noun, frozen=True, kw_only=True):
    after: float  # seconds that a critical alert has fired without anybody acknowledging its incident
    receiver: str  # a receiver's name, or "owner"


class Alerts(Noun, frozen=True, kw_only=True):
    receivers: tuple[Receiver, ...] = ()  # each {name, urls, resolved, per_minute}; none: nobody is told anything
    # each service's on-call receiver: the key of the service, "workspace/*", or "*" for all others
    owners: dict[str, str] = {}
    route: AlertRoute = AlertRoute(receiver="owner")  # the root of the routing tree
    inhibit: tuple[Inhibit, ...] = ()  # besides topology, which always counts: each {source, target, equal}
    escalation: tuple[EscalationStep, ...] = ()  # each {after, receiver}, of critical alerts only
    # labels whose alerts are told together: one message per service, however much breaks in it
    group_by: tuple[str, ...] = ("workspace", "service")
    group_wait: float = (
        30.0  # seconds before a new group is told: what breaks together is told together (Alertmanager's)
    )
    group_interval: float = 300.0  # seconds between two messages of a group that changed (Alertmanager's)
    repeat_interval: float = 4 * 3600.0  # seconds until an unchanged group is told again (Alertmanager's)
    hold: float = (
        0.0  # seconds a burn must last before it fires: its two windows are its patience, as in the SRE workbook
    )
    keep_firing: float = (
        30.0  # seconds a condition must be gone before its alert resolves, as incidents have ops.reopen
    )
    flap_count: int = 3  # times an alert fires within flap_window until it flaps ...
    flap_window: float = 600.0  # ... and stays open until the condition ...
    flap_hold: float = 300.0  # ... was gone this long
    host_silent: float = 60.0  # seconds without a batch of an agent until its host is down: sixty of its looks
    send_timeout: float = 15.0  # seconds one try of a notification may take; it runs in a process of its own
    send_first: float = 2.0  # seconds until a failed one is tried again, doubled each time ...
    send_max: float = 60.0  # ... up to this ...
    send_give_up: float = 900.0  # ... until it is this old; the group's repeat_interval tells again


class Alertmanager(Noun, frozen=True, kw_only=True):
    url: str = ""  # of an Alertmanager that gets our alerts, like http://127.0.0.1:9093; "": none
    resend: float = 60.0  # seconds between two posts of an alert that fires; it ends four of them after the last
    timeout: float = 10.0  # seconds one post may take
    labels: dict[str, str] = {}  # on every alert sent, such as the name of this platform


class Elasticsearch(Noun, frozen=True, kw_only=True):
    url: str = ""  # of Elasticsearch or OpenSearch, like http://127.0.0.1:9200; "": nothing is sent
    index: str = "logs-leptonai-default"  # an index or a data stream; documents are only created, never replaced
    headers: dict[str, str] = {}  # sent to it, like Authorization


class Loki(Noun, frozen=True, kw_only=True):
    url: str = ""  # of Loki, like http://127.0.0.1:3100; "": nothing is sent
    labels: dict[str, str] = {}  # on every stream, besides job, service and level
    headers: dict[str, str] = {}  # sent to it, like X-Scope-OrgID


class Logs(Noun, frozen=True, kw_only=True):
    lines_per_second: int = 2_000  # of one source read in full; of more all are counted, an even share is read
    services: int = 200  # whose templates are mined; those that come later share one stream, told once
    segment_seconds: float = 300.0  # until kept lines become a Parquet segment
    segment_lines: int = 50_000  # until they become one sooner
    retain: float = 7 * 86400.0  # seconds a line is kept, so that an incident of last week can be read up
    retain_bytes: int = 1_000_000_000  # of segments at most; the oldest go first
    mask: dict[str, str] = {}  # kind -> regular expression, masked besides what is built in; group "s" is the secret
    pending: int = 20_000  # lines that wait for an output; past it the oldest go, counted
    dead_bytes: int = 16_000_000  # of lines that an output refused, kept masked in dead/; the oldest half goes first
    elasticsearch: Elasticsearch = Elasticsearch()  # {url, index, headers}: lines go there too, masked
    loki: Loki = Loki()  # {url, labels, headers}: lines go there too, masked


class Rephrase(Noun, frozen=True, kw_only=True):
    url: str = ""  # of an OpenAI-compatible API, like http://127.0.0.1:8000/v1; "": no model is ever asked
    model: str = "default"  # the model's name there
    token: str = ""  # sent as a bearer token
    timeout: float = 20.0  # seconds a whole answer may take; past it the plain sentences are used


class Report(Noun, frozen=True, kw_only=True):
    rephrase: Rephrase = Rephrase()  # a model that may say reports' sentences otherwise; it sees masked text only


class Store(Noun, frozen=True, kw_only=True):
    url: str = ""  # of a PostgreSQL database, like postgresql://user@host/name; "": a SQLite file in the home folder
    audit_keep: int = 1_000_000  # events
    feedback_keep: int = 200_000  # items of feedback, some 300 bytes each; indicators look at ten minutes, issues count
    proposal_keep: int = 50_000  # versions of proposals; those that wait for a decision stay in any case
    incident_keep: int = 10_000  # closed incidents, some 30 kB each; acknowledged and reviewed ones stay in any case
    keep: float = 365 * 86400.0  # seconds that feedback and proposals stay at most


class Settings(Noun, frozen=True, kw_only=True):
    api: Api = Api()
    gateway: Gateway = Gateway()
    local: Local = Local()
    kubernetes: Kubernetes = Kubernetes()
    admit: Admit = Admit()
    ops: Ops = Ops()
    store: Store = Store()
    watch: Watch = Watch()
    telemetry: Telemetry = Telemetry()
    scrape: Scrape = Scrape()
    prometheus: Prometheus = Prometheus()
    traces: Traces = Traces()
    report: Report = Report()
    alerts: Alerts = Alerts()
    alertmanager: Alertmanager = Alertmanager()
    logs: Logs = Logs()


def load(path: Path | None) -> Settings:
    """The settings in ``path`` over the defaults; the defaults when there is no such file.

    Raises SpecError naming the file, the setting and what was expected.
    """
    if path is None or not path.exists():
        return Settings()
    try:
        found = decode(path.read_bytes(), Settings)
        check(found)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise SpecError(f"{path}: {e}", hint="see docs/settings.md for every setting") from e
    except OSError as e:
        raise SpecError(f"{path}: {e.strerror or e}", hint="settings.yaml is a file that we may read") from e
    except SpecError as e:
        raise SpecError(f"{path}: {e.message}", hint=e.hint) from e
    return found


MOST = float(1 << 53)  # past it floats skip whole numbers
SHARES = frozenset({"anomaly_share", "min_confidence", "share", "trace_share"})
ABOVE_ZERO = frozenset(
    {
        "feedback_burst", "feedback_rate", "health_interval", "health_timeout", "host_silent", "hung_after", "interval",
        "keep", "label_bytes", "labels", "lease", "lines_per_second", "log_bytes", "log_files", "max_body",
        "ops_deadman", "pace_seconds", "page_bytes", "page_series", "per_minute", "period", "probe_interval",
        "proposal_ttl", "received_per_second", "request_bytes", "resend", "resync", "segment_lines", "segment_seconds",
        "send_first", "send_max", "send_timeout", "stale_periods", "timeout", "verify_timeout",
    }
)  # fmt: skip
LIMITS = {
    "port": (0.0, 65535.0), "utc_offset": (-86400.0, 86400.0), "alpha": (1e-4, 0.5), "order": (1.0, 12.0),
    "patience": (2.0, 100_000.0), "every": (1.0, 10_000.0), "day": (1.0, 366 * 86400.0),
}  # fmt: skip


def check(value: Any, path: str = "") -> None:
    """SpecError for a number below ``path`` with which nothing could work: most are counts, sizes and durations."""
    if isinstance(value, Noun):
        for name in value.__struct_fields__:
            check(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, tuple):
        for index, part in enumerate(value):
            check(part, f"{path}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        name = path.rpartition(".")[2]
        low, high = LIMITS.get(name, (0.0, 1.0 if name in SHARES else MOST))
        above = name in ABOVE_ZERO
        if not low <= value <= high or (above and value == 0):
            said = f"{low:g} to {high:g}" if high < MOST else "above 0" if above else "0 or more"
            if value > high == MOST:
                said = "2^53 at most"
            raise SpecError(f"{path} is {value:g}; it must be {said}", hint="see docs/settings.md for every setting")


def dump(settings: Settings) -> dict[str, Any]:
    return msgspec.to_builtins(settings)  # type: ignore[no-any-return]
