"""compress: a smaller, faster model within a budget."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import Session, json_option, key_of, print_json, print_table, waiting, workspace_option

if TYPE_CHECKING:
    from leptonai.improve.compress.front import Report
    from leptonai.improve.compress.search import Say, Search

path_type = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=path_type)
@click.option("--data", type=path_type, required=True, help="Rows that teach, calibrate and choose: .npz or .csv.")
@click.option("--test", type=path_type, help="Rows that only confirm; else a part of --data is kept for it.")
@click.option("--teach", type=path_type, help="Rows that only teach, as those the original learnt from; else a part.")
@click.option("--label", metavar="COL", help="The labels' column or array; else y, label, labels or target.")
@click.option("--budget", "spent", default="accuracy=0.5%", show_default=True, help="What may be lost, and limits.")
@click.option(
    "--for",
    "aim",
    type=click.Choice(["both", "latency", "size"]),
    default="both",
    show_default=True,
    help="What to gain.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the report and the model; else MODEL-compressed.",
)
@click.option("--plot", type=path_type, help="Draw what was tried (extra: plot).")
@click.option("--deploy", "service", metavar="SERVICE", help="Propose the chosen model to this service, on probation.")
@click.option("--beside", type=path_type, multiple=True, help="A file deployed beside it: a model.py around the model.")
@click.option("--only", metavar="NAMES", help="Try only these steps, with commas: 'int8 static,prune 50%'.")
@click.option("--steps", type=click.IntRange(1), help="Batches that teach each changed network; else 800.")
@click.option("--python", metavar="PATH", help="Interpreter with tensorflow, for Keras models.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of which rows teach, choose, confirm."
)
@workspace_option
@json_option
@click.pass_obj
def compress(
    session: Session,
    model: Path,
    data: Path,
    test: Path | None,
    teach: Path | None,
    label: str | None,
    spent: str,
    aim: Any,
    out: Path | None,
    plot: Path | None,
    service: str | None,
    beside: tuple[Path, ...],
    only: str | None,
    steps: int | None,
    python: str | None,
    seed: int,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Search smaller and faster forms of MODEL, measure them on this machine, choose within the budget.

    MODEL is what `deploy` takes, or a Keras file or SavedModel folder. PyTorch networks are pruned, factorised and
    split, and taught again by the original; all are tried in fp16, bf16 and int8. Latency is that of real, warm
    replicas. When the budget cannot be met the original is kept. With --deploy live traffic has the last word.

    \b
    Example:
      leptonai compress digits.pt2 --data digits.npz --budget accuracy=0.5%
      leptonai compress digits.onnx --data digits.npz --budget accuracy=0.5%,size=100KB --deploy digits
    """
    from leptonai.improve.compress.front import budget

    wanted = budget(spent)
    folder = out or model.with_name(f"{model.stem}-compressed")
    possible(session, model, plot, service, beside, workspace)
    with tempfile.TemporaryDirectory(prefix="leptonai-") as work, waiting(as_json) as say:
        report = search(
            model, data, wanted, folder, Path(work), test=test, teach=teach, label=label, aim=aim, seed=seed,
            python=python, only=only, steps=steps, say=say,
        ).run()  # fmt: skip
        if plot is not None:
            from leptonai.improve.compress.picture import plot as draw

            draw(report, plot)
        view = None
        if service is not None and not report.kept:
            from leptonai.improve import propose as proposals

            chosen = folder / "chosen"
            if beside:
                chosen = proposals.beside(chosen, beside, folder / "deployed")
            with session.client() as client:
                view = proposals.propose(client, key_of(service, workspace), chosen, f"compress: {report.said}", say)
    if as_json:
        print_json({"report": report, "folder": str(folder), "service": view})
        return
    show(report)
    if not report.kept:
        click.echo(f"The model is in {folder / 'chosen'}. Try it live with `leptonai deploy {folder / 'chosen'} "
                   f"--name NAME --canary`." if view is None else f"The model is in {folder / 'chosen'}.")  # fmt: skip
    if view is not None:
        click.echo(f"{view.key} revision {view.service.revision}: {view.status}.")
        click.echo(f"`leptonai wait {view.key} --judged` tells how it ends, `leptonai undo {view.key}` ends it now.")


