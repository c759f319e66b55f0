"""learnt: what reviews of incidents have changed, what that is worth, and how to take it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, clock, json_option, print_json, print_table

if TYPE_CHECKING:
    from leptonai.client.learnt import HeldOut, Learnt, RuleLearnt


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def learnt(ctx: click.Context, as_json: bool) -> None:
    """Show what reviews have changed: rules, the order of remedies, and what that is worth on held-out incidents.

    \b
    Example:
      leptonai learnt
      leptonai learnt reset --why "reviewed the wrong week"
    """
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    with session.client() as client:
        found = client.learnt()
    if as_json:
        print_json(found)
    else:
        show(found)


@learnt.command()
@click.option("--why", required=True, metavar="TEXT", help="For the audit log.")
@json_option
@click.pass_obj
def reset(session: Session, why: str, as_json: bool) -> None:
    """Take back what all reviews so far have taught; the reviews are kept.

    \b
    Example:
      leptonai learnt reset --why "reviewed the wrong week"
    """
    text = "Taken back: rules and runbook are as declared. `leptonai learnt restore` lets the reviews count again."
    _turn(session, why, False, as_json, text)


@learnt.command()
@click.option("--why", required=True, metavar="TEXT", help="For the audit log.")
@json_option
@click.pass_obj
def restore(session: Session, why: str, as_json: bool) -> None:
    """Let every review count again.

    \b
    Example:
      leptonai learnt restore --why "they were right after all"
    """
    _turn(session, why, True, as_json, "Every review counts again.")


def _turn(session: Session, why: str, back: bool, as_json: bool, text: str) -> None:
    with session.client() as client:
        made = client.reset_learnt(why, restore=back)
    if as_json:
        print_json(made)
    else:
        click.echo(text)


def show(found: Learnt) -> None:
    if not found.at:
        click.echo("Nothing was learnt yet: `leptonai review INCIDENT` says what an incident truly was.")
        return
    state = "in force" if found.in_force else "not in force"
    click.echo(f"{found.reviews} reviews of {found.incidents} incidents, read at {clock(found.at)}.")
    click.echo(f"What they teach is {state}: {found.why}.")
    if found.after:
        click.echo(f"Reviews up to number {found.after} were taken back.")
    if found.causes:
        click.echo("\nHeld-out incidents named right first, each by what the others teach")
        rows = [*((cause, h) for cause, h in found.causes.items()), ("all", found.total)]
        print_table(["cause", "incidents", "before", "after"], [held_out(cause, h) for cause, h in rows], "")
    if found.rules:
        click.echo("\nRules")
        columns = ["cause", "when", "declared", "alone", "beside another", "right/wrong alone", "beside"]
        print_table(columns, [rule(r) for r in found.rules], "")
    if found.orders:
        click.echo("\nRemedies")
        rows_ = [[cause, ", ".join(now), ", ".join(was)] for cause, (was, now) in found.orders.items()]
        print_table(["cause", "now", "declared"], rows_, "")
    if found.in_force and (found.rules or found.orders):
        click.echo("\nTake it back: leptonai learnt reset --why TEXT")


def held_out(cause: str, found: HeldOut) -> list[str]:
    return [cause, str(found.incidents), str(found.before), str(found.after)]


def rule(found: RuleLearnt) -> list[str]:
    moved = "".join(f"; {was} became {now}" for was, now in found.limits.items())
    when = found.when if len(found.when) <= 60 else f"{found.when[:57]}..."
    return [
        found.cause, when + moved, f"{found.declared:.2f}", f"{found.alone:.2f}", f"{found.beside:.2f}",
        f"{found.right:.3g}/{found.wrong:.3g}", f"{found.right_beside:.3g}/{found.wrong_beside:.3g}",
    ]  # fmt: skip
