"""detect: anomalies in a CSV file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import json_option, print_json, print_table

if TYPE_CHECKING:
    from leptonai.ops.detect.file import Found, Measures

SHOWN = 50  # anomalies in the table; --json has all


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--value", metavar="COL", help="Column of the values, by name or number; else value, or the last numeric."
)
@click.option("--time", metavar="COL", help="Column of the times; else the one that looks like it.")
@click.option("--label", metavar="COL", help="Column that says which rows are anomalous: measures are printed.")
@click.option("--range", "span", metavar="LO:HI", help="Least and greatest value, where known in advance.")
@click.option("--rows", type=click.IntRange(1), help="Number of rows, where known in advance.")
@click.option("--scores", type=click.Path(path_type=Path), help="Write timestamp,value,score,range_score here.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the series and its anomalies (extra: plot).")
@json_option
def detect(
    file: Path,
    value: str | None,
    time: str | None,
    label: str | None,
    span: str | None,
    rows: int | None,
    scores: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Find anomalies in the rows of a CSV file, each judged by the rows before it alone.

    \b
    Example:
      leptonai detect taxi.csv --plot taxi.png
      leptonai detect press.csv --value temperature --label fault --scores out.csv
    """
    from rich.console import Console
    from rich.progress import Progress

    from leptonai.ops.detect.file import detect_file
    from leptonai.ops.detect.stream import Hints

    low, high = bounds(span)
    if plot is not None:
        from leptonai.ops.detect.picture import plot as draw
        from leptonai.ops.detect.picture import require

        require()
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
        size = file.stat().st_size if file.is_file() else None
        task = bar.add_task(f"Reading {file.name}", total=size)
        found = detect_file(
            file,
            value=value,
            time=time,
            label=label,
            hints=Hints(low, high, rows),
            scores=scores,
            progress=lambda position: bar.update(task, completed=position),
        )
    if plot is not None:
        draw(found, plot)
    if as_json:
        print_json(document(found))
    else:
        show(found)


def bounds(span: str | None) -> tuple[float | None, float | None]:
    from leptonai.errors import SpecError

    if span is None:
        return None, None
    low, colon, high = span.partition(":")
    try:
        pair = float(low), float(high)
    except ValueError:
        pair = math.nan, math.nan
    if not colon or not all(map(math.isfinite, pair)):
        raise SpecError(f"range {span!r} is not LO:HI", hint="two numbers, as in --range 0:100")
    return pair


def document(found: Found) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "columns": found.table.names,
        "odd": found.table.odd,
        "anomalies": [
            {
                "row": a.row,
                "last_row": a.last_row,
                "began": a.began,
                "last": a.last,
                "value": None if math.isnan(a.value) else a.value,
                "score": a.score,
            }
            for a in found.anomalies
        ],
        "measures": found.measures.document() if found.measures else None,
    }


def show(found: Found) -> None:
    names = found.table.names
    when = f"time from {names['time']}" if names["time"] else "no time column"
    click.echo(f"{found.table.path}: {found.rows:,} rows, value from {names['value']}, {when}")
    for what, many in found.table.odd.items():
        click.echo(f"note: {many:,} {what}", err=True)
    worst = sorted(found.anomalies, key=lambda a: -a.score)[:SHOWN]
    table = [
        [a.began, str(a.row), str(a.last_row - a.row + 1), f"{a.value:.6g}", f"{a.score:.1f}"]
        for a in sorted(worst, key=lambda a: a.row)
    ]
    print_table(["BEGAN", "ROW", "ROWS", "VALUE", "SCORE"], table, "No anomaly found.")
    if len(found.anomalies) > SHOWN:
        click.echo(f"... the {SHOWN} worst of {len(found.anomalies)}; --json has all")
    if found.measures:
        tell(found.measures)


def tell(m: Measures) -> None:
    r = m.rows
    click.echo(f"windows found {m.windows_found} of {m.windows}")
    click.echo(f"rows: precision {r.precision:.3f}  recall {r.recall:.3f}  F1 {r.f1:.3f}")
    print_table(
        ["", "SAID ANOMALOUS", "SAID NORMAL"],
        [["labelled anomalous", str(r.tp), str(r.fn)], ["labelled normal", str(r.fp), str(r.tn)]],
        "",
    )
    click.echo(f"VUS-PR: {spell(m.vus_pr)} (range_score), {spell(m.vus_pr_score)} (score)")
    print_table(
        ["NAB PROFILE", "AT OUR THRESHOLD", "AT THE BEST"],
        [[name, f"{m.nab[name]:.1f}", f"{m.nab_best[name]:.1f}"] for name in m.nab],
        "",
    )


def spell(x: float) -> str:
    return "not computed" if math.isnan(x) else f"{x:.3f}"
