"""Which past incidents looked like this one, and what helped then. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt

from leptonai.types import Evidence, Incident

ALIKE = 0.75  # least likeness that is told
MOST = 2  # told
SIMILAR = "similar"  # the kind of the evidence


def likeness(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """1 - |a - b| / (|a| + |b|) over the features of both, what is absent counting as 0: 1 for the same, 0 at worst.

    Features are shifts and shares of the same order (``ops.features``), so the plain distance says something.
    """
    names = a.keys() | b.keys()
    apart = sqrt(sum((a.get(n, 0.0) - b.get(n, 0.0)) ** 2 for n in names))
    size = sqrt(sum(v * v for v in a.values())) + sqrt(sum(v * v for v in b.values()))
    return 1.0 - apart / size if size else 0.0


def similar(features: Mapping[str, float], past: Iterable[Incident], at: float) -> list[Evidence]:
    """The closed incidents most like it, as facts without an id: their cause, how long ago, and the action with its
    verdict."""
    found = [(likeness(features, i.features), i) for i in past if i.features and i.closed is not None]
    best = sorted((f for f in found if f[0] >= ALIKE), key=lambda f: (-f[0], -f[1].id))[:MOST]
    return [
        Evidence(
            id="", kind=SIMILAR, at=at, text=_text(old), data={"incident": old.id, "likeness": round(how, 3)},
        )
        for how, old in best
    ]  # fmt: skip


def _text(old: Incident) -> str:
    cause = old.causes[0].name.replace("_", " ") if old.causes else "no cause found"
    helped = [a for a in old.actions if a.verdict == "effective"]
    tried = [a for a in old.actions if a.verdict not in (None, "effective")]
    if helped:
        how = "it passed by itself" if helped[-1].remedy.startswith("none") else f"{helped[-1].remedy} was effective"
    elif tried:
        how = f"{tried[-1].remedy} was {tried[-1].verdict}"
    else:
        how = "nothing was done"
    return f"Incident {old.id} ({old.subject}) looked like it: {cause}; {how}."
