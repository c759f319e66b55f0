"""The table at the end: one row a fault, times in seconds since the injection."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from leptonai.demo.outcome import Outcome

HEADS = ("fault", "detect", "diagnose", "recover", "sent", "failed", "wrong", "cause named", "remedy", "harm")
NUMBERS = range(1, 7)


def cells(outcome: Outcome) -> tuple[str, ...]:
    """The row as text, in the order of ``HEADS``."""
    return (
        outcome.fault,
        *(_seconds(value) for value in (outcome.detect, outcome.diagnose, outcome.recover)),
        *(str(value) for value in (outcome.sent, outcome.failed, outcome.wrong)),
        outcome.cause or "-",
        outcome.remedy or "-",
        str(len(outcome.harm)) if outcome.harm else "none",
    )


def table(outcomes: Sequence[Outcome]) -> Table:
    """The outcomes so far; a row that was not repaired stands out."""
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for n, head in enumerate(HEADS):
        number = n in NUMBERS
        out.add_column(head, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for outcome in outcomes:
        out.add_row(*cells(outcome), style="green" if outcome.repaired else "bold red")
    return out


def faults_found(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each thing that went otherwise than it should."""
    return [f"{o.fault}: {text}" for o in outcomes for text in (*o.missing, *o.harm)]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
