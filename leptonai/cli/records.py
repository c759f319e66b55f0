"""logs, why, feedback: what was written, what was decided, what users say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import Number, Session, clock, json_option, key_of, print_json, workspace_option
from leptonai.errors import SpecError

if TYPE_CHECKING:
    from leptonai.types import LogLine

FOLLOW = 0.5  # seconds between two looks of --follow


@click.command()
@click.argument("name", required=False)
@click.option("--replica", metavar="ID", help="Only this replica.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="How many lines at most.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is written, until Ctrl-C.")
@click.option("--search", metavar="TEXT", help="Look for a part of a line in all that is kept, masked.")
@click.option("--since", metavar="WHEN", help="Search: not older than 15m, 2h, 1d, or an ISO time.")
@click.option("--service", metavar="NAME", help="Search: of this service, ours or a foreign one.")
@click.option("--template", type=click.IntRange(1), metavar="ID", help="Search: lines of this template.")
@click.option("--level", metavar="LEVEL", help="Search: this level or worse: debug, info, warn, error.")
@workspace_option
@json_option
@click.pass_obj
def logs(
    session: Session,
    name: str | None,
    replica: str | None,
    lines: int,
    follow: bool,
    search: str | None,
    since: str | None,
    service: str | None,
    template: int | None,
    level: str | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Print what the replicas of a service wrote, oldest first; or search all that is kept.

    \b
    Example:
      leptonai logs digits -f
      leptonai logs --search timeout --since 2h --level warn
    """
    about = service or name or ""
    if name is None or any(o is not None for o in (search, since, service, template, level)):
        if follow or replica is not None:
            raise SpecError("--follow and --replica are not for a search", hint="leave them out, or name a service")
        from leptonai.cli.logs import find, moment, tell

        whose = key_of(about, workspace) if about else ""
        with session.client() as client:
            kept = find(client, search or "", whose, template or 0, level or "", moment(since), lines)
        if as_json:
            print_json(kept)
        else:
            for entry in kept:
                click.echo(tell(entry))
        return
    key = key_of(name, workspace)
    with session.client() as client:
        found = client.logs(key, replica, limit=lines)
        if as_json and not follow:
            print_json(found)
            return
        show(found, as_json)
        seen = set(found)
        while follow:
            time.sleep(FOLLOW)
            newest = max((line.at for line in seen), default=0.0)
            fresh = [line for line in client.logs(key, replica, since=newest) if line not in seen]
            show(fresh, as_json)
            seen = {line for line in seen if line.at >= newest} | set(fresh)


def show(lines: list[LogLine], as_json: bool) -> None:
    import msgspec

    from leptonai.ops.logs.parse import clean

    for line in lines:
        text = msgspec.json.encode(line).decode() if as_json else clean(f"{clock(line.at)} {line.replica} {line.text}")
        click.echo(text)


@click.command()
@click.argument("name")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many events.")
@workspace_option
@json_option
@click.pass_obj
def why(session: Session, name: str, limit: int, workspace: str | None, as_json: bool) -> None:
    """What was decided about a service, oldest first, each with the numbers it was decided from.

    \b
    Example:
      leptonai why digits
    """
    with session.client() as client:
        events = client.why(key_of(name, workspace), limit=limit)
    if as_json:
        print_json(events)
        return
    if not events:
        click.echo(f"Nothing was decided about {name} yet.")
    for event in events:
        said = event.detail.get("said") if event.kind == "scale.decided" else None
        click.echo(f"{clock(event.at)}  {event.kind:<20} {event.actor:<12} {said or terms(event.detail)}")


def terms(detail: dict[str, Any]) -> str:
    """The terms of a decision on one line; what is empty says nothing."""
    if "findings" in detail:  # of a rollout: in words first, then each measure with its numbers
        lines = [str(detail["text"])]
        for found in detail["findings"]:
            numbers = "  ".join(f"{k}={spell(v)}" for k, v in found["numbers"].items())
            lines.append(f"    {found['measure']:<8} {found['verdict']}: {found['text']}  [{numbers}]")
        return "\n".join(lines)
    return "  ".join(f"{k}={spell(v)}" for k, v in detail.items() if v not in (None, "", [], {}))


def spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "; ".join(str(v) for v in value)
    return str(value)


@click.command()
@click.argument("about")
@click.option("--service", metavar="NAME", default="", help="The service that was asked.")
@click.option("--label", metavar="VALUE", help="What the right answer is, as JSON or plain text.")
@click.option("--rating", type=Number(), help="How good it was, on your scale.")
@click.option("--verdict", metavar="WORD", help="Of an incident: right, wrong, noise ...")
@click.option("--note", metavar="TEXT", default="", help="In your words.")
@json_option
@click.pass_obj
def feedback(
    session: Session,
    about: str,
    service: str,
    label: str | None,
    rating: float | None,
    verdict: str | None,
    note: str,
    as_json: bool,
) -> None:
    """Say how right a prediction was (ABOUT is its x-request-id), or an incident (ABOUT is incident:N).

    \b
    Example:
      leptonai feedback 0b7c9b6e-41d3 --service digits --label 7
      leptonai feedback incident:3 --verdict wrong --note "it was the network"
    """
    import msgspec

    from leptonai.client.wire import FeedbackRequest

    value: Any = None
    if label is not None:
        try:
            value = msgspec.json.decode(label)
        except msgspec.DecodeError:
            value = label
    item = FeedbackRequest(about=about, service=service, label=value, rating=rating, verdict=verdict, note=note)
    with session.client() as client:
        accepted = client.send_feedback([item])
    if as_json:
        print_json({"accepted": accepted})
    else:
        click.echo("Noted.")
