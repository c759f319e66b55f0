"""What every command shares: which platform it talks to, and how it speaks."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from leptonai.client import Client, Home

F = TypeVar("F", bound=Callable[..., Any])
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
workspace_option = click.option(
    "--workspace", metavar="NAME", help="Workspace of the service; or write WORKSPACE/NAME."
)


class Number(click.FloatRange):
    """A finite number within the range, if there is one. Click alone takes nan for a number in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number.", param, ctx)
        return found

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()


@dataclass(frozen=True)
class Session:
    """``home``, ``host``, ``token``: as given on the command line; None: found as the client finds them."""

    home: str | None
    host: str | None
    token: str | None

    def client(self) -> Client:
        from leptonai.client import Client

        return Client(self.host, self.token, home=self.home)

    def folder(self) -> Home:
        from leptonai.client import find_home

        return find_home(self.home)


def key_of(name: str, workspace: str | None) -> str:
    """The key of the service that a person named as ``digits``, ``team/digits`` or ``digits --workspace team``."""
    from leptonai.types import DEFAULT_WORKSPACE, make_key

    return name if "/" in name else make_key(name, workspace or DEFAULT_WORKSPACE)


def print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: list[str], rows: list[list[str]], empty: str) -> None:
    """A table as wide as its words; ``empty`` is said when there are no rows."""
    if not rows:
        click.echo(empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 200  # a pipe has no width; lines must not be folded for one
    Console(width=width, highlight=False).print(table)


@contextmanager
def waiting(quiet: bool) -> Iterator[Callable[[str], None]]:
    """What is being waited for, on stderr: one line that changes on a terminal, a line per change elsewhere."""
    if quiet:
        yield lambda text: None
    elif sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("") as status:
            yield lambda text: status.update(text)
    else:
        yield lambda text: click.echo(f"... {text}", err=True)


def ago(then: float | None, now: float) -> str:
    """A time gone by in its largest unit, as a person would say it."""
    if then is None:
        return "-"
    gone = max(0.0, now - then)
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if gone >= 2 * size:
            return f"{gone / size:.0f} {unit}"
    return f"{gone:.0f} s"


def clock(at: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
