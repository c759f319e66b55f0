"""pipeline: the whole life of a model by one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import Session, json_option, print_json

if TYPE_CHECKING:
    from leptonai.improve.flow.kept import State
    from leptonai.improve.flow.text import Flow

path_type = click.Path(path_type=Path)
folder_type = click.Path(file_okay=False, path_type=Path)


@click.group()
def pipeline() -> None:
    """Collect, train, evaluate, compress, canary, judge, report.

    \b
    Example:
      leptonai pipeline run digits.yaml
    """


@pipeline.command()
@click.argument("file", type=path_type)
@click.option("--folder", type=folder_type, help="Where results are kept; else FILE-run. A killed run goes on there.")
@click.option("--if-needed", is_flag=True, help="Only when the text's trigger says so: drift, or wrong answers.")
@json_option
@click.pass_obj
def run(session: Session, file: Path, folder: Path | None, if_needed: bool, as_json: bool) -> None:
    """Run the steps that FILE (a YAML text) describes; what was done before is not done again.

    \b
    Example:
      leptonai pipeline run digits.yaml
    """
    from leptonai.improve.flow.kept import State, alone
    from leptonai.improve.flow.steps import steps
    from leptonai.improve.flow.text import parse
    from leptonai.lab.pipeline import Pipeline
    from leptonai.serve import model, text

    fields, _ = text.read(model.read_text(file), str(file), "see docs/pipeline.md for the form of a pipeline")
    flow = parse(fields, str(file))
    root = folder or file.with_name(f"{file.stem}-run")
    if if_needed:
        reason = needed(session, flow, file.parent)
        if not reason:
            click.echo(f"{flow.name}: nothing has moved; nothing is done.")
            return
        click.echo(f"{flow.name}: {reason}", err=as_json)

    def say(line: str) -> None:
        if not as_json:
            click.echo(line, err=True)

    with alone(root):
        done: State = Pipeline(steps(flow, file.parent, root, session.client, say)).run(State())
    if as_json:
        print_json({"values": done.values, "stopped": done.stopped, "folder": str(root)})
    else:
        click.echo(done.values["text"])
    if done.stopped or done.values.get("outcome") == "rolled back":
        raise click.exceptions.Exit(10)


def needed(session: Session, flow: Flow, base: Path) -> str:
    """Why the pipeline should run; "": it need not."""
    from leptonai.errors import SpecError

    t = flow.trigger
    if t is None:
        raise SpecError(f"{flow.name} has no trigger", hint="trigger: {reference: old.npz, recent: new.npz}")
    if t.reference is not None and t.recent is not None:
        from leptonai.improve.evaluate.drift import drift
        from leptonai.improve.evaluate.judge import flat
        from leptonai.improve.train.job import rows_of

        old, new = (rows_of(base / p, flow.label) for p in (t.reference, t.recent))
        moved = drift(flat(old.inputs), flat(new.inputs))
        if moved.drifted:
            columns = sum(c.drifted for c in moved.columns)
            return f"rows have drifted: {columns} columns moved, kernel distance {moved.distance:.3g} (p {moved.p:.2g})"
    for most, signal, said in (
        (t.wrong, "label_error_ratio", "of the labels of the last hour differ from what {} said"),
        (t.complaints, "complaint_ratio", "of the opinions of the last hour on {} are complaints"),
    ):
        if t.service is not None and most is not None:
            share = told(session, signal, t.service)
            if share is not None and share > most:
                return f"{100 * share:.1f} % {said.format(t.service)}"
    return ""


def told(session: Session, signal: str, service: str) -> float | None:
    """The mean of a signal over the last hour; None: nothing was seen."""
    import math
    import time

    from leptonai.cli.session import key_of

    now = time.time()
    with session.client() as client:
        series: Any = client.signals(signal, now - 3600, now, {"service": key_of(service, None)})
    values = [float(v) for s in series for v in s.value if not math.isnan(float(v))]
    return sum(values) / len(values) if values else None