def possible(
    session: Session,
    model: Path,
    plot: Path | None,
    service: str | None,
    beside: tuple[Path, ...],
    workspace: str | None,
) -> None:
    """SpecError, or what the platform says, for what could not be done with the outcome: before the search for it."""
    from leptonai.errors import SpecError
    from leptonai.improve import propose as proposals

    if plot is not None:
        from leptonai.improve.compress.picture import possible as drawable

        drawable(plot)
    if beside and service is None:
        raise SpecError("--beside is for a model that is deployed", hint="give --deploy SERVICE as well")
    for path in beside:
        if not path.is_file():
            raise SpecError(f"{path}: no such file", hint="a file to be deployed beside the model")
    if service is not None:
        with session.client() as client:
            proposals.canary(client.service(key_of(service, workspace)).service.spec, model)


def search(
    model: Path,
    data: Path,
    wanted: Any,
    folder: Path,
    work: Path,
    *,
    test: Path | None = None,
    teach: Path | None = None,
    label: str | None = None,
    python: str | None = None,
    only: str | None = None,
    aim: Any = "both",
    seed: int = 0,
    steps: int | None = None,
    say: Say = lambda text: None,
) -> Search:
    """The search that MODEL and its data mean; ``work`` is a folder for what is made before it."""
    from leptonai.errors import SpecError
    from leptonai.improve.compress import keras
    from leptonai.improve.compress.search import Search
    from leptonai.improve.evaluate.answers import opened
    from leptonai.improve.evaluate.rows import read
    from leptonai.serve import spec as texts

    options: dict[str, Any] = {}
    trust, made = "none", {}
    if keras.is_keras(model):
        say(f"converting {model.name}")
        first = keras.plain(model, python, work)
        predictor = opened(first)
        rows = read(data, predictor.inputs, label)
        made = keras.calibrated(model, python, work, rows.inputs[predictor.inputs[0]["name"]])
        model = made.pop("tflite")
    else:
        spec, _ = texts.load(model)
        if len(spec.variants) != 1:
            raise SpecError(f"{model} describes {len(spec.variants)} variants", hint="give the model of one of them")
        options, trust = spec.variants[0].options, spec.variants[0].trust
        model = Path(spec.variants[0].model)
        predictor = opened(model, options, trust)
        rows = read(data, predictor.inputs, label)
    confirm, teaches = (read(p, predictor.inputs, label) if p is not None else None for p in (test, teach))
    return Search(
        model, rows, wanted, folder, test=confirm, teach=teaches, options=options, trust=trust, aim=aim, seed=seed,
        steps=steps, made=made, say=say, only=names(only),
    )  # fmt: skip


def names(only: str | None) -> list[str] | None:
    from leptonai.errors import SpecError
    from leptonai.improve.compress.steps import STEPS

    if only is None:
        return None
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if name not in STEPS:
            raise SpecError(f"step {name!r} is not known", hint=f"known: {', '.join(STEPS)}")
    return wanted


def show(report: Report) -> None:
    from leptonai.improve.compress.front import front, told

    first = report.candidates[0]
    best = {c.steps for c in front(report.candidates)}
    rows = []
    for c in sorted((c for c in report.candidates if c.measured), key=lambda c: -c.size):
        mark = "chosen" if c.steps == report.chosen.steps else "front" if c.steps in best else ""
        rows.append(
            [
                c.name, f"{c.size / 1e3:.1f}", f"{first.size / c.size:.2f}", f"{1e3 * c.median:.3f}",
                f"{1e3 * c.p99:.3f}", f"{1e3 * c.compute:.3f}",
                f"{c.speedup:.2f} ({c.speedup_low:.2f} to {c.speedup_high:.2f})",
                f"{100 * c.loss:.2f} ± {100 * c.error_of_loss:.2f}", mark,
            ]
        )  # fmt: skip
    columns = ["MODEL", "KB", "x SMALLER", "p50 MS", "p99 MS", "COMPUTE MS", "x FASTER (95 %)", "LOST %", ""]
    print_table(columns, rows, "Nothing was measured.")
    failed = [c for c in report.candidates if c.error]
    unmeasured = sum(not c.error and not c.measured and not c.late for c in report.candidates[1:])
    if unmeasured:
        click.echo(f"{unmeasured} more lose too much, or are beaten in loss, size and time; report.json has them.")
    for c in failed:
        click.echo(f"{c.name}: {c.error}")
    for c in report.candidates:
        if c.late:
            click.echo(f"{c.name}: not measured, {c.late}")
    click.echo(f"Budget: {told(report.budget)}. {report.rows['teach']} rows taught, {report.rows['choose']} chose, "
               f"{report.rows['confirm']} confirmed.")  # fmt: skip
    with contextlib.suppress(ValueError):
        click.echo(f"{report.said[:1].upper()}{report.said[1:]}.")
