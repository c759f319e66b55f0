"""proposals, approve: changes that were proposed."""

from __future__ import annotations

import time

import click

from leptonai.cli.session import Session, ago, json_option, print_json, print_table
from leptonai.errors import SpecError


@click.command()
@click.option("--status", type=click.Choice(["pending", "admitted", "denied", "expired"]), help="Only these.")
@json_option
@click.pass_obj
def proposals(session: Session, status: str | None, as_json: bool) -> None:
    """List proposed changes, newest first: by people, by the autoscaler, by incident response.

    \b
    Example:
      leptonai proposals --status pending
    """
    with session.client() as client:
        found = client.proposals(status)
    if as_json:
        print_json(found)
        return
    now = time.time()
    rows = [[p.id, p.status, p.service, p.by, p.why, "; ".join(p.reasons), ago(p.at, now)] for p in found]
    columns = ["proposal", "status", "service", "by", "why", "what", "ago"]
    print_table(columns, rows, "No such proposal." if status else "Nothing was proposed yet.")


@click.command()
@click.argument("proposal")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def approve(session: Session, proposal: str, yes: bool, as_json: bool) -> None:
    """Approve a proposal that waits for it. What you approve is the change you are shown, and nothing else.

    \b
    Example:
      leptonai approve p-3f9c2a7b1d04
    """
    with session.client() as client:
        found = client.proposal(proposal)
        if not yes:
            click.echo(f"{found.service}, proposed by {found.by}: {found.why}", err=True)
            for reason in found.reasons:
                click.echo(f"  {reason}", err=True)
            click.echo(f"  hash {found.hash[:12]}", err=True)
            if not agreed():
                click.echo(f"Not approved: {found.id} is {found.status} as before.", err=True)
                raise click.exceptions.Exit(1)
        done = client.approve(found)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done.id} is {done.status}.")


def agreed() -> bool:
    """Whether a person says yes. SpecError where nobody is there to be asked."""
    try:
        return click.confirm("Approve this change?", err=True)
    except click.Abort as e:
        if isinstance(e.__context__, KeyboardInterrupt):
            raise
        click.echo(err=True)
        raise SpecError("nobody answered whether to approve it", hint="--yes approves what is shown") from e
