"""import: a service from a bundle, or samples from a file."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import Session, json_option, print_json

BATCH = 20_000  # samples a request


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--time", metavar="COLUMN", help="The column of times; found by its name unless given.")
@click.option(
    "--label", "labels", multiple=True, metavar="COLUMN", help="A column that tells series apart. Repeatable."
)
@click.option("--prefix", default="", metavar="TEXT", help="Put in front of every column's name.")
@click.option("--workspace", metavar="NAME", default="default", show_default=True, help="Whose telemetry it is.")
@json_option
@click.pass_obj
def import_(
    session: Session,
    file: Path,
    time: str | None,
    labels: tuple[str, ...],
    prefix: str,
    workspace: str,
    as_json: bool,
) -> None:
    """Read FILE into the platform: a bundle of `leptonai export bundle`, or samples as CSV or Parquet.

    A bundle's service is served with its past: revisions, dials, closed incidents, feedback. Of samples, each column
    of numbers becomes a series of its name.

    \b
    Example:
      leptonai import digits.bundle.tar
      leptonai import press.csv --time when --label line
    """
    from leptonai.cli import bundle

    if bundle.is_bundle(file):
        moved, head = bundle.read(session, file)
        if as_json:
            print_json(head)
            return
        past = f"{len(moved.revisions)} revisions, {len(moved.incidents)} incidents, {len(moved.feedback)} feedback"
        click.echo(f"{moved.service} revision {head.number} is served here, with {past}")
        return
    from rich.console import Console
    from rich.progress import Progress

    from leptonai.ops.sheet import read_sheet
    from leptonai.platforms.prometheus.encode import encode, label_bytes

    sheet = read_sheet(file, time, labels, prefix)
    total = sum(len(s.at) for _, _, s in sheet.series)
    with session.client() as client, Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task(f"Importing {file.name}", total=total)
        for name, own, samples in sheet.series:
            known = label_bytes(name, own)
            for start in range(0, len(samples.at), BATCH):
                part = slice(start, start + BATCH)
                pairs = list(zip(samples.at[part].tolist(), samples.value[part].tolist(), strict=True))
                client.import_samples(encode([(known, pairs)]), workspace)
                bar.update(task, advance=len(pairs))
        client.import_samples(b"", workspace)
    if as_json:
        print_json({"series": len(sheet.series), "samples": total, "counts": sheet.counts})
        return
    for what, n in sheet.counts.items():
        click.echo(f"note: {n:,} {what}", err=True)
    click.echo(f"{file}: {total:,} samples of {len(sheet.series):,} series are in workspace {workspace}")
