"""What a runbook file may say. Every part is checked for what it means by ``read``."""

from __future__ import annotations

from typing import Any, Literal

from leptonai.types import Noun, Severity

Approval = Literal["never", "above low", "above medium", "always"]
Autonomy = Literal["act", "recommend"]


class Limits(Noun, frozen=True, kw_only=True):
    """How much of it. None: as the settings say."""

    attempts: int | None = None  # tries of one incident that did not help, until a person is called; ops.attempts
    cooldown: float | None = None  # seconds after a verdict until the next step; never under admit.cooldown
    share: float = 1.0  # most of a service's replicas that one step may replace or take; one replica always may
    ready: int = 1  # ready replicas that must be left while one is replaced, where more than one is wished for
    most: int = 10  # times the row may act on a service, whatever came of it ...
    window: float = 3600.0  # ... in so many seconds; and for how long a remedy that did not help is remembered


class Range(Noun, frozen=True, kw_only=True):
    """What the mean of a signal must be, both bounds included."""

    above: float | None = None
    below: float | None = None
    foreign: bool = False  # others send the signal, so it need not be one of ours

    def holds(self, value: float) -> bool:
        return (self.above is None or value >= self.above) and (self.below is None or value <= self.below)

    def __str__(self) -> str:
        bounds = ((">=", self.above), ("<=", self.below))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


class Verify(Noun, frozen=True, kw_only=True):
    """When a step has helped: nothing fires and what runs is what is wished for ``settle`` seconds, and over them each
    of ``signals`` of the service is in its range. None: as the settings say."""

    seconds: float | None = None  # from the step until it is ineffective; ops.verify_timeout
    settle: float | None = None  # ops.settle
    signals: dict[str, Range] = {}


class StepText(Noun, frozen=True, kw_only=True, rename={"given": "with"}):
    """One step; what is not given is as in its row."""

    do: str
    given: dict[str, Any] = {}
    tries: int = 1  # times it may fail to help until the next step
    approval: Approval | None = None
    autonomy: Autonomy | None = None
    limits: Limits | None = None
    verify: Verify | None = None
    compensate: bool | None = None  # take it back when it did not help; None: where that is what the remedy does


class RowText(Noun, frozen=True, kw_only=True):
    """What is done about a cause in an incident of one of ``severity``."""

    severity: tuple[Severity, ...] = ("info", "warning", "critical")
    owner: str = "whoever is on call for the service"
    responsibilities: str = ""  # what the owner is to do that we cannot
    reconcile: bool = False  # serve repairs it; steps are for what it leaves
    steps: tuple[str | StepText, ...] = ()
    approval: Approval = "never"
    autonomy: Autonomy = "act"
    limits: Limits = Limits()
    verify: Verify = Verify()
    compensate: bool | None = None


Text = dict[str, RowText | tuple[RowText, ...]]  # cause -> what is done
