"""The classifiers in force, with how good they are: per cause, and what is taken for what."""

from __future__ import annotations

import contextlib

import msgspec

from leptonai.api.route import Asked, Query, Route
from leptonai.api.world import World
from leptonai.client.classifier import Classifier, Unseen


def classifier(asked: Asked[Query, None]) -> Classifier:
    """The version in force: what it was made of, what each voter counts, its scores on incidents it has not seen."""
    return in_force(asked.world)


def in_force(world: World) -> Classifier:
    """As ``classifier``; ``version`` is "" where there is none."""
    from leptonai.ops.classify.ensemble import RULES  # numpy: only for who asks
    from leptonai.ops.classify.files import FOLDER, SHIPPED, counts, glance

    said = world.settings.ops.classifiers
    version, meta, broken = glance(world.home / FOLDER, SHIPPED)
    if meta is None or said == "off":
        return Classifier(broken=broken)
    about = dict(meta.about)
    held = None
    with contextlib.suppress(msgspec.ValidationError):  # of a version that tells less: it works all the same
        held = msgspec.convert(about.pop("held_out", None), Unseen)
    weights = dict(zip([*meta.models, RULES], meta.weights, strict=True))
    return Classifier(
        version=version, counts=counts(version, said), weights=weights, about=about, held_out=held, broken=broken
    )


ROUTES = [Route("GET", "/classifier", "viewer", classifier, Classifier)]
