"""templates: the events of a log file."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import json_option, print_json, print_table

SHOWN = 20  # templates in the table; --json has all
WIDTH = 110  # characters of a template in the table


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Write line,template_id,template here.")
@json_option
def templates(file: Path, out: Path, as_json: bool) -> None:
    """Mine the templates of a log: one message a line, what varies becomes <*>.

    \b
    Example:
      leptonai templates messages.txt --out templates.csv
    """
    from rich.console import Console
    from rich.progress import Progress

    from leptonai.ops.logs.file import mine_file

    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task(f"Mining {file.name}", total=2 * file.stat().st_size if file.is_file() else None)
        mined = mine_file(file, out, lambda read: bar.update(task, completed=read))
    if as_json:
        found = [{"template_id": t.id, "count": t.count, "template": t.text} for t in mined.templates]
        print_json({"lines": mined.lines, "out": str(out), "odd": mined.odd, "templates": found})
        return
    for what, many in mined.odd.items():
        click.echo(f"note: {many:,} {what}", err=True)
    click.echo(f"{file}: {mined.lines:,} lines, {len(mined.templates):,} templates, written to {out}")
    rows = [
        [str(t.id), f"{t.count:,}", f"{100 * t.count / mined.lines:.1f} %", shorten(t.text)]
        for t in mined.templates[:SHOWN]
    ]
    print_table(["ID", "LINES", "SHARE", "TEMPLATE"], rows, "The file is empty.")
    if len(mined.templates) > SHOWN:
        click.echo(f"... the {SHOWN} most frequent of {len(mined.templates):,}; --json has all")


def shorten(text: str) -> str:
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return clean if len(clean) <= WIDTH else clean[: WIDTH - 1] + "…"
