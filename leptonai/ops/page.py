"""Our own numbers as a page of Prometheus text. Source: the text exposition format 0.0.4."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import psutil

TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """One metric: ``kind`` counter or gauge, and its samples by labels."""

    name: str
    kind: str
    help: str
    samples: Iterable[tuple[Mapping[str, str], float]]


def text(families: Iterable[Family]) -> str:
    """The page; a family without samples is left out."""
    lines: list[str] = []
    for family in families:
        samples = list(family.samples)
        if not samples:
            continue
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in samples:
            inside = ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())
            lines.append(f"{family.name}{{{inside}}} {value!r}" if inside else f"{family.name} {value!r}")
    return "\n".join(lines) + "\n" if lines else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def process(what: str) -> list[Family]:
    """What this process uses, told apart by the label ``process``."""
    own, labels = psutil.Process(os.getpid()), {"process": what}
    with own.oneshot():
        times, memory = own.cpu_times(), own.memory_info()
        return [
            Family("leptonai_process_cpu_seconds_total", "counter", "Processor time used.",
                   [(labels, times.user + times.system)]),
            Family("leptonai_process_resident_memory_bytes", "gauge", "Memory held.", [(labels, float(memory.rss))]),
            Family("leptonai_process_open_fds", "gauge", "Open files.", [(labels, float(own.num_fds()))]),
            Family("leptonai_process_start_time_seconds", "gauge", "Start in unix time.",
                   [(labels, own.create_time())]),
        ]  # fmt: skip
