"""A drill knows the truth: its incidents are labelled with it, and diagnosis learns from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from leptonai.client import Client
from leptonai.client.wire import ReviewRequest
from leptonai.drill.kinds import KINDS
from leptonai.drill.outcome import Outcome
from leptonai.errors import LeptonError
from leptonai.types import Incident


def reviews_of(outcome: Outcome) -> Iterator[tuple[Incident, ReviewRequest]]:
    """What is true of the first incident that a fault provoked; of a control nothing is labelled."""
    causes = KINDS[outcome.kind].causes
    if not causes or not outcome.incidents:
        return
    incident = outcome.incidents[0]
    truth = outcome.cause if outcome.cause in causes else causes[0]
    yield (
        incident,
        ReviewRequest(
            analysis=incident.analysis,
            cause=truth,
            hypotheses={c.name: c.name in causes for c in incident.causes},
            note=f"drill {outcome.kind}, seed {outcome.seed}",
            source="drill",
        ),
    )


def review(client: Client, outcome: Outcome) -> None:
    """The incident that the drill provoked has its true cause on record."""
    for incident, request in reviews_of(outcome):
        with contextlib.suppress(LeptonError):  # the outcome itself is kept: a label more or less ends no drill
            client.review(incident.id, request)
