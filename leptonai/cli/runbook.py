"""runbook: check what is done about a cause, show it, preview it for an incident; freeze and thaw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import Session, json_option, print_json, print_table

if TYPE_CHECKING:
    from leptonai.client import Client
    from leptonai.ops.runbook import Row, Runbook, Step
    from leptonai.types import Incident


@click.group()
def runbook() -> None:
    """What is done about each cause: check, show and preview it.

    \b
    Example:
      leptonai runbook show hung_replica
    """


@runbook.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def check(session: Session, files: tuple[Path, ...], as_json: bool) -> None:
    """Check runbook files; without FILES, those in the home folder as ops reads them.

    \b
    Example:
      leptonai runbook check ours.yaml
    """
    from leptonai.errors import PluginError
    from leptonai.ops.remedies import load_remedies
    from leptonai.ops.runbook import load_runbook

    _, causes, broken = in_force(session)
    if files:
        remedies = load_remedies()
        rows = [row for path in files for row in load_runbook(path, remedies, causes).rows()]
    else:
        book, _, _ = in_force(session)
        rows = [row for row in book.rows() if not row.source.endswith("shipped.yaml")]
        if broken:
            first = next(iter(broken.values()))
            raise PluginError("; ".join(e.message for e in broken.values()), hint=first.hint)
    if as_json:
        print_json({"causes": sorted({r.cause for r in rows}), "steps": sum(len(r.steps) for r in rows)})
    else:
        said = f"{len(rows)} row(s), {sum(len(r.steps) for r in rows)} step(s)"
        click.echo(f"Nothing is wrong: {said}." if rows else "Nothing is wrong: no file of your own, ours is in force.")


@runbook.command()
@click.argument("cause", required=False)
@json_option
@click.pass_obj
def show(session: Session, cause: str | None, as_json: bool) -> None:
    """Show the rows in force, ours and those of the home folder over them; with CAUSE, all there is to it.

    \b
    Example:
      leptonai runbook show traffic_surge
    """
    from leptonai.errors import NotFound

    book, causes, _ = in_force(session)
    if cause is not None and cause not in causes:
        raise NotFound(f"no cause {cause!r}", hint=f"known: {', '.join(sorted(causes))}")
    rows = list(book.rows(cause))
    if as_json:
        print_json([document(row) for row in rows])
    elif cause is None:
        table = [[r.cause, severities(r), steps(r), Path(r.source).name] for r in rows]
        print_table(["cause", "severity", "steps", "from"], table, "No row.")
    else:
        for row in rows:
            tell(row)


@runbook.command()
@click.argument("number", metavar="INCIDENT", type=int)
@json_option
@click.pass_obj
def preview(session: Session, number: int, as_json: bool) -> None:
    """What each step would change for an incident, as things are now: the exact dials and fields. Changes nothing.

    \b
    Example:
      leptonai runbook preview 3
    """
    book, _, _ = in_force(session)
    with session.client() as client:
        incident = client.incident(number)
        row, told = previewed(client, incident, book)
    if as_json:
        print_json({"incident": number, "cause": row.cause, "steps": told})
        return
    if not told:
        click.echo(f"The runbook has no step for {row.cause or 'an incident without a cause'}: a person is called.")
    for n, step in enumerate(told, 1):
        click.echo(f"{n}. {step['remedy']}: {step['why'] or step['not']}")
        for line in step["preview"]:
            click.echo(f"     {line}")
        if step["preview"]:
            replaces = f", replaces {step['replaces']} replica(s), {step['share']:.0%}" if step["replaces"] else ""
            asks = f"; {step['asks']}" if step["asks"] else ""
            click.echo(f"     {step['risk']} risk{replaces}, taken back: {step['taken_back']}{asks}")
            click.echo(f"     hash {step['hash'][:12]}")


@click.command()
@click.option("--why", metavar="TEXT", default="", help="Your reason; it goes into the audit log.")
@json_option
@click.pass_obj
def freeze(session: Session, why: str, as_json: bool) -> None:
    """The kill switch: from now on no automatic change is admitted, until `leptonai thaw`. People may go on.

    \b
    Example:
      leptonai freeze --why "we look into it by hand"
    """
    turn(session, True, why, as_json)


@click.command()
@click.option("--why", metavar="TEXT", default="", help="Your reason; it goes into the audit log.")
@json_option
@click.pass_obj
def thaw(session: Session, why: str, as_json: bool) -> None:
    """End a freeze: automatic changes are admitted again.

    \b
    Example:
      leptonai thaw
    """
    turn(session, False, why, as_json)


def turn(session: Session, on: bool, why: str, as_json: bool) -> None:
    with session.client() as client:
        found = client.turn(on, why)
    if as_json:
        print_json(found)
    else:
        said = f"frozen by {found.said}; `leptonai thaw` ends it" if found.said else "at work again"
        click.echo(f"Automation is {said}.")


def in_force(session: Session) -> tuple[Runbook, Any, dict[str, Any]]:
    """The runbook as ops reads it, the causes it may speak of, and the files that are broken."""
    from leptonai.ops.diagnosis.files import RuleFiles
    from leptonai.ops.runbook import RunbookFiles

    home = session.folder().path
    rules, books = RuleFiles(home / "rules"), RunbookFiles(home / "runbooks")
    rules.look()
    books.look(rules.book.causes)
    return books.book, rules.book.causes, books.broken


def previewed(client: Client, incident: Incident, book: Runbook) -> tuple[Row, list[dict[str, Any]]]:
    import time

    from leptonai.errors import NotFound
    from leptonai.ops.incidents import service_of
    from leptonai.ops.respond import Sight, plans, row_of

    key, now = service_of(incident), time.time()
    views = client.services()
    service = next((v.service for v in views if v.key == key), None)
    if service is None:
        raise NotFound(f"incident {incident.id} is about {incident.subject}, which is no service of ours", hint="")
    row = row_of(incident, book)
    sight = Sight(
        service=service,
        revisions=tuple(client.revisions(key)),
        collected=now,
        firing=True,
        others=tuple(v.service for v in views if v.key != key),
        theirs=frozenset(v.key for v in views if v.scaled_by),
    )
    return row, [spelled(step, plan) for step, plan in plans(incident, sight, now, row)]


def spelled(step: Step, plan: Any) -> dict[str, Any]:
    none: dict[str, Any] = {"remedy": step.name, "why": "", "not": plan, "preview": [], "asks": step.asks}
    if isinstance(plan, str):
        return none
    return none | {
        "why": plan.proposal.why, "not": "", "preview": list(plan.preview), "risk": plan.risk, "hash": plan.hash,
        "taken_back": plan.reversal, "replaces": plan.replaces, "share": plan.share, "service": plan.service,
    }  # fmt: skip


def document(row: Row) -> dict[str, Any]:
    import msgspec

    return {
        "cause": row.cause,
        "severity": row.severity,
        "owner": row.owner,
        "responsibilities": row.responsibilities,
        "reconcile": row.reconcile,
        "from": row.source,
        "steps": [
            {
                "do": s.name, "risk": s.remedy.risk, "with": s.given, "tries": s.tries, "approval": s.approval,
                "autonomy": s.autonomy, "compensate": s.compensate, "limits": msgspec.to_builtins(s.limits),
                "verify": msgspec.to_builtins(s.verify),
            }
            for s in row.steps
        ],
    }  # fmt: skip


def severities(row: Row) -> str:
    return "any" if len(row.severity) == 3 else ", ".join(row.severity)


def steps(row: Row) -> str:
    names = (["(serve replaces it)"] if row.reconcile else []) + [s.name for s in row.steps]
    return ", then ".join(names) or "call a person"


def tell(row: Row) -> None:
    from leptonai.ops.runbook.files import SHIPPED

    click.echo(f"{row.cause}, severity {severities(row)}: {steps(row)}")
    click.echo(f"  owner  {row.owner}" + (f": {row.responsibilities}" if row.responsibilities else ""))
    click.echo(f"  from   {'what ships' if row.source == str(SHIPPED) else row.source}")
    for step in row.steps:
        given = " ".join(f"{k}={v}" for k, v in step.given.items())
        click.echo(f"  {step.name}{f' ({given})' if given else ''}, {step.remedy.risk} risk")
        asked = "no approval" if step.approval == "never" else f"approval {step.approval}"
        what = "only recommended" if step.autonomy == "recommend" else asked
        back = "taken back when it does not help" if step.compensate else "not taken back"
        click.echo(f"    {what}; {step.tries} {'try' if step.tries == 1 else 'tries'}; {back}")
        wanted = [f"{name} {bounds}" for name, bounds in step.verify.signals.items()]
        if step.verify.seconds is not None:
            wanted.insert(0, f"it is well within {step.verify.seconds:g} s")
        if wanted:
            click.echo(f"    has helped when {', '.join(wanted)}")
        limits = step.limits
        click.echo(
            f"    replaces {limits.share:.0%} of the replicas at most, {limits.ready} left ready, "
            f"{limits.most} times in {limits.window:g} s"
        )
