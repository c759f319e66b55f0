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
            id="", kind=SIMILAR, at=at, text=_text(old),
            data={"incident": old.id, "likeness": round(how, 3), "cause": _cause(old), **_tried(old)},
        )
        for how, old in best
    ]  # fmt: skip


def _cause(old: Incident) -> str:
    return old.causes[0].name if old.causes else "unknown"


def _tried(old: Incident) -> dict[str, str]:
    """The newest remedy that helped, or else the newest that was judged, with its verdict."""
    judged = [a for a in old.actions if a.verdict is not None and a.approved is not False]
    best = [a for a in judged if a.verdict == "effective"] or judged
    return {"remedy": best[-1].remedy, "verdict": str(best[-1].verdict)} if best else {}


def _text(old: Incident) -> str:
    cause = old.causes[0].name.replace("_", " ") if old.causes else "no cause found"
    tried = _tried(old)
    if not tried:
        how = "nothing was done"
    elif tried["remedy"].startswith("none"):
        how = "it passed by itself"
    else:
        how = f"{tried['remedy']} was {tried['verdict']}"
    return f"Incident {old.id} ({old.subject}) looked like it: {cause}; {how}."
