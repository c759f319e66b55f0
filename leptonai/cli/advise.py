"""advise: where a service ends, at which load, and the change that moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, json_option, key_of, print_json, print_table, workspace_option
from leptonai.errors import NotFound, SpecError

if TYPE_CHECKING:
    from leptonai.client.advice import Advice, Limit

WAITS = 86400.0  # seconds that a proposal of the advisor waits for approval


@click.command()
@click.argument("name", metavar="[SERVICE]", required=False)
@click.option("--last", default="1h", show_default=True, metavar="TIME", help="Telemetry looked at, as 90min, 24h, 7d.")
@click.option("--propose", is_flag=True, help="Put the change to the door; it waits for `leptonai approve`.")
@workspace_option
@json_option
@click.pass_obj
def advise(session: Session, name: str | None, last: str, propose: bool, workspace: str | None, as_json: bool) -> None:
    """The first limit of a service (or of each), the load at which it bites, and the change that moves it.

    Loads are requests a second. Each limit comes with its 90 % interval, or with what is missing to tell it.

    \b
    Example:
      leptonai advise
      leptonai advise digits --last 24h
      leptonai advise digits --propose
    """
    from leptonai.cli.availability import stretch

    seconds = stretch(last)
    if propose and name is None:
        raise SpecError("--propose needs a service", hint="leptonai advise SERVICE --propose")
    with session.client() as client:
        if name is None:
            found = [client.advice(view.service.key, seconds) for view in client.services(workspace)]
            if as_json:
                print_json(found)
            else:
                print_table(["service", "peak", "first limit", "bites at", "90 % interval", "room"], rows(found),
                            "No service yet.")  # fmt: skip
            return
        advice = client.advice(key_of(name, workspace), seconds)
        if propose:
            _propose(client, advice, as_json)
        elif as_json:
            print_json(advice)
        else:
            _show(advice)


def _propose(client: object, advice: Advice, as_json: bool) -> None:
    from leptonai.client import Client

    assert isinstance(client, Client)
    change = advice.proposal
    if change is None:
        why = advice.told or "; ".join(advice.cannot_tell)
        raise NotFound(f"there is no change to propose for {advice.service}: {why}", hint="see `leptonai advise`")
    first = advice.first
    assert first is not None
    why = f"{change.text}: {first.what} ends at {before(advice)}, expected then {change.after:.3g} requests/s"
    made = client.propose(change.change, why, expires_in=WAITS, ask="the advisor proposes it; a person decides")
    if as_json:
        print_json(made)
        return
    click.echo(f"{made.id} is {made.status}: {why}.")
    if made.status == "pending":
        click.echo(f"`leptonai approve {made.id}` lets it happen.")


def before(advice: Advice) -> str:
    first = advice.first
    return "-" if first is None or first.load is None else f"{first.load:.3g} requests/s"


def rows(found: list[Advice]) -> list[list[str]]:
    out = []
    for a in found:
        room = "-" if a.room is None else f"{a.room:.2g} x the peak"
        first = "cannot tell" if a.first is None else a.first.name
        out.append([a.service, f"{a.peak:.3g}", first, before(a), "" if a.first is None else interval(a.first), room])
    return out


def interval(limit: Limit) -> str:
    return "" if limit.low is None or limit.high is None else f"{limit.low:.3g} to {limit.high:.3g}"


def _show(a: Advice) -> None:
    if a.first is None:
        click.echo(f"{a.service}: where it ends cannot be told.")
    else:
        click.echo(
            f"{a.service} ends at {before(a)} ({interval(a.first)}): {a.first.what}. "
            f"The peak was {a.peak:.3g}, {a.room or 0:.2g} times as much is carried."
        )
    told = [x for x in a.limits if x.load is not None]
    table = [[x.name, f"{x.load:.3g}", interval(x), f"{x.first_share:.0%}", x.why] for x in told]
    if table:
        print_table(["limit", "requests/s", "90 % interval", "first", "why"], table, "")
    for text in a.cannot_tell:
        click.echo(f"cannot tell {text}")
    p = a.proposal
    if p is not None:
        need = "Advice" if p.needed else "When more is to come"
        click.echo(f"{need}: {p.text}; expected {p.after:.3g} requests/s ({p.gain:+.0%}), then {p.then} is first.")
        click.echo(f"`leptonai advise {a.service} --propose` asks for it.")
    elif a.told:
        click.echo(f"What would help: {a.told}.")
