"""Labelled incidents as rows to learn from: drawn by the simulator, or live ones whose true cause somebody told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.classify.ensemble import CLASSES, RULES, of_rules
from leptonai.ops.classify.opinion import OPINION
from leptonai.ops.classify.train import Data
from leptonai.ops.features import FEATURES, completed
from leptonai.protocols import Floats
from leptonai.types import Incident

if TYPE_CHECKING:
    from leptonai.ops.simulate.cases import Case

LIVE = "live"  # load shape and severity of what was not drawn


@dataclass(frozen=True)
class Sample:
    """One look at an incident. ``last``: its newest, which is what counts when it is judged."""

    incident: str
    features: Mapping[str, float]
    rules: Floats
    cause: str
    service: str
    shape: str = LIVE
    level: str = LIVE
    last: bool = True
    also: tuple[str, ...] = ()  # other names that are as right, where what is true cannot be told apart


def drawn(cases: Iterable[Case], name: str = "") -> list[Sample]:
    """Of simulated cases, a sample of the first look and one of the last."""
    return [
        Sample(
            incident=f"{name}{n}",
            features=look.features,
            rules=of_rules(look.causes),
            cause=case.cause,
            service=f"{name}{case.service}",
            shape=case.shape,
            level=case.level,
            last=look is case.looks[-1],
        )
        for n, case in enumerate(cases)
        for look in case.looks[:1] + case.looks[1:][-1:]
    ]


def lived(incidents: Iterable[Incident], truths: Mapping[int, str]) -> list[Sample]:
    """Of live incidents whose cause is known and of the taxonomy, with the features of their diagnosis."""
    out = []
    for incident in incidents:
        cause = truths.get(incident.id, "")
        if not incident.features or cause not in CLASSES:
            continue
        told = [e.data.get("votes", {}).get(RULES) for e in incident.evidence if e.kind == OPINION]
        rules = of_rules(incident.causes)
        if told and told[-1]:
            rules = np.array([float(told[-1].get(c, 0.0)) for c in CLASSES], dtype=np.float64)
        out.append(Sample(f"{LIVE}{incident.id}", completed(incident), rules, cause, incident.subject))
    return out


class Told(msgspec.Struct):
    """What is read of a drill's outcome: the incident that it provoked, as it stood at the end."""

    kind: str
    injected: float
    incident: int | None = None
    truth: tuple[str, ...] = ()
    incidents: tuple[Incident, ...] = ()


def drilled(paths: Iterable[Path]) -> list[Sample]:
    """Of outcomes of drills, files or folders with them (a home, or what ``drill --out`` named), the incidents that
    were opened and diagnosed, labelled with what was injected. SpecError for a file that is none, or that holds no
    such incident."""
    out: list[Sample] = []
    for path in paths:
        files = sorted([*path.glob("*.jsonl"), *path.glob("drills/*.jsonl")]) if path.is_dir() else [path]
        before = len(out)
        for file in files:
            try:
                told = [msgspec.json.decode(line, type=Told) for line in file.read_bytes().splitlines() if line]
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
                raise SpecError(
                    f"{file}: no outcomes of drills: {e}", hint="name a file that `drill --out` wrote"
                ) from e
            for one in told:
                mine = [i for i in one.incidents if i.id == one.incident]
                for sample in lived(mine, {i.id: one.truth[0] for i in mine} if one.truth else {}):
                    name = f"{one.kind}-{one.injected:.3f}"
                    out.append(replace(sample, incident=name, service=f"{sample.service}-{name}", also=one.truth))
        if len(out) == before:
            raise SpecError(f"{path}: no labelled incident of a drill", hint="leptonai drill --all --out FOLDER")
    return out


def data_of(samples: Sequence[Sample]) -> Data:
    """The samples as arrays, in their order."""
    groups = {name: i for i, name in enumerate(dict.fromkeys(s.incident for s in samples))}
    table = np.array([[s.features.get(n, np.nan) for n in FEATURES] for s in samples], dtype=np.float64)
    return Data(
        table.reshape(-1, len(FEATURES)),
        np.array([s.rules for s in samples], dtype=np.float64).reshape(-1, len(CLASSES)),
        np.array([CLASSES.index(s.cause) for s in samples], dtype=np.int64),
        np.array([groups[s.incident] for s in samples], dtype=np.int64),
    )
