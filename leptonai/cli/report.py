"""report: an incident, a day or a week told in plain language, each sentence backed by evidence."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Session, json_option
from leptonai.errors import LeptonError, NotFound, SpecError

if TYPE_CHECKING:
    from leptonai.client import Client
    from leptonai.ops.report import Seen, Story
    from leptonai.types import Incident

DAY = 86400.0
DIGEST_POINTS = 1000  # of one series: 86 s apart in a day


@click.command()
@click.argument("number", type=int, required=False)
@click.option(
    "--format", type=click.Choice(["text", "markdown", "html"]), default="text", show_default=True, help="Spelling."
)
@click.option("--lang", "--language", "language", default="en", show_default=True, metavar="CODE", help="en or zh.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to a file instead.")
@click.option("--daily", "days", flag_value=1, type=int, help="Tell the last day of all services instead.")
@click.option("--weekly", "days", flag_value=7, type=int, help="Tell the last week of all services instead.")
@click.option("--rephrase", is_flag=True, help="Let the model of report.rephrase say it; it can add nothing.")
@json_option
@click.pass_obj
def report(
    session: Session,
    number: int | None,
    format: str,
    language: str,
    output: Path | None,
    days: int | None,
    rephrase: bool,
    as_json: bool,
) -> None:
    """Tell an incident in plain language, each sentence backed by evidence; by default the newest one.

    \b
    Example:
      leptonai report 3 --lang zh
      leptonai report 3 --format html -o incident-3.html
      leptonai report --weekly
    """
    from leptonai.ops import report as reports

    with session.client() as client:
        if days is not None:
            if number is not None:
                raise SpecError("an incident and a stretch of time at once", hint="leave out the number, or --daily")
            story = digest_of(client, days * DAY, language)
        else:
            story = story_of(client, client.incident(number) if number is not None else newest(client), language)
    if rephrase:
        story = rephrased(story, session)
    text = reports.write(story, "json" if as_json else format)
    if output is None:
        click.echo(text.rstrip("\n"))
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as e:
        raise NotFound(f"{output} cannot be written: {e.strerror}", hint="name a file in a folder that is there") from e


def tell(client: Client, incident: Incident) -> None:
    from leptonai.ops import report as reports

    click.echo(reports.write(story_of(client, incident, "en"), "text").rstrip("\n"))


def story_of(client: Client, incident: Incident, language: str) -> Story:
    from leptonai.ops import report as reports

    return reports.tell(incident, language, seen(client, incident))


def digest_of(client: Client, seconds: float, language: str) -> Story:
    from leptonai.ops.report import Member, digest
    from leptonai.ops.report.digest import SIGNALS

    end = time.time()
    start = end - seconds
    members = []
    for view in client.services():
        key, series, known = view.service.key, {}, None
        with suppress(LeptonError):
            known = client.availability(key, seconds)
        for name in SIGNALS:
            with suppress(LeptonError):
                series[name] = tuple(client.signals(name, start, end, {"service": key}, seconds / DIGEST_POINTS))
        advice = None
        with suppress(LeptonError):
            advice = client.advice(key, seconds)
        members.append(Member(service=view.service, ready=view.ready, availability=known, series=series, advice=advice))
    classifier = None
    with suppress(LeptonError):
        classifier = client.classifier()
    return digest(members, client.incidents(), start, end, language, classifier)


def rephrased(story: Story, session: Session) -> Story:
    """As the model of ``report.rephrase`` says it; why sentences were kept as they are is told on stderr."""
    from leptonai.ops.logs.privacy import Masker
    from leptonai.ops.report.rephrase import rephrase
    from leptonai.settings import load

    wanted = load(session.folder().settings).report.rephrase
    if not wanted.url:
        raise SpecError("no model may rephrase reports", hint="set report.rephrase.url in settings.yaml")
    story, outcome = rephrase(story, wanted, Masker())
    said = f"{outcome.taken} sentences rephrased, {outcome.kept} kept"
    click.echo("; ".join([said, *outcome.why]), err=True)
    return story


def seen(client: Client, incident: Incident) -> Seen:
    """What was measured around the incident; what cannot be had is left out, and the report says that it is."""
    from leptonai.ops.incidents import service_of
    from leptonai.ops.report import questions, seen_of

    answers, slo = {}, None
    with suppress(LeptonError):
        for q in questions(incident, time.time()):
            answers[q.name] = client.signals(q.name, q.start, q.end, q.labels, q.step)
    with suppress(LeptonError):
        key = service_of(incident)
        slo = client.service(key).service.spec.slo if key else None
    return seen_of(answers, slo)


def newest(client: Client) -> Incident:
    found = client.incidents()
    if not found:
        raise NotFound("there is no incident to report", hint="`leptonai incidents` lists them")
    return found[0]
