"""How an issue changes: by one more complaint, by what people decide, by what is seen after a repair. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from leptonai.ops.feedback.cluster import Cluster, joined, nearest, telling
from leptonai.ops.feedback.words import words
from leptonai.types import Issue, Key

MOST = 200  # issues of one service; past it the oldest that nobody cared for gives way
MOST_HOURS = 24 * 60  # hours in which complaints are counted apart
EXAMPLES = 5
TITLE = 140  # characters
HOUR = 3600.0

Known = Sequence[tuple[Issue, Mapping[str, int]]]


def complained(service: Key, text: str, at: float, known: Known) -> tuple[Issue, dict[str, int], int]:
    """The issue that the text belongs to (id 0: a new one), its words, and the id of one that gives way (0: none).

    ``text`` is masked already. ``known``: the issues of the service with their words.
    """
    clusters = [Cluster(issue.id, issue.count, terms) for issue, terms in known]
    found = words(text)
    place, _ = nearest(found, clusters)
    line = " ".join(text.split())[:TITLE]
    if place is None:
        made = joined(Cluster(0, 0, {}), found)
        issue = Issue(
            id=0, service=service, title=line, terms=telling(made, [*clusters, made]), count=1, first=at, last=at,
            examples=(line,), hours=((int(at // HOUR), 1),),
        )  # fmt: skip
        return issue, dict(made.terms), _gives_way(known)
    now = joined(next(c for c in clusters if c.id == place), found)
    was = next(issue for issue, _ in known if issue.id == place)
    hour = int(at // HOUR)
    hours = dict(was.hours)
    hours[hour] = hours.get(hour, 0) + 1
    kept = tuple(sorted(hours.items())[-MOST_HOURS:])
    issue = msgspec.structs.replace(
        was, count=was.count + 1, last=max(was.last, at), hours=kept, examples=(*was.examples, line)[-EXAMPLES:],
        terms=telling(now, [now, *(c for c in clusters if c.id != place)]),
    )  # fmt: skip
    if was.state == "closed":
        issue = msgspec.structs.replace(issue, state="open", closed=None, fixed=None, note="came back")
    return issue, dict(now.terms), 0


def _gives_way(known: Known) -> int:
    if len(known) < MOST:
        return 0
    idle = [i for i, _ in known if i.state == "closed" or (i.state == "open" and not i.owner)]
    return min(idle or [i for i, _ in known], key=lambda i: (i.state != "closed", i.count > 1, i.last, i.id)).id


def counted(issue: Issue, start: float, end: float) -> int:
    """Complaints between two moments, by whole hours: those of the hour of ``start`` count, those of ``end`` do not."""
    return sum(many for hour, many in issue.hours if start // HOUR <= hour < end // HOUR)
