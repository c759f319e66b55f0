"""availability: how available a service was, and what to expect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, json_option, key_of, print_json, print_table, workspace_option
from leptonai.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from leptonai.client.availability import Alarm, Availability, Estimate, Pages

TINY = 1e-9  # nobody wants to know how far below it is
UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@click.command()
@click.argument("name")
@click.option("--last", default="7d", show_default=True, metavar="TIME", help="The stretch, such as 90min, 24h, 30d.")
@workspace_option
@json_option
@click.pass_obj
def availability(session: Session, name: str, last: str, workspace: str | None, as_json: bool) -> None:
    """How available a service was: MTTD, MTTR, MTBF, error budget, expected downtime, false pages.

    \b
    Example:
      leptonai availability digits --last 30d
    """
    with session.client() as client:
        found = client.availability(key_of(name, workspace), stretch(last))
    if as_json:
        print_json(found)
        return
    print_table(["measure", "value", "95 % interval"], rows(found), "")
    for text in found.cannot_tell:
        click.echo(f"cannot tell {text}" if not text.startswith("much") else f"cannot tell much: {text[6:]}")


def stretch(text: str) -> float:
    """Seconds of ``90min``, ``24h``, ``7d``; SpecError for anything else."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|m|min|h|d|w)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise SpecError(f"--last is {text!r}, wanted a number and a unit", hint="like 90min, 24h or 7d")
    return float(found[1]) * UNITS[found[2]]


def rows(found: Availability) -> list[list[str]]:
    from leptonai.ops.report.voice import voice

    say = voice("en")

    def share(value: float) -> str:
        return f"{value:.4%}"

    each = (
        ["measured", say.span(found.end - found.start), f"requests seen in {found.measured_share:.0%} of it"],
        ["requests", f"{found.requests:,}, {found.errors:,} errors", ""],
        ["availability (requests)", *spell(found.share, share)],
        ["availability (time)", share(found.up_share), f"{found.incidents} incidents, {found.open} open"],
        ["error budget spent", _or(found.budget_spent_share, share), f"of {found.objective:.3%} over these requests"],
        ["MTTD", *spell(found.detect, say.span)],
        ["MTTR", *spell(found.recover, say.span)],
        ["MTBF", *spell(found.between, say.span)],
        ["p: incidents a day", *spell(found.per_day, lambda v: f"{v:.3g}")],
        ["E: downtime of one", *spell(found.downtime, say.span)],
        ["D = p * E, a day", *spell(found.expected_downtime, say.span)],
        *(row for alarm in found.alarms for row in _alarm(alarm, share)),
    )  # fmt: skip
    return [list(row) for row in each]


def spell(found: Estimate, form: Callable[[float], str]) -> tuple[str, str]:
    low, high = _or(found.low, form), _or(found.high, form)
    return _or(found.value, form), "" if found.low is None and found.high is None else f"{low} to {high}"


def _alarm(found: Alarm, share: Callable[[float], str]) -> list[list[str]]:
    """What one burn rule does when all is well, and when it is not."""
    bad = {"errors": "errors", "latency": "late answers"}[found.rule]
    chance = None if found.false_pages is None else found.false_pages.chance
    return [
        [f"{bad} outside incidents", *spell(found.healthy, share)],
        ["  chance of a page at one look", _or(chance, _tiny), "by the burn rule, at that share"],
        ["  false pages a week", *_pages(found.false_pages)],
        ["  chance that an incident pages", _or(found.page_chance, _tiny), "before it is over"],
    ]


def _tiny(value: float) -> str:
    return f"{value:.3g}" if value >= TINY or value == 0 else f"{TINY:g}"


def _pages(pages: Pages | None) -> tuple[str, str]:
    if pages is None:
        return "-", ""
    if pages.a_week is None:
        return f"at most {_tiny(pages.at_most)}", "looks x chance"
    return f"{pages.a_week:.3g}", f"{pages.low:.2g} to {pages.high:.2g}, simulated; at most {pages.at_most:.3g}"


def _or(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if value is None else form(value)
