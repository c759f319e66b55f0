"""Cleaning one series: each policy stated, each use of it counted, nothing filled in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from leptonai.protocols import Floats

GAP = 2.5  # steps without a sample: one late sample is no gap, two missing ones are


class Cleaned(NamedTuple):
    """Times ascending without repeats. ``counts`` by policy; a policy that was not used is left out."""

    at: Floats
    value: Floats
    counts: dict[str, int]


def clean(at: Floats, value: Floats, *, counter: bool = False, ahead_of: float = np.inf) -> Cleaned:
    """The samples in order of time. ``at`` and ``value`` are as they arrived, of one length.

    bad_time      a time that is not finite, or later than ``ahead_of``: dropped (a wrong clock must not age the rest)
    nan, infinite a value that is not finite: dropped
    out_of_order  a sample older than one that arrived before it: put in its place
    duplicate     a second sample of one moment: the one that arrived last is kept
    gap           more than 2.5 median steps without a sample: counted, and left empty
    reset         ``counter`` only: a value below the one before; the counter began anew at 0, as Prometheus takes it
                  (promql/functions.go, extrapolatedRate), so that ``value`` is the rise since the first sample
    """
    counts: dict[str, int] = {}

    def keep(kept: np.ndarray[tuple[int], np.dtype[np.bool_]], what: str) -> None:
        nonlocal at, value
        dropped = len(at) - int(kept.sum())
        if dropped:
            counts[what] = dropped
            at, value = at[kept], value[kept]

    at, value = np.asarray(at, np.float64), np.asarray(value, np.float64)
    keep(np.isfinite(at) & (at <= ahead_of), "bad_time")
    keep(~np.isnan(value), "nan")
    keep(~np.isinf(value), "infinite")
    if len(at) > 1:
        late = int((at < np.maximum.accumulate(at)).sum())
        if late:
            counts["out_of_order"] = late
            order = np.argsort(at, kind="stable")
            at, value = at[order], value[order]
        keep(np.append(at[1:] != at[:-1], True), "duplicate")
    if len(at) > 2:
        steps = np.diff(at)
        gaps = int((steps > GAP * np.median(steps)).sum())
        if gaps:
            counts["gap"] = gaps
    if counter and len(at):
        rise = np.diff(value)
        resets = rise < 0
        if resets.any():
            counts["reset"] = int(resets.sum())
        value = np.concatenate(([0.0], np.cumsum(np.where(resets, value[1:], rise))))
    return Cleaned(at, value, counts)
