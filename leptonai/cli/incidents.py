"""incidents: what went wrong, why, and what was done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, ago, json_option, print_json, print_table

if TYPE_CHECKING:
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
    from leptonai.cli.report import tell

    with session.client() as client:
        if number is not None:
            found = client.incident(number)
            if as_json:
                print_json(found)
            else:
                tell(client, found)
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
    from leptonai.ops.incidents import said_of

    last = incident.actions[-1]
    return f"{last.remedy} ({said_of(last)})"
