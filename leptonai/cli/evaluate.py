"""evaluate: how good a model is on rows it has not learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import json_option, print_json, print_table

if TYPE_CHECKING:
    from leptonai.improve.evaluate.drift import Drift
    from leptonai.improve.evaluate.judge import Evaluation
    from leptonai.protocols import Predictor

path_type = click.Path(path_type=Path)
SHOWN = 20
WORSE = 10  # the exit code, as for a rollback


@click.command()
@click.argument("model", type=path_type)
@click.option("--data", type=path_type, required=True, help="Labelled rows: .npz or .csv.")
@click.option("--label", metavar="COL", help="The labels' column or array; else y, label, labels or target.")
@click.option("--against", type=path_type, help="Another model, on the same rows.")
@click.option("--slice", "by", metavar="COL", multiple=True, help="Measure each value of this column apart.")
@click.option("--reference", type=path_type, help="Rows the model learnt from: how far have these moved?")
@click.option("--plot", type=path_type, help="Draw curves, calibration and confusion (extra: plot).")
@click.option(
    "--at-least", "least", metavar="MEASURE=VALUE", multiple=True, help="Exit with 10 below it, as accuracy=0.9."
)
@json_option
@click.pass_context
def evaluate(
    context: click.Context,
    model: Path,
    data: Path,
    label: str | None,
    against: Path | None,
    by: tuple[str, ...],
    reference: Path | None,
    plot: Path | None,
    least: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure MODEL (what `deploy` takes) on labelled rows: confusion, precision, recall, F1, ROC, calibration.

    \b
    Example:
      leptonai evaluate digits.onnx --data test.npz --at-least accuracy=0.9
      leptonai evaluate new.onnx --data test.csv --against old.onnx --slice region --plot new.png
    """
    from leptonai.improve.evaluate.judge import evaluate as judge
    from leptonai.improve.evaluate.rows import read

    limits = [limit(text) for text in least]
    predictor = load(model)
    rows = read(data, predictor.inputs, label, by)
    other = load(against) if against is not None else None
    before = read(reference, predictor.inputs, label, by) if reference is not None else None
    done, said = judge(predictor, rows, against=other, by=by, reference=before)
    if plot is not None:
        from leptonai.improve.evaluate.picture import plot as draw

        draw(rows.labelled(), said, done.measures, plot)
    if as_json:
        print_json(done)
    else:
        show(done, str(against))
    short = [text for name, value in limits if (text := shortfall(done, name, value))]
    for sentence in short:
        click.echo(sentence, err=True)
    if short:
        context.exit(WORSE)


def limit(text: str) -> tuple[str, float]:
    from leptonai.errors import SpecError

    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as e:
        raise SpecError(f"--at-least {text!r} is no MEASURE=VALUE", hint="as in accuracy=0.9") from e


def shortfall(done: Evaluation, name: str, least: float) -> str:
    """How far the measure ``name`` is below ``least``, in words; "" when it is not."""
    from leptonai.errors import SpecError

    found = {f: getattr(done.measures, f) for f in done.measures.__struct_fields__}
    numbers = {f: float(v) for f, v in found.items() if isinstance(v, int | float)}
    if name not in numbers:
        raise SpecError(f"no measure {name!r}", hint=f"there are {', '.join(sorted(numbers))}")
    return "" if numbers[name] >= least else f"{name} is {numbers[name]:.4f}, and at least {least:g} was asked for"


def load(path: Path) -> Predictor:
    from leptonai.errors import SpecError
    from leptonai.improve.evaluate.answers import opened
    from leptonai.serve import spec as texts

    spec, _ = texts.load(path)
    if len(spec.variants) != 1:
        raise SpecError(f"{path} describes {len(spec.variants)} variants", hint="give the model of one of them")
    variant = spec.variants[0]
    return opened(Path(variant.model), variant.options, variant.trust)


def show(done: Evaluation, other: str) -> None:
    from leptonai.improve.evaluate.measures import Classification

    m: Any = done.measures
    if isinstance(m, Classification):
        click.echo(f"{m.rows:,} rows: accuracy {m.accuracy:.4f}, macro F1 {m.macro_f1:.4f}")
        click.echo(f"log loss {m.log_loss:.4f}, Brier {m.brier:.4f}, calibration error {m.calibration_error:.4f}")
        rows = [
            [
                c.label,
                str(c.support),
                *(f"{v:.3f}" for v in (c.precision, c.recall, c.f1, c.auroc, c.average_precision)),
            ]
            for c in m.classes
        ]
        print_table(["CLASS", "ROWS", "PRECISION", "RECALL", "F1", "AUROC", "AVG PRECISION"], rows, "")
        if len(m.classes) <= SHOWN:
            names = [c.label for c in m.classes]
            matrix = [[n, *map(str, row)] for n, row in zip(names, m.confusion, strict=True)]
            print_table(["TRUE \\ SAID", *names], matrix, "")
    else:
        click.echo(f"{m.rows:,} rows: MAE {m.mae:.5g}, RMSE {m.rmse:.5g}, R2 {m.r2:.4f}, bias {m.bias:.3g}")
    if done.against is not None:
        a = done.against
        click.echo(f"Against {other}: {a.gain:+.4f} a row (95 %: {a.low:+.4f} to {a.high:+.4f}); "
                   f"only this one right {a.only_this}, only the other {a.only_other}, p {a.p:.3g}")  # fmt: skip
    if done.slices:
        told = [[s.column, s.value, str(s.rows), f"{s.quality:.4f}", f"{s.p:.3g}"] for s in done.slices[:SHOWN]]
        print_table(["SLICE", "VALUE", "ROWS", "QUALITY", "P"], told, "")
    if done.drift is not None and done.said_drift is not None:
        show_drift("inputs", done.drift)
        show_drift("answers", done.said_drift)


def show_drift(what: str, d: Drift) -> None:
    moved = [c for c in d.columns if c.drifted]
    said = "drifted" if d.drifted else "no drift to speak of"
    click.echo(f"{what}: {said}; kernel distance {d.distance:.4g} (p {d.p:.3g}), "
               f"{len(moved)} of {len(d.columns)} columns moved")  # fmt: skip
    worst = sorted(moved, key=lambda c: -c.psi)[:SHOWN]
    if worst:
        table = [[c.name, f"{c.psi:.3f}", f"{c.ks:.3f}", f"{c.p:.2g}"] for c in worst]
        print_table(["COLUMN", "PSI", "KS", "P"], table, "")
