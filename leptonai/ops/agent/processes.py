"""Processes chosen by name: how many run, and what they use together."""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from leptonai.types import Signal

LOOK_EVERY = 5.0  # seconds between two looks through all processes; those found are read every time


class Processes:
    """``names``: of programs, as ps(1) shows them, or the last part of the first word of their command line."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._found: dict[str, dict[int, psutil.Process]] = {n: {} for n in names}
        self._cpu: dict[tuple[int, float], float] = {}
        self._looked = self._last = float("-inf")

    def read(self, now: float) -> list[Signal]:
        """Of each name: ``process_running_count`` (0 when none runs), ``process_rss_bytes``, ``process_threads_count``,
        and from the second reading on ``process_cpu_ratio``, in cores."""
        if not self._names:
            return []
        if now - self._looked >= LOOK_EVERY or now < self._looked:
            self._looked = now
            self._look()
        elapsed, self._last = now - self._last, now
        out: list[Signal] = []
        times: dict[tuple[int, float], float] = {}
        for name, known in self._found.items():
            rss = threads = used = 0.0
            for pid, process in list(known.items()):
                try:
                    with process.oneshot():
                        times_now = process.cpu_times()
                        key = (pid, process.create_time())
                        rss += process.memory_info().rss
                        threads += process.num_threads()
                except psutil.Error:
                    del known[pid]
                    continue
                times[key] = times_now.user + times_now.system
                used += max(0.0, times[key] - self._cpu.get(key, times[key]))
            own = {"process": name}
            values = {
                "process_running_count": float(len(known)),
                "process_rss_bytes": rss,
                "process_threads_count": threads,
            }
            if 0 < elapsed < float("inf"):
                values["process_cpu_ratio"] = used / elapsed
            out += [Signal(name=n, labels=own, at=now, value=v) for n, v in values.items()]
        self._cpu = times
        return out

    def _look(self) -> None:
        for process in psutil.process_iter(["name", "cmdline"]):
            first = (process.info["cmdline"] or [""])[0].rpartition("/")[2]
            for name in self._names:
                if name in (process.info["name"], first):
                    self._found[name].setdefault(process.pid, process)
