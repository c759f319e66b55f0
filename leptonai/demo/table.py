"""The table at the end: one row a fault, times in seconds since the injection."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from leptonai.demo.outcome import Outcome

HEADS = ("fault", "detect", "diagnose", "recover", "sent", "failed", "wrong", "cause named", "remedy", "harm")
NUMBERS = range(1, 7)
WIDE = 122  # columns that the longest row needs; where there are fewer, cells are stacked


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


def table(outcomes: Sequence[Outcome], width: int) -> Table:
    """The outcomes so far, for a terminal of ``width`` columns; a row that was not repaired stands out."""
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    wide = width >= WIDE
    for n, head in enumerate(HEADS if wide else _stacked(HEADS, "/\n")):
        out.add_column(head, justify="right" if wide and n in NUMBERS else "left", no_wrap=True)
    for outcome in outcomes:
        row = cells(outcome)
        out.add_row(*(row if wide else _stacked(row, "/")), style="green" if outcome.repaired else "bold red")
    return out


def faults_found(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each thing that went otherwise than it should."""
    return [f"{o.fault}: {text}" for o in outcomes for text in (*o.missing, *o.harm)]


def _stacked(row: Sequence[str], between: str) -> tuple[str, ...]:
    """The row in five cells: the times in one, the counts in another, the remedy under the cause."""
    fault, cause, remedy, harm = row[0], row[7], row[8], row[9]
    return fault, between.join(row[1:4]), between.join(row[4:7]), f"{cause}\n{remedy}", harm


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
