"""What is held to be true of an incident, of all that was said of it. Pure; the order of reviews does not matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from leptonai.types import Review


def in_force(reviews: Iterable[Review]) -> list[Review]:
    """The newest review of each reviewer of each incident, by incident and reviewer."""
    newest: dict[tuple[int, str], Review] = {}
    for review in sorted(reviews, key=lambda r: (r.at, repr(r))):
        newest[review.incident, review.by] = review
    return [newest[key] for key in sorted(newest)]


def truth(review: Review) -> str:
    """The cause that one review tells: the one it names, else the only hypothesis it calls right; "" when none."""
    right = [cause for cause, is_right in review.hypotheses.items() if is_right]
    return review.cause or (right[0] if len(right) == 1 else "")


def truths(reviews: Iterable[Review]) -> dict[int, str]:
    """Incident -> its cause: as the drill that made it says, else as most reviewers do, of a tie as the newest does.

    An incident of which nobody told a cause is left out.
    """
    told: dict[int, list[Review]] = {}
    for review in in_force(reviews):
        if truth(review):
            told.setdefault(review.incident, []).append(review)
    out = {}
    for incident, found in told.items():
        drills = [r for r in found if r.source == "drill"]
        votes = Counter(truth(r) for r in drills or found)
        most = max(votes.values())
        last = max((r for r in drills or found if votes[truth(r)] == most), key=lambda r: (r.at, r.by))
        out[incident] = truth(last)
    return out
