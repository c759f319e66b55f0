"""alerts, silence, ack: what fires, who is told, and how to keep it quiet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, ago, clock, json_option, key_of, print_json, print_table, workspace_option

if TYPE_CHECKING:
    from leptonai.types import Alert, Silence


def seconds(ctx: click.Context, option: click.Parameter, text: str) -> float:
    from leptonai.serve.units import duration

    try:
        return duration(text)
    except ValueError as e:
        raise click.BadParameter(str(e)) from None


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def alerts(ctx: click.Context, as_json: bool) -> None:
    """List alerts: what fires, since when, why, and whether somebody is told.

    \b
    Example:
      leptonai alerts
      leptonai alerts rules digits > digits-rules.yml
    """
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    with session.client() as client:
        found = client.alerts()
    if as_json:
        print_json(found)
        return
    now = time.time()
    columns = ["STATE", "SEVERITY", "ALERT", "OF", "SINCE", "WHY", "TOLD"]
    rows = [
        [
            a.state + (" (flapping)" if a.flapping else ""),
            a.labels.get("severity", ""),
            a.labels.get("alertname", ""),
            of(a),
            f"{ago(a.since, now)} ago",
            a.summary,
            told(a),
        ]
        for a in found
    ]
    print_table(columns, rows, "Nothing fires.")


def told(alert: Alert) -> str:
    """Who is told, a star at those who know; or why nobody is."""
    names = ", ".join(f"{name}*" if name in alert.told else name for name in alert.receivers)
    said = f"nobody: {alert.muted}" if alert.muted else names or "nobody: no receiver is set"
    return f"{said}; taken by {alert.acked}" if alert.acked else said


def of(alert: Alert) -> str:
    labels = alert.labels
    return labels.get("service") or labels.get("external") or labels.get("host") or ""


@alerts.command()
@click.argument("name", required=False)
@click.option("--scrape", callback=seconds, default="15s", metavar="TIME", help="Between two scrapes.  [default: 15s]")
@workspace_option
@json_option
@click.pass_obj
def rules(session: Session, name: str | None, scrape: float, workspace: str | None, as_json: bool) -> None:
    """Print Prometheus alert rules for the promises of one service, or of all.

    \b
    Example:
      leptonai alerts rules digits --scrape 30s > digits-rules.yml
    """
    with session.client() as client:
        text = client.alert_rules(key_of(name, workspace) if name else None, scrape)
    if as_json:
        import msgspec

        print_json(msgspec.yaml.decode(text))
    else:
        click.echo(text, nl=False)


@click.group()
def silence() -> None:
    """Keep alerts quiet for a while, list and end silences.

    \b
    Example:
      leptonai silence create 'service="digits"' --for 2h --comment "a new disk"
    """


@silence.command()
@click.argument("matchers", nargs=-1, required=True, metavar="MATCHER...")
@click.option("--for", "length", callback=seconds, default="1h", metavar="TIME", help="How long.  [default: 1h]")
@click.option("--comment", required=True, metavar="TEXT", help="Why nobody is to be told.")
@click.option("--until-resolved", is_flag=True, help="End sooner, once what it muted has resolved.")
@json_option
@click.pass_obj
def create(
    session: Session, matchers: tuple[str, ...], length: float, comment: str, until_resolved: bool, as_json: bool
) -> None:
    """Tell nobody of alerts that agree with all MATCHERs: label=value, label!=value, label=~pattern, label!~pattern.

    \b
    Example:
      leptonai silence create 'service=~"shop.*"' severity=warning --for 1d --comment "known"
    """
    with session.client() as client:
        made = client.silence(matchers, length, comment, until_resolved=until_resolved)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Silence {made.id} holds until {clock(made.ends)}: {spelled(made)}.")


@silence.command()
@click.option("--all", "over", is_flag=True, help="Those that are over, too.")
@json_option
@click.pass_obj
def ls(session: Session, over: bool, as_json: bool) -> None:
    """List silences, newest first.

    \b
    Example:
      leptonai silence ls
    """
    with session.client() as client:
        found = client.silences(over)
    if as_json:
        print_json(found)
        return
    rows = [[str(s.id), spelled(s), clock(s.starts), clock(s.ends), s.by, s.comment] for s in found]
    print_table(["SILENCE", "MATCHERS", "FROM", "UNTIL", "BY", "WHY"], rows, "Nothing is silenced.")


@silence.command()
@click.argument("number", type=int)
@json_option
@click.pass_obj
def end(session: Session, number: int, as_json: bool) -> None:
    """End a silence now.

    \b
    Example:
      leptonai silence end 3
    """
    with session.client() as client:
        found = client.end_silence(number)
    if as_json:
        print_json(found)
    else:
        click.echo(f"Silence {number} is over.")


def spelled(silence: Silence) -> str:
    return ", ".join(f'{m.label}{m.op}"{m.value}"' for m in silence.matchers)


@click.command()
@click.argument("incident", type=int)
@click.option("--comment", default="", metavar="TEXT", help="What you are about to do.")
@json_option
@click.pass_obj
def ack(session: Session, incident: int, comment: str, as_json: bool) -> None:
    """Take an incident: you see to it, nobody else is called.

    \b
    Example:
      leptonai ack 3 --comment "looking at the disk"
    """
    with session.client() as client:
        made = client.ack(incident, comment)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Incident {incident} is yours; it is not escalated any further.")
