"""train: a network or an estimator from a text."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import Session, json_option, print_json

folder_type = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--out", type=folder_type, help="Folder of the run; else JOB-run. A killed run goes on.")
@click.option("--watch", metavar="NAME", help="Send the run's numbers to the platform, to be watched as training-NAME.")
@json_option
@click.pass_obj
def train(session: Session, job: Path, out: Path | None, watch: str | None, as_json: bool) -> None:
    """Train what JOB (a YAML text) describes, under the stability guard: a torch Module or a scikit-learn estimator.

    \b
    Example:
      data: digits.npz
      module: net.py                   # or estimator: sklearn.ensemble.RandomForestClassifier
      args: {width: 64}
      epochs: 20
    """
    from rich.console import Console
    from rich.progress import Progress

    from leptonai.improve.train.job import parse
    from leptonai.improve.train.job import train as run
    from leptonai.serve import model, text

    fields, _ = text.read(model.read_text(job), str(job), "see docs/tuning.md for the form of a job")
    wanted = parse(fields, str(job))
    folder = out or job.with_name(f"{job.stem}-run")
    tells = []
    if watch is not None:
        from leptonai.improve.train.signals import Signals

        tells.append(Signals(session.client(), watch))
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task("training", total=wanted.epochs)
        done = run(
            wanted,
            job.parent,
            folder,
            lambda epoch, loss: bar.update(task, completed=epoch, description=f"held-out loss {loss:.4g}"),
            tells,
        )
    if tells and tells[0].lost:
        click.echo(f"note: {tells[0].lost} samples did not reach the platform: {tells[0].problem}", err=True)
    if as_json:
        print_json({"run": done, "folder": str(folder)})
        return
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    quality = f"{100 * done.quality:.2f} % right" if done.classes else f"rmse {-done.quality:.4g}"
    click.echo(f"{folder / done.model}: {quality} of the rows that were held out.")
    if done.stopped:
        click.echo(f"It stopped before its end: {done.stopped}.")
