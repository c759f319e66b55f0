"""What the burn rules have counted, kept over a restart of ops: windows reach back three days, a process does not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from leptonai.errors import LeptonError
from leptonai.ops.lookout import Lookout
from leptonai.ops.slo import Spent
from leptonai.platforms.local.rundir import write_atomically
from leptonai.protocols import TelemetryStore
from leptonai.types import Key

log = logging.getLogger(__name__)
FILE = "promises.msgpack"
EVERY = 60.0  # seconds between two writings: what a kill costs is counted anew from telemetry
PACE = 3.0  # a sample stands for at most this many collections: a longer gap was not seen
Counts = tuple[float, float, dict[str, float]]  # at, requests, those that broke each rule


class _Kept(msgspec.Struct):
    at: float
    services: dict[Key, dict[str, Spent]]


class Promises:
    """``restore`` each new lookout, ``keep`` now and then. A file that cannot be used is told once and left."""

    def __init__(self, path: Path, store: TelemetryStore, period: float) -> None:
        self._path, self._store, self._period = path, store, period
        self._known = _read(path)
        self._gap: dict[Key, list[Counts]] | None = None  # per service, what came after the file was written
        self.kept_at = float("-inf")

    def restore(self, lookout: Lookout, now: float) -> None:
        """Its windows hold what an earlier process counted, and what telemetry says of the time since."""
        spent = self._known.services.pop(lookout.service.key, None)
        if spent is None:
            return
        lookout.resume(spent, [c for c in self._since(now).get(lookout.service.key, []) if c[0] < now])

    def snapshot(self, lookouts: Mapping[Key, Lookout], now: float) -> bytes:
        """What ``write`` writes; before any service was seen, what an earlier process wrote."""
        self.kept_at = now
        if not lookouts:
            return msgspec.msgpack.encode(self._known)
        return msgspec.msgpack.encode(_Kept(now, {key: lookout.spent() for key, lookout in lookouts.items()}))

    def write(self, snapshot: bytes) -> None:
        """OSError: the disk refuses."""
        write_atomically(self._path, snapshot)

    def _since(self, now: float) -> dict[Key, list[Counts]]:
        if self._gap is None:
            try:
                self._gap = self._read_gap(self._known.at, now)
            except LeptonError as e:
                log.warning("burn windows lack what came after %.0f: %s", self._known.at, e.message)
                self._gap = {}
        return self._gap

    def _read_gap(self, start: float, now: float) -> dict[Key, list[Counts]]:
        """Counts from the rates and ratios that were written; a sample stands for the time since the one before."""
        if not start < now:
            return {}
        ratios = {
            rule: {
                (s.labels.get("service", ""), at): value
                for s in self._store.read(name, start, now)
                for at, value in zip(s.at, s.value, strict=True)
            }
            for rule, name in (("errors", "error_ratio"), ("latency", "slow_ratio"))
        }
        out: dict[Key, list[Counts]] = {}
        for series in self._store.read("request_rate_per_second", start, now):
            if series.labels.keys() != {"service"}:
                continue
            key, before = series.labels["service"], start
            for at, rate in zip(series.at, series.value, strict=True):
                if at <= start or rate != rate:
                    continue
                requests = rate * min(at - before, PACE * self._period)
                bad = {rule: found.get((key, at), 0.0) * requests for rule, found in ratios.items()}
                out.setdefault(key, []).append((at, requests, bad))
                before = at
        return out


def _read(path: Path) -> _Kept:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return _Kept(0.0, {})
    except (OSError, msgspec.MsgspecError) as e:
        log.warning("%s cannot be used, burns are counted anew: %s", path, e)
        return _Kept(0.0, {})
