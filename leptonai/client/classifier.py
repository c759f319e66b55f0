"""The classifiers that vote beside the rules, as they are shown: which version, how good on unseen incidents."""

from __future__ import annotations

from typing import Any

from leptonai.types import Noun


class OfCause(Noun, frozen=True, kw_only=True):
    incidents: int
    precision: float
    recall: float
    f1: float


class Unseen(Noun, frozen=True, kw_only=True):
    """Of incidents that it has not learnt from: shares told rightly first and in the first two, macro-F1 with its 95 %
    interval, expected calibration error, by cause, and the confusion: truth -> said -> incidents."""

    incidents: int
    first: float
    first_two: float
    macro_f1: float
    interval: tuple[float, float]
    calibration: float
    causes: dict[str, OfCause] = {}
    confusion: dict[str, dict[str, int]] = {}
    bins: tuple[tuple[float, float, int], ...] = ()  # mean confidence, share right, incidents


class Classifier(Noun, frozen=True, kw_only=True):
    """``version`` "": none, the rules stand alone. ``counts``: whether it does beside the rules, or is only told
    (settings ``ops.classifiers``). ``weights``: by voter. ``broken``: why a newer version is not in force."""

    version: str = ""
    counts: bool = False
    weights: dict[str, float] = {}
    about: dict[str, Any] = {}
    held_out: Unseen | None = None
    broken: str = ""
