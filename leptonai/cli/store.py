"""store: moving the store of a platform."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import json_option, print_json
from leptonai.errors import NotFound


@click.group()
def store() -> None:
    """The store of a platform that is down: its wishes, its incidents, its audit log.

    \b
    Example:
      leptonai store copy ~/.leptonai/store.db postgresql://leptonai@db.example/leptonai
    """


@store.command()
@click.argument("source")
@click.argument("target")
@json_option
def copy(source: str, target: str, as_json: bool) -> None:
    """Copy the store SOURCE into the empty TARGET: each a file, or postgresql://... .

    Line for line, in one transaction; the audit log is checked in both. SOURCE is left as it is. Stop the platform
    first; afterwards name TARGET in settings.yaml as `store: {url: ...}`.

    \b
    Example:
      leptonai store copy ~/.leptonai/store.db postgresql://leptonai@db.example/leptonai
    """
    from leptonai.store import Store
    from leptonai.store.copy import copy as run

    if "://" not in source and not Path(source).is_file():
        raise NotFound(f"there is no store {source}", hint="it is <home>/store.db, or a URL like postgresql://...")
    with Store(source) as old, Store(target) as new:
        counts = run(old, new)
        broken = new.check_chain()
        where = new.place
    if as_json:
        print_json({"rows": counts, "broken": broken})
        return
    rows = ", ".join(f"{n:,} {table}" for table, n in counts.items() if n)
    click.echo(f"{where} holds {rows or 'nothing: there was nothing'}.")
    if broken is None:
        click.echo("The audit log is whole.")
    else:
        click.echo(f"note: the audit log was edited at line {broken}, and is so in the copy.", err=True)
