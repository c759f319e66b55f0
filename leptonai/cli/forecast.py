"""forecast: what comes after the last row of a CSV file, with bands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from leptonai.cli.session import Number, json_option, print_json, print_table


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--value", metavar="COL", help="Column of the values, by name or number; else value, or the last numeric."
)
@click.option("--time", metavar="COL", help="Column of the times; else the one that looks like it.")
@click.option("--ahead", type=click.IntRange(1), default=24, show_default=True, help="Rows after the last one.")
@click.option("--limit", type=Number(), help="Say when the forecast reaches this value.")
@json_option
def forecast(file: Path, value: str | None, time: str | None, ahead: int, limit: float | None, as_json: bool) -> None:
    """Forecast a column of a CSV file, with the band that 8 of 10 values should fall into.

    \b
    Example:
      leptonai forecast requests.csv --ahead 288
      leptonai forecast disk.csv --value used_bytes --limit 5e11
    """
    from rich.console import Console
    from rich.progress import Progress

    from leptonai.ops.detect.ahead import forecast_file

    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task(f"Reading {file.name}", total=file.stat().st_size if file.is_file() else None)
        found = forecast_file(
            file, value=value, time=time, ahead=ahead, progress=lambda position: bar.update(task, completed=position)
        )
    reached = found.reaches(limit) if limit is not None else []
    if as_json:
        extra = {"limit": {str(level): h for level, h in zip(found.levels, reached, strict=True)}} if reached else {}
        print_json({**found.document(), **extra})
        return

    def when(at: float) -> str:
        known = found.table.time is not None and 1e8 < at < 1e11
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S") if known else f"{at:g}"

    season = ", ".join(f"{p:.4g}" for p in found.season) or "none"
    click.echo(f"{file}: {found.rows:,} rows, value from {found.table.names['value']}, season in rows: {season}")
    table = [
        [str(h), when(found.at(h)), f"{found.mean[i]:.6g}", *(f"{q:.6g}" for q in found.quantile[:, i])]
        for i, h in enumerate(found.horizon)
    ]
    print_table(["ROWS AHEAD", "AT", "MEAN", *(f"{level:.0%}" for level in found.levels)], table, "")
    for level, h in zip(found.levels, reached, strict=False):
        word = f"within {h} rows, by {when(found.at(h))}" if h is not None else f"not within {ahead} rows"
        click.echo(f"the {level:.0%} quantile reaches {limit:g} {word}")
