"""A drill knows the truth: its incidents are labelled with it, and diagnosis learns from them."""

from __future__ import annotations

import contextlib

from leptonai.client import Client
from leptonai.client.wire import ReviewRequest
from leptonai.drill.kinds import KINDS
from leptonai.drill.outcome import Outcome
from leptonai.errors import LeptonError
from leptonai.types import Incident

TRIES = 3  # an incident that is diagnosed anew between reading and reviewing is read again


def review_of(outcome: Outcome, incident: Incident) -> ReviewRequest:
    """What is true of the incident that a fault provoked, as it stands now."""
    causes = KINDS[outcome.kind].causes
    named = incident.causes[0].name if incident.causes else ""
    return ReviewRequest(
        analysis=incident.analysis,
        cause=named if named in causes else causes[0],
        hypotheses={c.name: c.name in causes for c in incident.causes},
        note=f"drill {outcome.kind}, seed {outcome.seed}",
        source="drill",
    )


def review(client: Client, outcome: Outcome) -> bool:
    """Whether the incident that the drill provoked has its true cause on record now. Of a control nothing is labelled.

    The outcome itself is kept in any case: a label more or less ends no drill.
    """
    if outcome.control or outcome.incident is None:
        return False
    for _ in range(TRIES):
        with contextlib.suppress(LeptonError):
            client.review(outcome.incident, review_of(outcome, client.incident(outcome.incident)))
            return True
    return False
