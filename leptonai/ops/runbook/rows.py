"""The runbook as it is followed: cause x severity -> steps, checked and with every default filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from leptonai.ops.runbook.form import Approval, Autonomy, Limits, Verify
from leptonai.protocols import Remedy
from leptonai.types import Severity

RISKS = ("low", "medium", "high")


class Step(NamedTuple):
    remedy: Remedy
    given: Mapping[str, Any] = {}
    tries: int = 1
    approval: Approval = "never"
    autonomy: Autonomy = "act"
    limits: Limits = Limits()
    verify: Verify = Verify()
    compensate: bool = False

    @property
    def name(self) -> str:
        return self.remedy.name

    @property
    def asks(self) -> str:
        """Why a person must approve the step; "": nobody needs to."""
        risk = self.remedy.risk
        if self.approval == "always":
            return f"the runbook asks for approval of every {self.name}"
        least = {"never": 3, "above low": 1, "above medium": 2}[self.approval]
        return f"{self.name} is of {risk} risk; the runbook asks {self.approval}" if RISKS.index(risk) >= least else ""


class Row(NamedTuple):
    """``source``: the file it is from."""

    cause: str
    severity: tuple[Severity, ...] = ("info", "warning", "critical")
    steps: tuple[Step, ...] = ()
    reconcile: bool = False
    owner: str = ""
    responsibilities: str = ""
    limits: Limits = Limits()
    source: str = ""

    @property
    def remedies(self) -> tuple[str, ...]:
        """Each once, in the order in which they are tried."""
        return tuple(dict.fromkeys(step.name for step in self.steps))

    def step(self, remedy: str) -> Step | None:
        """The first step that takes ``remedy``."""
        return next((s for s in self.steps if s.name == remedy), None)


class Runbook:
    """Every row there is; a cause or severity without one has an empty row: a person is called."""

    def __init__(self, rows: Mapping[str, tuple[Row, ...]]) -> None:
        self._rows = dict(rows)

    def row(self, cause: str, severity: Severity) -> Row:
        return next((r for r in self._rows.get(cause, ()) if severity in r.severity), Row(cause))

    def rows(self, cause: str | None = None) -> Iterator[Row]:
        for name, rows in self._rows.items():
            if cause in (None, name):
                yield from rows

    def over(self, other: Runbook) -> Runbook:
        """This runbook, and ``other`` for the causes it does not name."""
        return Runbook({**other._rows, **self._rows})

    def ordered(self, by: Callable[[Row], Sequence[str]]) -> Runbook:
        """The steps of each row in the order of remedies that ``by`` gives; those of one remedy as they stand."""

        def put(row: Row) -> Row:
            place = {name: n for n, name in enumerate(by(row))}
            steps = sorted(row.steps, key=lambda s: place.get(s.name, len(place)))
            return row._replace(steps=tuple(steps))

        return Runbook({cause: tuple(map(put, rows)) for cause, rows in self._rows.items()})
