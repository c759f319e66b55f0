"""templates: the events of a log file."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import Session, json_option, print_json, print_table
from leptonai.errors import SpecError

SHOWN = 20  # templates in the table; --json has all
WIDTH = 110  # characters of a template in the table


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Write line,template_id,template here.")
@click.option("--live", metavar="SERVICE", help="Instead of a file: what is mined of a service as it runs.")
@json_option
@click.pass_obj
def templates(session: Session, file: Path | None, out: Path | None, live: str | None, as_json: bool) -> None:
    """Mine the templates of a log: one message a line, what varies becomes <*>.

    \b
    Example:
      leptonai templates messages.txt --out templates.csv
      leptonai templates --live digits
    """
    if live is not None:
        if file is not None or out is not None:
            raise SpecError("--live is about a service, not about a file", hint="leave FILE and --out out")
        return show_live(session, live, as_json)
    if file is None or out is None:
        raise click.UsageError("FILE and --out are needed, or --live SERVICE.")
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


def show_live(session: Session, service: str, as_json: bool) -> None:
    from leptonai.ops.logs.query import level_name

    with session.client() as client:
        found = client.templates(service)
    if as_json:
        print_json(found)
        return
    rows = [[str(t.template_id), f"{t.count:,}", level_name(t.severity), shorten(t.template)] for t in found[:SHOWN]]
    print_table(["ID", "LINES", "LEVEL", "TEMPLATE"], rows, f"Nothing was mined of {service} yet.")
    if len(found) > SHOWN:
        click.echo(f"... the {SHOWN} most frequent of {len(found):,}; --json has all")


def shorten(text: str) -> str:
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return clean if len(clean) <= WIDTH else clean[: WIDTH - 1] + "…"
