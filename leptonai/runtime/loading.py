"""From a launch to a model that answers: load the artifact, hold its golden examples against it."""

from __future__ import annotations

import gc

from leptonai.runtime import golden, loaders
from leptonai.runtime.compute import Loaded
from leptonai.runtime.model import Model, TensorModel
from leptonai.types import Launch


def load(launch: Launch) -> Loaded:
    """The model of ``launch.artifact``, whose golden examples, if it has any, hold. LeptonError: it does not load."""
    variant = launch.variant
    predictor, file = loaders.load(launch.artifact, variant)
    from leptonai.runtime.loaders.python import PythonPredictor

    model: Model
    if isinstance(predictor, PythonPredictor):
        from leptonai.runtime.objects import ObjectModel

        model = ObjectModel(predictor)
    else:
        model = TensorModel(predictor)
    examples = golden.read(launch.artifact, file)
    golden.check(model, examples)
    is_code = file.endswith(".py")
    idempotent = variant.idempotent if variant.idempotent is not None else not is_code
    canned = None
    if examples:
        job = model.example_job(examples[0].inputs)

        def canned() -> None:
            model.run([job])

    gc.collect()
    gc.freeze()  # libraries and the model stay: collections look at requests only, which keeps the tail short
    return Loaded(model, canned, idempotent)
