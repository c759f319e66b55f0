"""Hyper-parameters of a training run: fields of its job, judged by the rows that were held out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import SpecError
from leptonai.improve.train.job import Job, train
from leptonai.improve.tune.study import Objective, Pruned, Told, Value


def applied(job: Job, params: dict[str, Value]) -> Job:
    """``job`` with a trial's values: of fields, or of the constructor's arguments as ``args.NAME``."""
    fields: dict[str, Any] = {}
    args = dict(job.args)
    for name, value in params.items():
        if name.startswith("args."):
            args[name.removeprefix("args.")] = value
        elif name in Job.__struct_fields__ and name not in ("data", "seed", "hold", "args"):
            fields[name] = value
        else:
            raise SpecError(
                f"{name!r} is no field of a job that can be searched", hint="rate, batch_size, args.width ..."
            )
    try:
        return msgspec.convert({**msgspec.to_builtins(job), **fields, "args": args}, Job)
    except msgspec.ValidationError as e:
        raise SpecError(f"trial {params}: {e}") from e


def objective(job: Job, base: Path) -> Objective:
    """Higher is better: accuracy, or minus the rmse. A trial is pruned by its held-out loss, epoch by epoch."""

    def value(params: dict[str, Value], told: Told) -> float:
        def progress(epoch: int, loss: float) -> None:
            if not told(epoch, -loss):
                raise Pruned

        with tempfile.TemporaryDirectory(prefix="leptonai-") as folder:
            return train(applied(job, params), base, Path(folder), progress).quality

    return value
