"""Telemetry that others send: limits per workspace, what poses as ours renamed, everything that is dropped counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.remote_write import REFUSED, STALE, Labels, decode, unpack
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Telemetry
from leptonai.types import DEFAULT_WORKSPACE

log = logging.getLogger(__name__)
OURS = frozenset({"service", "replica", "digest", "workspace"})  # labels that only the platform gives
ACTIVE = 3600.0  # seconds after which the series of a workspace are counted anew: those that ended count no more
RETRY_HINT = "it must not be sent again as it is; telemetry.* in settings.yaml are the limits"


class _Tenant:
    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}  # label bytes -> id
        self.ids: set[int] = set()
        self.generation = -1
        self.began = float("-inf")


class Receiver:
    """Takes what others send into the store. ``counts``: ``(workspace, what)`` -> how many.

    ``taken``, ``stale`` (end marks of Prometheus), ``future`` and ``old`` samples, ``refused`` samples of series past
    a limit, ``series_limit`` and ``label_limit`` refusals of a series, ``histograms``.
    """

    def __init__(self, store: Embedded, settings: Telemetry, clock: Callable[[], float]) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._store, self._settings, self._clock = store, settings, clock
        self._tenants: dict[str, _Tenant] = {}

    def remote_write(self, body: bytes, workspace: str = DEFAULT_WORKSPACE) -> None:
        """Every sample within the limits can be read when this returns, in seconds and under the name ``__name__``.

        A label that only the platform gives is kept as ``exported_<label>``, so nothing sent poses as ours; outside
        the default workspace a label ``workspace`` is added. SpecError: the body is broken (nothing is taken), or
        something was refused by a limit (all else is taken); its message says what and how much.
        """
        tenant = self._tenants.setdefault(workspace, _Tenant())
        now = self._clock()
        full = len(tenant.known) > 4 * self._settings.tenant_series  # one series may come in many orders of its labels
        if full or tenant.generation != self._store.generation or now - tenant.began > ACTIVE:
            tenant.known, tenant.ids, tenant.generation, tenant.began = {}, set(), self._store.generation, now
        before = self.counts.copy()
        data = unpack(body, self._settings.request_bytes)
        got = decode(data, tenant.known, lambda labels: self._intern(labels, workspace, tenant))
        stale = got.value.view(np.uint64) == STALE
        refused = got.ids == REFUSED
        future = got.at > now + self._settings.ahead
        old = got.at < now - self._settings.retain
        taken = ~(stale | refused | future | old)
        self._store.append(got.ids[taken], got.at[taken], got.value[taken])
        for what, which in (("taken", taken), ("stale", stale), ("refused", refused & ~stale)):
            self.counts[workspace, what] += int(which.sum())
        self.counts[workspace, "future"] += int((future & ~refused & ~stale).sum())
        self.counts[workspace, "old"] += int((old & ~refused & ~stale).sum())
        self.counts[workspace, "histograms"] += got.histograms
        self._tell(workspace, before)

    def _intern(self, labels: Labels, workspace: str, tenant: _Tenant) -> int:
        name = next((v for k, v in labels if k == "__name__"), "")
        texts = [(k, v) for k, v in labels if k != "__name__"]
        limit = self._settings.label_bytes
        if not name or len(texts) > self._settings.labels or any(len(t) > limit for kv in labels for t in kv):
            self.counts[workspace, "label_limit"] += 1
            return REFUSED
        if len(tenant.ids) >= self._settings.tenant_series:
            self.counts[workspace, "series_limit"] += 1
            return REFUSED
        own = {f"exported_{k}" if k in OURS else k: v for k, v in texts}
        if workspace != DEFAULT_WORKSPACE:
            own["workspace"] = workspace
        id = self._store.series(name, own)
        tenant.ids.add(id)
        return id

    def _tell(self, workspace: str, before: Counter[tuple[str, str]]) -> None:
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
        if said:
            raise SpecError(
                f"workspace {workspace!r}: dropped {'; '.join(said)}; all else was taken",
                hint=RETRY_HINT,
                code="dropped",
            )
