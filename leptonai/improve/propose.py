"""What was improved goes the way of every change: a revision of the service, through the one door, on probation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from leptonai.client import Client
from leptonai.client.wire import ServiceView
from leptonai.errors import SpecError
from leptonai.types import Batching, Key, Spec, Variant

KEPT = ("threads",)  # options that mean the same to every loader of a model file


def canary(spec: Spec, model: Path) -> Spec:
    """``spec`` with the model file in ``model`` for its one variant, as a rollout by canary; all else as it was.

    Options of the old model's loader go, for they are not the new one's. SpecError when there are several variants.
    """
    old = _only(spec)
    options = {k: v for k, v in old.options.items() if k in KEPT}
    variant = msgspec.structs.replace(
        old, model=str(model.resolve()), options=options, python=None, trust="none", idempotent=True
    )
    return _by_canary(spec, variant)


def tuned(spec: Spec, batching: Batching, threads: int | None, replicas: int | None, model: Path | None) -> Spec:
    """``spec`` with the knobs of serving that a search chose, as a rollout by canary; None: as it was.

    SpecError when there are several variants, or ``replicas`` is not within ``spec.scale``.
    """
    old = _only(canary(spec, model) if model is not None else spec)
    limits = {"max_bytes": old.batching.max_bytes, "max_queue": max(old.batching.max_queue, batching.max_size)}
    options = old.options if threads is None else {**old.options, "threads": threads}
    variant = msgspec.structs.replace(old, batching=msgspec.structs.replace(batching, **limits), options=options)
    scale = spec.scale if replicas is None else msgspec.structs.replace(spec.scale, replicas=replicas)
    if not scale.min <= scale.replicas <= scale.max:
        raise SpecError(f"{replicas} replicas are outside scale.min {scale.min} to scale.max {scale.max}")
    return _by_canary(msgspec.structs.replace(spec, scale=scale), variant)


def _only(spec: Spec) -> Variant:
    if len(spec.variants) != 1:
        names = ", ".join(v.name for v in spec.variants)
        raise SpecError(f"{spec.key} has several variants ({names}); which one is meant is not known")
    return spec.variants[0]


def _by_canary(spec: Spec, variant: Variant) -> Spec:
    strategy = "canary" if spec.rollout.strategy == "replace" else spec.rollout.strategy
    rollout = msgspec.structs.replace(spec.rollout, strategy=strategy)
    return msgspec.structs.replace(spec, variants=(variant,), rollout=rollout)


def beside(model: Path, files: Sequence[Path], folder: Path) -> Path:
    """``folder`` holds ``files`` and the model file of ``model`` (a file, or a folder that ``compress`` wrote).

    The golden examples of the bare model stay away: a class around it is asked in another form.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inside = [p for p in model.iterdir() if p.name.startswith("model.")] if model.is_dir() else [model]
    for path in (*inside, *files):
        try:
            shutil.copy(path, folder / path.name)
        except OSError as e:
            raise SpecError(f"{path}: {e.strerror or e}", hint="a file to be deployed beside the model") from e
    return folder


def propose(
    client: Client, key: Key, model: Path, why: str, report: Callable[[str], None] = lambda text: None
) -> ServiceView:
    """The model in ``model`` is on probation in ``key``; live traffic judges it. Errors as in ``Client.deploy``."""
    spec = canary(client.service(key).service.spec, model)
    return client.deploy(spec, why=why, report=lambda progress: report(progress.text))
