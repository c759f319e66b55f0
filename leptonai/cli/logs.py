"""unmask, and what `leptonai logs --search` does: kept lines of everything that runs."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, clock, json_option, print_json
from leptonai.errors import NotFound, SpecError

if TYPE_CHECKING:
    from leptonai.client import Client
    from leptonai.types import LogEntry

PAGE = 500  # lines asked for at once
_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(s|min|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def moment(text: str | None) -> float:
    """Unix seconds of ``15m`` ago, of an ISO time (local unless it says otherwise), or of unix seconds; 0 for None."""
    if text is None:
        return 0.0
    if ago := _AGO.fullmatch(text.strip()):
        return time.time() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise SpecError(f"--since is {text!r}", hint="write 15m, 2h, 1d, or 2026-01-31T12:00:00") from None


def find(
    client: Client, text: str, service: str, template: int, level: str, since: float, lines: int
) -> list[LogEntry]:
    """The newest ``lines`` that match, oldest first."""
    found: list[LogEntry] = []
    before: int | None = None
    while len(found) < lines:
        page = client.search_logs(
            text, service=service, template=template, level=level, since=since, before=before,
            limit=min(PAGE, lines - len(found)),
        )  # fmt: skip
        found += page.items
        before = page.next
        if before is None:
            break
    return found[::-1]


def tell(entry: LogEntry) -> str:
    """One line for a terminal: nothing in it can steer one."""
    from leptonai.ops.logs.parse import clean
    from leptonai.ops.logs.query import level_name

    who = entry.source.get("replica") or entry.source.get("host") or ""
    level = level_name(entry.severity).upper()
    return clean(f"{clock(entry.at)} {entry.service} {who} {level:<5} {entry.body}".replace("  ", " "))


@click.command()
@click.argument("token")
@json_option
@click.pass_obj
def unmask(session: Session, token: str, as_json: bool) -> None:
    """Turn a mark like <email:...>, or a text with such marks, back into what it stands for.

    Works on the machine of the platform only: the vault never leaves it.

    \b
    Example:
      leptonai unmask '<email:abcdefghijklmno>'
    """
    from leptonai.ops.logs.parse import clean
    from leptonai.ops.logs.privacy import Masker

    path = session.folder().path / "logs-store" / "vault.json"
    if not path.exists():
        raise NotFound(f"there is no vault {path}", hint="run this on the platform's machine, as its owner")
    shown = Masker.open(path).unmask(token)
    if shown == token:
        raise NotFound(
            f"the vault knows nothing of {token[:80]!r}",
            hint="a mark is written whole, <kind:letters>; a new one is known some seconds after it was made",
        )
    if as_json:
        print_json({"text": shown})
    else:
        click.echo(clean(shown))
