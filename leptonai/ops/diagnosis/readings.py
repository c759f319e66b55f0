"""Features made of signals, as rule files declare them: a series since the onset, against the minute before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from statistics import fmean, median

from leptonai.ops.diagnosis.rules import SignalFeature
from leptonai.ops.scene import Reading
from leptonai.protocols import TelemetryStore
from leptonai.types import Key, Series

OF_BEFORE, OF_SIBLINGS = ("rise", "ratio"), ("excess", "times", "others")  # what is compared with what
Stretch = tuple[float, float]
Points = list[tuple[float, float]]  # (at, value)
Who = tuple[str, tuple[tuple[str, str], ...]]  # a replica ("": none), and all labels


def read_signal(
    name: str, made: SignalFeature, store: TelemetryStore, key: Key, before: Stretch, since: Stretch
) -> Iterator[Reading]:
    """One reading for the service, or one for each of its replicas; none where nothing was seen since the onset, nor of
    ``rise`` and ``ratio`` where nothing was seen before it.

    A series without the label ``service`` is of the machine, and counts for every service.
    """
    best: dict[str, Reading] = {}
    early = {_who(s): _values(s, *before) for s in store.read(made.signal, *before)}
    found = [s for s in store.read(made.signal, *since) if s.labels.get("service", key) == key]
    late = {(s.labels.get("replica", ""), _who(s)): _points(s, *since) for s in found}
    for series in found:
        subject = series.labels.get("replica", "") if made.about == "replica" else key
        former = early.get(_who(series), [])
        who = (series.labels.get("replica", ""), _who(series))
        if made.take in OF_SIBLINGS:
            own, siblings = _beside(who, late)
        else:
            own, siblings = [v for _, v in late[who]], []
        value = take(made, own, former, siblings)
        if value is None or not subject:
            continue
        known = best.get(subject)
        if known is None or (value < known.value if made.take == "min" else value > known.value):
            mean = fmean(former) if former else None
            text = _text(name, made, value, mean, subject)
            best[subject] = Reading(
                feature=name, about=made.about, subject=subject, value=value, before=mean, text=text
            )
    yield from best.values()


def _beside(who: Who, late: Mapping[Who, Points]) -> tuple[list[float], list[float]]:
    """The values of a series and the means of its siblings, over the time in which all of them were seen: who came when
    the worst was over has no smaller share in it. Siblings that were there for less than half of its time do not count.
    """
    own = late[who]
    same = {o: points for o, points in late.items() if points and 2 * len(points) >= len(own) and _same(who, o)}
    start = max((points[0][0] for points in (own, *same.values()) if points), default=0.0)
    cut = {other: [v for at, v in points if at >= start] for other, points in {**same, who: own}.items()}
    return cut[who], siblings_of(who, cut)


def _same(who: Who, other: Who) -> bool:
    """Another replica of the same revision."""
    return other[0] not in ("", who[0]) and dict(other[1]).get("digest") == dict(who[1]).get("digest")


def siblings_of(who: Who, late: Mapping[Who, Sequence[float]]) -> list[float]:
    """The means of the service's other replicas of the same revision; [] of what is no replica's."""
    same = (v for other, v in late.items() if _same(who, other))
    return [fmean(v) for v in same if v] if who[0] else []


def take(
    made: SignalFeature, late: Sequence[float], early: Sequence[float], siblings: Sequence[float] = ()
) -> float | None:
    """The value of a feature from what was seen late, early, and of the siblings; None where that is not enough."""
    if not late or (made.take in OF_BEFORE and not early) or (made.take in OF_SIBLINGS and not siblings):
        return None
    match made.take:
        case "max":
            return max(late)
        case "min":
            return min(late)
        case "last":
            return late[-1]
        case "rise":
            return fmean(late) - fmean(early)
        case "ratio":
            return fmean(late) / base if (base := fmean(early)) > 0.0 else None
        case "excess":
            return fmean(late) - median(siblings)
        case "others":
            return median(siblings)
        case "times":
            return fmean(late) / base if (base := median(siblings)) > 0.0 else None
    return fmean(late)


def _text(name: str, made: SignalFeature, value: float, before: float | None, subject: str) -> str:
    if made.text:
        return made.text.format(value=value, before=before if before is not None else float("nan"), subject=subject)
    was = f"; {made.signal} was {before:.3g} before" if before is not None else ""
    return f"{name.replace('_', ' ')} of {subject} is {value:.3g} since the onset{was}."


def _values(series: Series, start: float, end: float) -> list[float]:
    return [v for _, v in _points(series, start, end)]


def _points(series: Series, start: float, end: float) -> Points:
    return [(at, v) for at, v in zip(series.at, series.value, strict=True) if start <= at < end and isfinite(v)]


def _who(series: Series) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(series.labels.items()))
