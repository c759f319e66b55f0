"""The seams, on one page. Each has a fake that ships, a conformance suite in ``leptonai.testing``, and two users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from leptonai.types import (
    Event,
    Fault,
    Incident,
    Key,
    LogLine,
    LogRecord,
    Proposal,
    Replica,
    Revision,
    Series,
    Service,
    Signal,
    Step,
    Variant,
)

Floats = NDArray[np.float64]
Slots = NDArray[np.int64]
Record = Callable[[str, str, dict[str, Any]], None]  # (kind, subject, detail): one event for the audit log


def unheard(kind: str, subject: str, detail: dict[str, Any]) -> None:
    """The ``Record`` of whoever keeps no audit log."""


class Platform(Protocol):
    """Where replicas run. Level, not edge: ``apply`` compares and steps; calling it again is always safe."""

    name: str

    async def start(self) -> None:
        """Adopt what already runs. No routing is changed before one full observation has succeeded."""

    async def close(self) -> None:
        """Let go: replicas and the gateway keep running."""

    async def apply(self, service: Service) -> list[Step]:
        """Take the steps that are safe now towards ``service``; [] when the world already matches."""

    async def remove(self, key: Key) -> None:
        """Drain and stop everything of ``key``; returns when nothing of it runs. Unknown keys are no error."""

    def observe(self) -> list[Replica]:
        """All replicas, from a watch cache; cheap every second. Ordered by (service, variant, id)."""

    def held(self) -> dict[tuple[Key, str], int]:
        """(service, variant) -> requests that wait at the edge for a ready replica; only those for which some do."""

    async def asked(self) -> dict[tuple[Key, str], tuple[int, int]] | None:
        """(service, variant) -> requests so far and under way, as the gateway counts them; None: it does not answer.

        Variants never asked for may be left out; counts begin anew with the gateway.
        """

    def room(self, variant: Variant) -> int | None:
        """How many more replicas of ``variant`` fit; None: not known to be limited."""

    def scaled(self, service: Service) -> dict[str, int]:
        """variant -> replicas, of those that ``scale.owner`` sets here in our place; {} where we do."""

    def logs(self, replica: str, since: float = 0.0, limit: int = 1000) -> list[LogLine]:
        """The newest ``limit`` lines since then, oldest first. NotFound for a replica never seen."""

    def url(self, key: Key) -> str:
        """The base URL under which clients reach the service: ``<url>/predict``, ``<url>/v2/...``."""

    def describe(self) -> dict[str, Any]:
        """What runs beside the replicas: ``{"gateway": {"url", "admin", "pid", "healthy"}, "isolation": ...}``."""

    async def inject(self, fault: Fault) -> str:
        """Inject a real fault with a heal timer that outlives us; returns its id. PlatformError if unsupported."""

    async def heal(self, fault_id: str) -> None: ...


class TelemetryStore(Protocol):
    def write(self, batch: Sequence[Signal]) -> None: ...

    def read(
        self, name: str, start: float, end: float, labels: dict[str, str] | None = None, step: float = 0.0
    ) -> list[Series]:
        """Every series of ``name`` whose labels include ``labels``, over ``[start, end)``.

        ``step`` > 0 down-samples to the mean per step; empty steps are nan.
        """

    def names(self) -> list[str]: ...


class LogSink(Protocol):
    """Where received log records go: OTLP logs and the lines of agents. One producer loop, one consumer."""

    def put(self, batch: Sequence[LogRecord]) -> int:
        """Hand over; never waits. Returns how many of the oldest had to be dropped for them (0: all is kept)."""

    def take(self, limit: int) -> list[LogRecord]:
        """The oldest ``limit`` records, oldest first; they are the caller's from now on."""


class Scored(NamedTuple):
    """Per slot: -log10 tail probability (nan = cannot tell yet), what was expected, and on what scale."""

    score: Floats
    expected: Floats
    scale: Floats


class Detector(Protocol):
    """Columnar over slots: one instance scores many series, one step at a time, with no Python loop over series."""

    name: str

    def open(self, slots: int) -> None: ...

    def grow(self, slots: int) -> None: ...

    def drop(self, slot: Slots) -> None:
        """Forget what was learnt in these slots."""

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        """Score ``x[S]`` (nan = missing) and learn from it where ``learn``. Depends on earlier steps only."""

    def dump(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


class Remedy(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def risk(self) -> str:
        """ "low", "medium" or "high"."""

    def propose(
        self,
        incident: Incident,
        service: Service,
        revisions: Sequence[Revision],
        history: Sequence[Event],
        now: float,
    ) -> Proposal | None:
        """The wish that would repair the incident's first cause, or None when this remedy does not apply. Pure.

        ``revisions`` of the service, ascending; ``history``: its newest events, ascending. ``id`` of the answer is
        empty: the door gives it.
        """


class Predictor(Protocol):
    """A loaded model inside a replica. Called from one compute thread only."""

    platform: str  # Open Inference Protocol platform name, "onnx_onnxv1", "sklearn_skops", ...
    inputs: list[dict[str, Any]]  # {"name", "datatype", "shape"}; the first dimension is the batch (-1)
    outputs: list[dict[str, Any]]
    batchable: bool

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Named arrays in, named arrays out, the first dimension kept. ModelError when the model fails."""


class Loader(Protocol):
    name: str

    def match(self, files: list[str]) -> str | None:
        """The file this loader would load from such a folder, or None."""

    def load(self, path: str, variant: Variant) -> Predictor: ...
