"""The layers a recommendation model is put together from. Pure descriptions; ``recommender`` builds the network."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.errors import SpecError
from leptonai.types import Noun


class PandasInput(Noun, frozen=True, kw_only=True):
    """Users, items and ratings as ``Dataset.from_pandas`` reads them."""


class FeatureEmbedding(msgspec.Struct, frozen=True):
    """Every user, item and feature value gets a learnt vector of ``size`` numbers."""

    size: int

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise SpecError(f"FeatureEmbedding({self.size!r}): the size must be a whole number, at least 1")


class Interaction(Noun, frozen=True, kw_only=True):
    """Products of user and item vectors, and a small network over both and their products (He et al. 2017)."""


class BCELoss(Noun, frozen=True, kw_only=True):
    """Binary cross-entropy on ratings scaled to 0..1: a rating between the ends is a soft label."""


class RegressionOutput(Noun, frozen=True, kw_only=True):
    """Predictions on the scale of the ratings, never outside it."""


LAYERS = (PandasInput, FeatureEmbedding, Interaction, BCELoss, RegressionOutput)
Layer = PandasInput | FeatureEmbedding | Interaction | BCELoss | RegressionOutput


class config:
    """The layers by name: ``config.FeatureEmbedding(50)``."""

    PandasInput = PandasInput
    FeatureEmbedding = FeatureEmbedding
    Interaction = Interaction
    BCELoss = BCELoss
    RegressionOutput = RegressionOutput


class Layers:
    """The named layers of one model, in the order they were added."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}

    def add_layer(self, name: str, layer: Any) -> Layers:
        """``layer`` is part of the model under ``name``; a layer without arguments may be given as its class."""
        if name in self._layers:
            raise SpecError(f"layer {name!r} is already {self._layers[name]!r}", hint="give each layer its own name")
        if layer is FeatureEmbedding:
            raise SpecError("FeatureEmbedding needs its size", hint="config.FeatureEmbedding(50)")
        made: Any = layer
        if isinstance(layer, type) and layer in LAYERS:
            made = layer()  # type: ignore[call-arg] # FeatureEmbedding was refused above
        if not isinstance(made, LAYERS):
            known = ", ".join(k.__name__ for k in LAYERS)
            raise SpecError(f"layer {name!r} is {type(made).__name__}; known layers: {known}")
        if any(type(made) is type(other) for other in self._layers.values()):
            raise SpecError(f"layer {name!r}: there is already a {type(made).__name__}")
        self._layers[name] = made
        return self

    def size(self) -> int:
        """The embedding size; raises SpecError while a needed layer is missing."""
        have = {type(x) for x in self._layers.values()}
        if missing := [k.__name__ for k in LAYERS[1:] if k not in have]:
            raise SpecError(
                f"the model has no {' and no '.join(missing)} layer",
                hint=f"model.config.add_layer('name', config.{missing[0]}({'50' if 'Emb' in missing[0] else ''}))",
            )
        return next(x.size for x in self._layers.values() if isinstance(x, FeatureEmbedding))
