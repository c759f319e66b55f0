"""wait, promote: how a new version on probation ends."""

from __future__ import annotations

import click

from leptonai.cli.services import why_option
from leptonai.cli.session import Number, Session, json_option, key_of, print_json, waiting, workspace_option

EXITS = {"promoted": 0, "rolled back": 10, "not enough evidence": 11}


@click.command()
@click.argument("name")
@click.option("--judged", is_flag=True, help="Until the rollout under way is promoted or rolled back.")
@click.option("--revision", type=click.IntRange(1), help="Of --judged: this one, even when it was judged before.")
@click.option("--timeout", type=Number(0, min_open=True), metavar="SECONDS", help="Wait at most this long.")
@workspace_option
@json_option
@click.pass_context
def wait(
    context: click.Context,
    name: str,
    judged: bool,
    revision: int | None,
    timeout: float | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Wait until all wanted replicas of a service are ready; with --judged, until its rollout is over.

    With --judged it exits with 0 when the new version was promoted, with 10 when it was rolled back or superseded,
    and with 11 when there was not enough evidence before --timeout (by default, none).

    \b
    Example:
      leptonai wait digits --judged --timeout 3600
    """
    session: Session = context.obj
    key = key_of(name, workspace)
    with session.client() as client, waiting(as_json) as say:
        if not judged:
            view = client.wait_ready(key, timeout, report=lambda progress: say(progress.text))
            print_json(view) if as_json else click.echo(f"{key}: {view.status}.")
            return
        verdict = client.wait_judged(key, timeout, report=say, revision=revision)
    if as_json:
        print_json(verdict)
    else:
        click.echo(f"{key} revision {verdict.revision}: {verdict.outcome}. {verdict.why}".rstrip())
        if verdict.outcome == "not enough evidence":
            ends = f"`leptonai promote {key}` ends it well, `leptonai undo {key}` takes it back"
            click.echo(f"It goes on with every request: `leptonai why {key}` shows what is missing; {ends}.")
    context.exit(EXITS[verdict.outcome])


@click.command()
@click.argument("name")
@click.option("--to", type=Number(0, 100, min_open=True), metavar="PERCENT", help="This share only.")
@workspace_option
@why_option
@json_option
@click.pass_obj
def promote(session: Session, name: str, to: float | None, workspace: str | None, why: str, as_json: bool) -> None:
    """Move the rollout of a service on by hand: to its end, or with --to to a share of the requests.

    What convicts a version still takes it back. `leptonai undo` ends a rollout the other way.

    \b
    Example:
      leptonai promote digits --to 25
      leptonai promote digits
    """
    key = key_of(name, workspace)
    with session.client() as client, waiting(as_json) as say:
        view = client.promote(key, None if to is None else to / 100, why=why, report=say)
    if as_json:
        print_json(view)
    else:
        click.echo(f"{key} revision {view.service.revision}: {view.status}.")
