"""incidents, report: what went wrong, why, and what was done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, ago, json_option, print_json, print_table
from leptonai.errors import NotFound

if TYPE_CHECKING:
    from leptonai.client import Client
    from leptonai.types import Incident


@click.command()
@click.argument("number", type=int, required=False)
@click.option("--open/--all", "only_open", default=False, help="Only open ones; by default all, newest first.")
@json_option
@click.pass_obj
def incidents(session: Session, number: int | None, only_open: bool, as_json: bool) -> None:
    """List incidents, or show one; as JSON, whole and as it is recorded.

    \b
    Example:
      leptonai incidents --open
      leptonai incidents 3
    """
    with session.client() as client:
        if number is not None:
            found = client.incident(number)
            if as_json:
                print_json(found)
            else:
                tell(found, "text")
            return
        listed = client.incidents(True if only_open else None)
    if as_json:
        print_json(listed)
        return
    now = time.time()
    rows = [[str(i.id), state(i), i.severity, i.title, cause(i), remedy(i), ago(i.opened, now)] for i in listed]
    columns = ["incident", "state", "severity", "what", "cause", "remedy", "ago"]
    print_table(columns, rows, "No incident is open." if only_open else "No incident so far.")


def state(incident: Incident) -> str:
    if incident.closed is not None:
        return "closed"
    if incident.escalated is not None:
        return "escalated"
    return "mitigated" if incident.mitigated is not None else "open"


def cause(incident: Incident) -> str:
    if not incident.causes:
        return "-"
    first = incident.causes[0]
    return f"{first.name} ({first.confidence:.0%})"


def remedy(incident: Incident) -> str:
    if not incident.actions:
        return "-"
    last = incident.actions[-1]
    return f"{last.remedy} ({last.verdict or 'being verified'})"


@click.command()
@click.argument("number", type=int, required=False)
@click.option("--format", type=click.Choice(["text", "markdown"]), default="text", show_default=True, help="Spelling.")
@click.option("--language", default="en", show_default=True, metavar="CODE", help="en is the only one so far.")
@json_option
@click.pass_obj
def report(session: Session, number: int | None, format: str, language: str, as_json: bool) -> None:
    """Tell an incident in plain language, each sentence backed by evidence; by default the newest one.

    \b
    Example:
      leptonai report 3 --format markdown
    """
    with session.client() as client:
        found = client.incident(number) if number is not None else newest(client)
    tell(found, "json" if as_json else format, language)


def tell(incident: Incident, format: str, language: str = "en") -> None:
    from leptonai.ops import report as reports

    click.echo(reports.report(incident, format, language).rstrip("\n"))


def newest(client: Client) -> Incident:
    found = client.incidents()
    if not found:
        raise NotFound("there is no incident to report", hint="`leptonai incidents` lists them")
    return found[0]
