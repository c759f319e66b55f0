"""The world as it is observed, the steps that change it, and what replicas and edge are told."""

from __future__ import annotations

from typing import Literal

from leptonai.types.keys import Key, Noun, State
from leptonai.types.spec import Fallback, Hold, Tuning, Variant


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


class Applied(Noun, frozen=True, kw_only=True, tag="applied"):
    """On a cluster: ``object`` ("Deployment/digits-main-9b6d8d2e") was made, changed in ``fields``, or deleted."""

    object: str
    verb: Literal["create", "change", "delete"]
    fields: tuple[str, ...] = ()


Step = Start | Retire | Forget | Tune | Applied


class Launch(Noun, frozen=True, kw_only=True):
    """What a replica process is told: ``launch.json`` in its run directory, read by ``python -m leptonai.runtime``."""

    replica: str  # "": what LEPTONAI_REPLICA says, as in a pod, whose name is known only once it exists
    service: Key
    variant: Variant
    revision: int
    artifact: str  # a read-only folder with the model's files
    socket: str  # the Unix socket to listen on, or host:port; over TCP a replica takes no orders
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
