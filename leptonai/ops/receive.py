"""Telemetry that others send: limits per workspace, what poses as ours renamed, everything that is odd counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.remote_write import REFUSED, STALE, Columns, Labels, decode, unpack
from leptonai.ops.tidy import Tidy
from leptonai.ops.units import base_unit, is_counter
from leptonai.platforms.embedded.log import Ids
from leptonai.protocols import Floats
from leptonai.settings import Telemetry
from leptonai.types import DEFAULT_WORKSPACE, Signal

log = logging.getLogger(__name__)
OURS = frozenset({"service", "replica", "digest", "workspace"})  # labels that only the platform gives
ACTIVE = 3600.0  # seconds after which the series of a workspace are counted anew: those that ended count no more
RETRY_HINT = "it must not be sent again as it is; telemetry.* in settings.yaml are the limits"
Pairs = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    """One sample as it came. ``labels`` in any order, without the name; ``at`` in unix seconds."""

    name: str
    labels: Pairs
    at: float
    value: float


class Dropped(NamedTuple):
    """What became of a request: how many samples were not taken, and why, in words ("": all were taken)."""

    samples: int
    why: str


class Keeper(Protocol):
    """A store that takes columns, as ``platforms.embedded`` and ``platforms.prometheus`` do."""

    generation: int

    def series(self, name: str, labels: dict[str, str]) -> int: ...

    def append(self, ids: Ids, at: Floats, value: Floats) -> None: ...

    def write(self, batch: Sequence[Signal]) -> None: ...


class Tap(Protocol):
    """Who wants to hear of every sample that is taken, as it is taken."""

    def clear(self) -> None: ...

    def named(self, id: int, workspace: str, name: str, labels: dict[str, str]) -> None: ...

    def saw(self, ids: Ids, at: Floats, value: Floats) -> None: ...


class _Tenant:
    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}  # label bytes -> id
        self.named: dict[tuple[str, Pairs], int] = {}
        self.otlp: Any = None  # what ``read`` of ``columns`` has made of it
        self.held: set[int] = set()  # of each series that counts against the limit, a hash of its name and labels
        self.generation = -1
        self.began = float("-inf")
        self.lag: dict[str, float] = {}  # source -> our clock less that of its newest sample, last time


class Receiver:
    """Takes what others send into the store. ``counts``: ``(workspace, what)`` -> how many.

    Samples: ``taken``, ``stale`` (end marks of Prometheus), ``future`` and ``old`` (refused), ``refused`` (of series
    past a limit); of those taken also ``nan``, ``infinite``, ``duplicate``, ``out_of_order``, ``gap``, ``reset`` and
    ``unit`` (brought to its base unit). Series: ``series_limit``, ``label_limit``. Requests: ``clock_jump``,
    ``malformed``. ``histograms``: native ones, which are not read.
    """

    def __init__(self, store: Keeper, settings: Telemetry, clock: Callable[[], float]) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.names: dict[str, set[str]] = {}  # workspace -> the names it sends
        self.tap: Tap | None = None  # of imports it hears nothing
        self._store, self._settings, self._clock = store, settings, clock
        self._tenants: dict[str, _Tenant] = {}
        self._tidy = Tidy()
        self._factor: dict[int, float] = {}  # of series that are brought to their base unit
        self._generation = store.generation

    def remote_write(self, body: bytes, workspace: str = DEFAULT_WORKSPACE, any_age: bool = False) -> None:
        """Every sample within the limits can be read when this returns, in seconds and under the name ``__name__``.

        A label that only the platform gives is kept as ``exported_<label>``, so nothing sent poses as ours; outside
        the default workspace a label ``workspace`` is added. SpecError: the body is broken (nothing is taken), or
        something was refused by a limit (all else is taken); its message says what and how much. ``any_age``:
        none is too old.
        """
        tenant = self._tenant(workspace)
        try:
            data = unpack(body, self._settings.request_bytes)
            got = decode(data, tenant.known, lambda labels: self._intern(labels, workspace, tenant))
        except SpecError:
            self.malformed(workspace, "remote-write")
            raise
        dropped = self._keep(got, workspace, tenant, "import" if any_age else "remote-write", any_age)
        if dropped.why:
            raise SpecError(
                f"workspace {workspace!r}: dropped {dropped.why}; all else was taken", hint=RETRY_HINT, code="dropped"
            )

    def take(self, points: Iterable[Point], workspace: str = DEFAULT_WORKSPACE, source: str = "") -> Dropped:
        """As ``remote_write`` for samples of any other origin; ``source`` names it where clocks are compared."""
        tenant = self._tenant(workspace)
        named = tenant.named
        ids: list[int] = []
        at: list[float] = []
        value: list[float] = []
        for point in points:
            key = (point[0], point[1])
            id = named.get(key)
            if id is None:
                id = self._intern([("__name__", point[0]), *point[1]], workspace, tenant)
                if id != REFUSED:
                    named[key] = id
            ids.append(id)
            at.append(point[2])
            value.append(point[3])
        columns = Columns(np.array(ids, np.int32), np.array(at, np.float64), np.array(value, np.float64), 0)
        return self._keep(columns, workspace, tenant, source)

    def columns(
        self, read: Callable[[Any, Callable[[Labels], int]], tuple[Any, Columns]], workspace: str, source: str
    ) -> Dropped:
        """As ``take`` for what reads columns itself. ``read`` is given what it returned first the last time, None when
        ids are to be asked for anew, and what gives the id of a series."""
        tenant = self._tenant(workspace)
        tenant.otlp, got = read(tenant.otlp, lambda labels: self._intern(labels, workspace, tenant))
        return self._keep(got, workspace, tenant, source)

    def count(self, workspace: str, what: str, by: int = 1) -> None:
        self.counts[workspace, what] += by

    def malformed(self, workspace: str, what: str) -> None:
        """A request could not be read at all: counted, and told in the log the first time."""
        if not self.counts[workspace, "malformed"]:
            log.error("workspace %s: a %s request could not be read; told once, counted from now on", workspace, what)
        self.counts[workspace, "malformed"] += 1

    def _tenant(self, workspace: str) -> _Tenant:
        if self._generation != self._store.generation:
            self._generation = self._store.generation
            self._tidy.clear()
            if self.tap is not None:
                self.tap.clear()
            self._factor.clear()
        tenant = self._tenants.setdefault(workspace, _Tenant())
        many = (
            len(tenant.known) + len(tenant.named) + (tenant.otlp.size if tenant.otlp else 0)
        )  # one series may come in many orders of its labels
        now = self._clock()
        if now - tenant.began > ACTIVE:
            tenant.held, tenant.began, tenant.generation = set(), now, -1
        if many > 4 * self._settings.tenant_series or tenant.generation != self._store.generation:
            # only what was looked up is forgotten: were the series, too, a flood of labels would wash its limit away
            tenant.known, tenant.named, tenant.otlp = {}, {}, None
            tenant.generation = self._store.generation
        return tenant

    def _keep(self, got: Columns, workspace: str, tenant: _Tenant, source: str, any_age: bool = False) -> Dropped:
        now = self._clock()
        before = self.counts.copy()
        finite = np.isfinite(got.at)
        stale = got.value.view(np.uint64) == STALE
        refused = (got.ids == REFUSED) & ~stale
        future = ~(got.at <= now + self._settings.ahead) & ~refused & ~stale
        old = (got.at < (float("-inf") if any_age else now - self._settings.retain)) & finite & ~refused & ~stale
        taken = ~(stale | refused | future | old)
        ids, at, value = got.ids[taken], got.at[taken], got.value[taken]
        if self._factor:
            factor = np.fromiter((self._factor.get(i, 1.0) for i in ids.tolist()), np.float64, len(ids))
            self.counts[workspace, "unit"] += int((factor != 1.0).sum())
            value = value * factor
        for what, n in self._tidy.look(ids, at, value).items():
            self.counts[workspace, what] += n
        self._store.append(ids, at, value)
        if self.tap is not None and not any_age:
            self.tap.saw(ids, at, value)
        for what, which in (("taken", taken), ("stale", stale), ("refused", refused), ("future", future), ("old", old)):
            self.counts[workspace, what] += int(which.sum())
        self.counts[workspace, "histograms"] += got.histograms
        if len(at):
            self._watch_clock(workspace, tenant, source, now - float(at.max()))
        return Dropped(int((refused | future | old).sum()), self._tell(workspace, before))

    def _watch_clock(self, workspace: str, tenant: _Tenant, source: str, lag: float) -> None:
        """A sender whose clock ran ahead of ours all at once: told, its samples taken as they are within the limits.

        One that falls behind looks like one that replays what it kept, and is seen as ``out_of_order``.
        """
        before = tenant.lag.get(source)
        tenant.lag[source] = lag
        if before is not None and before - lag > self._settings.jump and lag < -self._settings.jump:
            if not self.counts[workspace, "clock_jump"]:
                log.error("workspace %s: the clock of %r jumped by %.0f s; told once", workspace, source, before - lag)
            self.counts[workspace, "clock_jump"] += 1

    def _intern(self, labels: Labels, workspace: str, tenant: _Tenant) -> int:
        name = next((v for k, v in labels if k == "__name__"), "")
        texts = [(k, v) for k, v in labels if k != "__name__"]
        limit = self._settings.label_bytes
        if not name or len(texts) > self._settings.labels or any(len(t) > limit for kv in labels for t in kv):
            self.counts[workspace, "label_limit"] += 1
            return REFUSED
        own = {f"exported_{k}" if k in OURS else k: v for k, v in texts}
        if workspace != DEFAULT_WORKSPACE:
            own["workspace"] = workspace
        base, factor = base_unit(name)
        series = hash((base, frozenset(own.items())))
        if series not in tenant.held and len(tenant.held) >= self._settings.tenant_series:
            self.counts[workspace, "series_limit"] += 1
            return REFUSED
        tenant.held.add(series)
        id = self._store.series(base, own)
        self._tidy.opened(id, is_counter(base))
        if factor != 1.0:
            self._factor[id] = factor
        if self.tap is not None:
            self.tap.named(id, workspace, base, own)
        self.names.setdefault(workspace, set()).add(base)
        return id

    def _tell(self, workspace: str, before: Counter[tuple[str, str]]) -> str:
        s = self._settings
        said = []
        for what, text in (
            (
                "refused",
                f"samples of series past a limit ({s.tenant_series} series a workspace, {s.labels} labels of "
                f"{s.label_bytes} characters, each with a __name__)",
            ),
            ("future", f"samples more than {s.ahead:g} s ahead of our clock"),
            ("old", f"samples older than {s.retain:g} s"),
            ("histograms", "native histograms, which are not read"),
        ):
            n = self.counts[workspace, what] - before[workspace, what]
            if n:
                said.append(f"{n} {text}")
                if not before[workspace, what]:
                    log.error("workspace %s: dropped %d %s; told once, counted from now on", workspace, n, text)
        return "; ".join(said)
