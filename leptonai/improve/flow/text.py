"""What a pipeline is told: one text, each step a few fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from leptonai.errors import SpecError
from leptonai.improve.compress.front import budget
from leptonai.improve.compress.steps import STEPS
from leptonai.types import Noun


class Evaluate(Noun, frozen=True, kw_only=True):
    test: str  # rows that neither teach nor choose
    at_least: float | None = None  # accuracy, or minus the rmse; below it the pipeline stops
    current: str | None = None  # the model that serves: one that is worse stops the pipeline
    margin: float = 0.0  # by which it may be worse


class Compress(Noun, frozen=True, kw_only=True):
    budget: str = "accuracy=0.5%"
    aim: Literal["size", "latency", "both"] = "size"  # the others depend on the machine's moods, and so does the choice
    only: tuple[str, ...] | None = None
    steps: int | None = None  # batches that teach each changed network


class Canary(Noun, frozen=True, kw_only=True):
    service: str
    workspace: str = "default"
    timeout: float = 3600.0  # seconds that live traffic has to judge
    beside: tuple[str, ...] = ()  # files deployed in the model's folder: a model.py that works around it, its words ...


class Trigger(Noun, frozen=True, kw_only=True):
    """When ``--if-needed`` begins: recent rows have drifted from the reference, or feedback says so of ``service``."""

    reference: str | None = None
    recent: str | None = None
    service: str | None = None
    wrong: float | None = None  # share of labels in the last hour that differ from the answers
    complaints: float | None = None  # share of the opinions of the last hour that are complaints


class Flow(Noun, frozen=True, kw_only=True):
    name: str
    collect: tuple[str, ...]  # files and patterns of rows, in order
    train: dict[str, Any]  # a job, without data
    label: str | None = None
    evaluate: Evaluate | None = None
    compress: Compress | None = None
    canary: Canary | None = None
    trigger: Trigger | None = None


def parse(fields: dict[str, Any], source: str) -> Flow:
    """SpecError names the field and what is known."""
    _known(fields, Flow, source, "")
    for name, noun in (("evaluate", Evaluate), ("compress", Compress), ("canary", Canary), ("trigger", Trigger)):
        if isinstance(fields.get(name), dict):
            _known(fields[name], noun, source, f"{name}.")
    try:
        flow = msgspec.convert(fields, Flow)
    except msgspec.ValidationError as e:
        raise SpecError(f"{source}: {e}", hint="see docs/pipeline.md for the fields of each step") from e
    if not flow.collect:
        raise SpecError(f"{source}: collect names no file", hint="collect: [rows.csv]")
    if "data" in flow.train:
        raise SpecError(f"{source}: train.data is what collect gives", hint="leave it out")
    for where, value, low, high in _numbers(flow):
        if value is not None and not low <= value <= high:
            raise SpecError(f"{source}: {where} is {value:g}; it must be {low:g} to {high:g}")
    if flow.compress is not None:
        budget(flow.compress.budget)  # what is wrong with it is said before anything is trained
    for step in (flow.compress and flow.compress.only) or ():
        if step not in STEPS:
            raise SpecError(f"{source}: compress.only: step {step!r} is not known", hint=f"known: {', '.join(STEPS)}")
    if flow.canary is not None and flow.evaluate is None:
        raise SpecError(
            f"{source}: canary without evaluate: a model that nobody measured is not proposed",
            hint="evaluate: {test: test.npz}",
        )
    return flow


def _numbers(flow: Flow) -> Iterator[tuple[str, float | None, float, float]]:
    """Field, value, and what it may be."""
    if flow.evaluate is not None:
        yield "evaluate.margin", flow.evaluate.margin, 0.0, 1e12  # of an rmse, in whatever unit the labels have
    if flow.compress is not None:
        yield "compress.steps", flow.compress.steps, 1, 10**7
    if flow.canary is not None:
        yield "canary.timeout", flow.canary.timeout, 1.0, 30 * 86400.0
    if flow.trigger is not None:
        yield "trigger.wrong", flow.trigger.wrong, 0.0, 1.0
        yield "trigger.complaints", flow.trigger.complaints, 0.0, 1.0


def _known(fields: dict[str, Any], noun: type[Noun], source: str, prefix: str) -> None:
    for name in fields:
        if name not in noun.__struct_fields__:
            known = ", ".join(noun.__struct_fields__)
            raise SpecError(f"{source}: {prefix}{name}: unknown field", hint=f"known here: {known}")


def collected(base: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files that the patterns mean, each once, in order of the patterns and then of their names."""
    found: list[Path] = []
    for pattern in patterns:
        here = sorted(base.glob(pattern)) if any(c in pattern for c in "*?[") else [base / pattern]
        found += [p for p in here if p not in found]
    if not found:
        raise SpecError(f"no file is meant by {', '.join(patterns)}", hint=f"paths count from {base}")
    return found
