"""What is watched although we do not serve it: machines, sensors, hosts, whatever sends its signals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.watcher import Concern, golden
from leptonai.protocols import Floats
from leptonai.settings import Watch, Watched
from leptonai.types import DEFAULT_WORKSPACE, Signal

log = logging.getLogger(__name__)
LATE = 60.0  # seconds after which a sample is history and no news
KEPT = 200_000  # samples that wait for the next round at most
FULL = {  # of this machine: what is full at 1; programs come and go, and what they fill with them
    "host_memory_used_ratio": 1.0,
    "host_disk_used_ratio": 1.0,
    "host_disk_inodes_used_ratio": 1.0,
    "host_open_files_ratio": 1.0,
}
ENDED = "_ended_count"  # a signal so named says by 1 that its thing has ended, as a job does: silence is right then
TROUBLED = "_trouble_count"  # a signal so named says by 1 and more what its thing itself judged: it is in trouble
HOST = f"{DEFAULT_WORKSPACE}/external/host"


class Outside:
    """The newest value of each received series between two rounds, as signals for the watcher.

    ``settings.groups`` name things and choose their series; what none of them chooses is named by the first of the
    labels ``settings.by`` that it has, and stays without a name otherwise: it is scored and never told of. Of at most
    ``settings.series`` series; those past that are counted in ``refused`` and told once in the log.
    """

    def __init__(self, settings: Watch) -> None:
        self.settings = settings
        self.refused = 0
        self._concern: dict[tuple[str, tuple[tuple[str, str], ...]], Concern | None] = {}
        self._series: dict[int, tuple[str, dict[str, str]]] = {}
        self._known: set[int] = set()
        self._newest: dict[int, float] = {}
        self._waiting: list[tuple[NDArray[np.int32], Floats, Floats]] = []
        self._count = 0
        self._ended: set[str] = set()

    def clear(self) -> None:
        """The numbers of series mean nothing any more."""
        self._series, self._newest, self._known = {}, {}, set()
        self._waiting, self._count = [], 0

    def named(self, id: int, workspace: str, name: str, labels: Mapping[str, str]) -> None:
        """A series was seen for the first time under this number."""
        if id in self._known:
            return
        self._known.add(id)
        if len(self._series) >= self.settings.series:
            if not self.refused:
                limit = self.settings.series
                log.error("more than %d received series: the others are kept and not watched (watch.series)", limit)
            self.refused += 1
            return
        self._series[id] = (name, dict(labels))
        self._concern[name, tuple(sorted(labels.items()))] = self._choose(workspace, name, labels)

    def saw(self, ids: NDArray[np.int32], at: Floats, value: Floats) -> None:
        self._waiting.append((ids, at, value))
        self._count += len(ids)
        while self._count > KEPT and len(self._waiting) > 1:
            self._count -= len(self._waiting.pop(0)[0])

    def take(self, now: float) -> list[Signal]:
        """The newest value of each series that came since the last call and is newer than what was taken before."""
        if not self._waiting:
            return []
        ids, at, value = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        self._waiting, self._count = [], 0
        fresh = at >= now - LATE
        ids, at, value = ids[fresh], at[fresh], value[fresh]
        order = np.lexsort((at, ids))
        ids, at, value = ids[order], at[order], value[order]
        last = np.append(ids[1:] != ids[:-1], True) if len(ids) else np.zeros(0, dtype=np.bool_)
        out = []
        for id, moment, x in zip(ids[last].tolist(), at[last].tolist(), value[last].tolist(), strict=True):
            if id in self._series and moment > self._newest.get(id, -np.inf):
                self._newest[id] = moment
                name, labels = self._series[id]
                out.append(signal := Signal(name=name, labels=labels, at=now, value=x))
                if name.endswith(ENDED) and x >= 1 and (concern := self.concern(signal)) is not None:
                    self._ended.add(concern.about)
        return out

    def ended(self) -> set[str]:
        """Whom the signals taken last said to have ended; told once."""
        told, self._ended = self._ended, set()
        return told

    def concern(self, signal: Signal) -> Concern | None:
        """Whom the series concerns: a service, this machine, or what ``named`` chose; None: nobody."""
        known = (signal.name, tuple(sorted(signal.labels.items())))
        if known in self._concern:
            return self._concern[known]
        if signal.name in FULL and "host" not in signal.labels:
            return Concern(HOST, upper=FULL[signal.name], fills=True)
        return golden(signal)

    def _choose(self, workspace: str, name: str, labels: Mapping[str, str]) -> Concern | None:
        for group in self.settings.groups:
            if group.workspace == workspace and chosen(group, name, labels):
                lower, upper = group.limits.get(name, (None, None))
                return Concern(
                    f"{workspace}/external/{_plain(group.name)}",
                    float("-inf") if lower is None else lower,
                    float("inf") if upper is None else upper,
                )
        by = next((labels[label] for label in self.settings.by if labels.get(label)), None)
        if by is None:
            return None
        upper = 0.5 if name.endswith(TROUBLED) else float("inf")
        return Concern(f"{workspace}/external/{_plain(by)}", upper=upper)


def chosen(group: Watched, name: str, labels: Mapping[str, str]) -> bool:
    """Whether the group's patterns fit the name and all of its labels agree."""
    return any(fnmatchcase(name, pattern) for pattern in group.signals) and all(
        labels.get(label) == value for label, value in group.labels.items()
    )


def _plain(name: str) -> str:
    """A subject has three parts: the name brings no slash of its own."""
    return name.replace("/", "-")
