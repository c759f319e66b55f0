"""review: say what an incident truly was, which causes were right, and what the remedies did."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from leptonai.cli.session import Session, json_option, print_json
from leptonai.errors import SpecError

if TYPE_CHECKING:
    from leptonai.types import Review
    from leptonai.types.keys import Verdict

VERDICTS = ("effective", "ineffective", "inconclusive", "harmful")


@click.command()
@click.argument("incident", type=int)
@click.option("--cause", metavar="CAUSE", default="", help="What it truly was; `unknown` when it has no name.")
@click.option("--right", metavar="CAUSE", multiple=True, help="A cause that was named, and is one.")
@click.option("--wrong", metavar="CAUSE", multiple=True, help="A cause that was named, and is none.")
@click.option("--remedy", metavar="NAME=VERDICT", multiple=True, help=f"What it did: {', '.join(VERDICTS)}.")
@click.option("--note", metavar="TEXT", default="", help="In your words.")
@json_option
@click.pass_obj
def review(
    session: Session,
    incident: int,
    cause: str,
    right: tuple[str, ...],
    wrong: tuple[str, ...],
    remedy: tuple[str, ...],
    note: str,
    as_json: bool,
) -> None:
    """Say what an incident truly was; without options, show what was said of it.

    \b
    Example:
      leptonai review 3 --right memory_leak --remedy evict=effective
      leptonai review 3 --wrong traffic_surge --cause retry_storm --note "the mobile app"
    """
    from leptonai.client.wire import ReviewRequest

    with session.client() as client:
        if not (cause or right or wrong or remedy or note):
            found = client.reviews(incident)
            if as_json:
                print_json(found)
                return
            for line in [tell(r) for r in found] or ["Nobody has said anything of it."]:
                click.echo(line)
            return
        if both := set(right) & set(wrong):
            raise SpecError(f"{min(both)!r} cannot be right and wrong", hint="name it once")
        request = ReviewRequest(
            cause=cause,
            hypotheses=dict.fromkeys(right, True) | dict.fromkeys(wrong, False),
            remedies=dict(map(verdict, remedy)),
            note=note,
        )
        made = client.review(incident, request)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Noted of incident {incident}: {tell(made)}")


def verdict(text: str) -> tuple[str, Verdict]:
    name, sign, said = text.rpartition("=")
    if not sign or not name or said not in VERDICTS:
        raise SpecError(f"--remedy is {text!r}, wanted NAME=VERDICT", hint=f"a verdict is {', '.join(VERDICTS)}")
    return name, cast("Verdict", said)


def tell(review: Review) -> str:
    """One review on one line."""
    from leptonai.cli.session import clock

    said = [f"it was {review.cause}"] if review.cause else []
    said += [f"{cause} is {'right' if right else 'wrong'}" for cause, right in review.hypotheses.items()]
    said += [f"{remedy} was {did}" for remedy, did in review.remedies.items()]
    text = ", ".join([*said, *([f'"{review.note}"'] if review.note else [])])
    return f"{clock(review.at)}  {review.by} ({review.source}): {text}"
