"""Complaints that say the same, found as they come: one pass, no randomness, bounded. Pure.

A text is a set of words weighed by idf = log(1 + N / (df + 0.5)) (Salton and Buckley 1988; N texts, df of them with the
word), a cluster the mean of its texts; a text joins the nearest cluster by cosine, or begins one (the leader algorithm:
Hartigan, "Clustering Algorithms", 1975, 3.2). N and df are those of the clusters themselves: no other state is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log, sqrt
from typing import NamedTuple

JOIN = 0.3  # cosine from which a text says the same
MOST_TERMS = 80  # of one cluster: those that most of its texts have
SHOWN = 6


class Cluster(NamedTuple):
    """``terms``: in how many of its texts each word stands."""

    id: int
    texts: int
    terms: Mapping[str, int]


def idf(clusters: Sequence[Cluster]) -> dict[str, float]:
    """Of the words that are known; a new word has log(1 + N / 0.5)."""
    total = sum(c.texts for c in clusters)
    df: dict[str, int] = {}
    for cluster in clusters:
        for word, many in cluster.terms.items():
            df[word] = df.get(word, 0) + many
    return {word: log(1.0 + (total + 1) / (many + 0.5)) for word, many in df.items()}


def nearest(found: frozenset[str], clusters: Sequence[Cluster]) -> tuple[int | None, float]:
    """The cluster nearest to a text of these words, and how near; None below JOIN. Of equals the oldest."""
    weights = idf(clusters)
    new = log(1.0 + (sum(c.texts for c in clusters) + 1) / 0.5)
    length = sqrt(sum(weights.get(w, new) ** 2 for w in found))
    best: tuple[float, int] = (0.0, 0)
    for cluster in clusters:
        if not length or found.isdisjoint(cluster.terms):
            continue
        size = sqrt(sum((many / cluster.texts * weights[w]) ** 2 for w, many in cluster.terms.items()))
        shared = sum(weights[w] ** 2 * cluster.terms[w] / cluster.texts for w in found if w in cluster.terms)
        near = shared / (length * size)
        best = max(best, (near, -cluster.id))
    return (-best[1], best[0]) if best[0] >= JOIN else (None, best[0])


def joined(cluster: Cluster, found: Iterable[str]) -> Cluster:
    """The cluster with one more text."""
    terms = dict(cluster.terms)
    for word in found:
        terms[word] = terms.get(word, 0) + 1
    kept = sorted(terms.items(), key=lambda t: (-t[1], t[0]))[:MOST_TERMS]
    return Cluster(cluster.id, cluster.texts + 1, dict(kept))


def telling(cluster: Cluster, clusters: Sequence[Cluster]) -> tuple[str, ...]:
    """The words that tell the cluster from the others, heaviest first."""
    weights = idf(clusters)
    ranked = sorted(cluster.terms, key=lambda w: (-cluster.terms[w] * weights.get(w, 0.0), w))
    return tuple(ranked[:SHOWN])
