"""What the classifiers' opinion does to the causes that rules named. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from leptonai.ops.classify.ensemble import RULES, Opinion
from leptonai.ops.diagnose import NAMED, UNKNOWN_BELOW
from leptonai.ops.evidence import Facts
from leptonai.types import Cause, Evidence

OPINION = "classifiers"  # the kind of the evidence that tells of it
ALONE = (
    0.65  # at most, of a cause that no rule names: below ``ops.min_confidence``, so that it is told and not acted upon
)
SPOKEN = 2  # causes told of each voter


def weigh_in(
    facts: Facts, causes: Sequence[Cause], opinion: Opinion, service: str, now: float
) -> tuple[Facts, tuple[Cause, ...]]:
    """The causes with the pooled probabilities as their confidence, falling; the facts with the opinion as one more.

    Of several subjects of one cause the surest by the rules gets the probability, the others their share of it. What
    the pool holds likely and no rule named is told about the service, never surer than ALONE. Causes of an operator's
    own, which no classifier knows, keep their confidence.
    """
    id = f"e{len(facts.evidence) + 1}"
    best: dict[str, float] = {}
    for cause in causes:
        best[cause.name] = max(cause.confidence, best.get(cause.name, 0.0))
    out = []
    for cause in causes:
        if cause.name == "unknown":
            continue
        p = opinion.p.get(cause.name)
        sure = cause.confidence if p is None else p * cause.confidence / best[cause.name]
        if sure >= NAMED:
            out.append(msgspec.structs.replace(cause, confidence=round(sure, 3), evidence=(*cause.evidence, id)))
    for name, p in opinion.p.items():
        if name != "unknown" and name not in best and p >= NAMED:
            out.append(Cause(name=name, subject=service, confidence=round(min(p, ALONE), 3), evidence=(id,)))
    top = max((c.confidence for c in out), default=0.0)
    if top < UNKNOWN_BELOW:
        every = tuple(e for c in causes if c.name == "unknown" for e in c.evidence)
        left = max(opinion.p.get("unknown", 0.0), 1.0 - sum(c.confidence for c in out), 0.0)
        out.append(Cause(name="unknown", subject=service, confidence=round(left, 3), evidence=(*every, id)))
    fact = Evidence(id=id, kind=OPINION, at=now, text=_text(opinion), data=_data(opinion) | {"counts": True})
    told = Facts((*facts.evidence, fact), facts.features)
    order = {c.name: i for i, c in enumerate(causes)}
    return told, tuple(sorted(out, key=lambda c: (-c.confidence, order.get(c.name, len(order)), c.name, c.subject)))


def beside(facts: Facts, opinion: Opinion, now: float) -> Facts:
    """The facts with the opinion as one more, which counts for nothing."""
    text = f"{_text(opinion)} That is only told: the causes are the rules'."
    fact = Evidence(
        id=f"e{len(facts.evidence) + 1}", kind=OPINION, at=now, text=text, data=_data(opinion) | {"counts": False}
    )
    return Facts((*facts.evidence, fact), facts.features)


def _text(opinion: Opinion) -> str:
    """Without exact numbers, which change at every look: they are in the data."""
    said = "; ".join(
        f"{voter}: {', '.join(f'{name} {p:.0%}' for name, p in _first(votes))}"
        for voter, votes in opinion.votes.items()
        if voter != RULES
    )
    return f"Classifiers trained on labelled incidents say {said}."


def _data(opinion: Opinion) -> dict[str, object]:
    votes = {v: {n: round(p, 4) for n, p in said.items() if p >= 0.001} for v, said in opinion.votes.items()}
    return {"votes": votes, "near": round(opinion.near, 4)}


def _first(votes: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(votes.items(), key=lambda v: (-v[1], v[0]))[:SPOKEN]
