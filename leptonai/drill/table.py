"""The tables at the end: one row a fault, times in seconds since the injection; and what it all comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from leptonai.drill.kinds import KINDS
from leptonai.drill.outcome import Outcome

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
    return [f"{o.fault}: {text}" for o in outcomes for text in (*o.missing, *o.harm, *o.noise)]


def _stacked(row: Sequence[str], between: str) -> tuple[str, ...]:
    """The row in five cells: the times in one, the counts in another, the remedy under the cause."""
    fault, cause, remedy, harm = row[0], row[7], row[8], row[9]
    return fault, between.join(row[1:4]), between.join(row[4:7]), f"{cause}\n{remedy}", harm


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def kinds_table() -> Table:
    """The kinds with their right answers and bounds."""
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for head in ("kind", "what", "cause", "remedy", "severity", "detect", "recover"):
        out.add_column(head)
    for f in KINDS.values():
        bounds = ("-", "-", "-") if f.control else (f.severity, f"{f.detect:g} s", f"{f.recover:g} s")
        out.add_row(f.kind, f.title, " or ".join(f.causes) or "none", " or ".join(f.remedies) or "none", *bounds)
    return out


def by_kind(said: Mapping[str, Any]) -> Table:
    """Of many seeds: how often each kind was named rightly, and the medians of the seconds beside their bounds."""
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for head in ("kind", "runs", "cause first", "in first two", "right remedy", "detect", "recover", "lost"):
        out.add_column(head, justify="left" if head == "kind" else "right")
    for kind, row in said["kinds"].items():
        detect, recover = (f"{_seconds(row[n])} / {row[n + '_bound']:g}" for n in ("detect", "recover"))
        counts = (str(row[name]) for name in ("runs", "first", "first_two", "remedy"))
        out.add_row(kind, *counts, detect, recover, str(row["failed"]))
    return out


def score_table(said: Mapping[str, Any], others: Mapping[str, Mapping[str, float | None]]) -> Table:
    """What many drills come to, beside what simpler operators would have made of the same incidents."""
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for head in ("", "cause first", "in first two", "remedy", "harm", "controls acted on"):
        out.add_column(head, justify="left" if not head else "right")
    of = said["first"]["of"]
    columns = ("first", "first_two", "remedy", "harmful_acts", "controls_acted_on")
    out.add_row(
        f"leptonai, {of} faults",
        *(_percent(said[name]["share"]) for name in columns),
        style="bold",
    )
    for name, row in others.items():
        out.add_row(name, _percent(row["cause"]), "", _percent(row["remedy"]), _percent(row["harm"]), "")
    if said["unfelt"]["of"]:
        unfelt = said["unfelt"]
        out.caption = f"{unfelt['of']} more that nobody could notice; {unfelt['count']} of them were told of"
    return out


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
