"""issues: complaints of users that say the same, who sees to them, and whether the repair helped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, ago, clock, json_option, key_of, print_json, print_table, workspace_option
from leptonai.errors import SpecError

if TYPE_CHECKING:
    from leptonai.types import Issue

STATES = ("open", "in_work", "fixed", "closed")


@click.command()
@click.argument("number", type=int, required=False)
@click.option("--service", metavar="NAME", help="Only of this service.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state; with NUMBER, it is in this state now.")
@click.option("--owner", metavar="NAME", help="Who sees to it.")
@click.option("--revision", type=int, metavar="N", help="The revision that repairs it: its state is fixed.")
@click.option("--note", metavar="TEXT", help="In your words.")
@workspace_option
@json_option
@click.pass_obj
def issues(
    session: Session,
    number: int | None,
    service: str | None,
    state: str | None,
    owner: str | None,
    revision: int | None,
    note: str | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """List what users complain of, show one, or say who sees to it and which revision repairs it.

    \b
    Example:
      leptonai issues --state open
      leptonai issues 3 --owner ana --state in_work
      leptonai issues 3 --revision 5
    """
    import msgspec

    from leptonai.client.wire import IssueRequest

    if number is None and (owner, revision, note) != (None, None, None):
        raise SpecError("which issue?", hint="leptonai issues NUMBER --owner NAME")
    with session.client() as client:
        if number is None:
            listed = client.issues(key_of(service, workspace) if service else None, state)
            if as_json:
                print_json(listed)
            else:
                show(listed)
            return
        given = {
            "state": "fixed" if revision is not None else state,
            "owner": owner,
            "revision": revision,
            "note": note,
        }
        if any(v is not None for v in given.values()):
            found = client.change_issue(number, msgspec.convert(given, IssueRequest))
        else:
            found = client.issue(number)
    if as_json:
        print_json(found)
    else:
        for line in tell(found):
            click.echo(line)


def show(found: list[Issue]) -> None:
    now = time.time()
    rows = [
        [str(i.id), i.service, i.state.replace("_", " "), str(i.count), ago(i.last, now), i.owner or "-", i.title]
        for i in found
    ]
    print_table(["issue", "service", "state", "complaints", "last", "owner", "what"], rows, "Nobody complains.")


def tell(issue: Issue) -> list[str]:
    """One issue in lines."""
    lines = [
        f"Issue {issue.id} of {issue.service}: {issue.title}",
        f"{issue.count} complaints from {clock(issue.first)} to {clock(issue.last)}; words: {', '.join(issue.terms)}",
        f"state {issue.state.replace('_', ' ')}, owner {issue.owner or 'nobody'}",
    ]
    if issue.fixed is not None:
        lines.append(f"revision {issue.revision} repairs it, said at {clock(issue.fixed)}")
    if issue.note:
        lines.append(issue.note)
    return [*lines, *(f"  - {text}" for text in issue.examples[::-1])]
