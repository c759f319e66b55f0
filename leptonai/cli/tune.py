"""tune: search parameters of training, classifying or serving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import json_option, print_json, print_table, waiting

if TYPE_CHECKING:
    from leptonai.improve.tune.study import Objective, Study

storage_type = click.Path(dir_okay=False, path_type=Path)
TASKS = ("objective", "train", "classify", "serve")


@click.command()
@click.argument("text", type=click.Path(path_type=Path))
@click.option("--storage", type=storage_type, help="SQLite file of the trials; else TEXT.db. Goes on.")
@click.option("--worker", type=click.IntRange(0), hidden=True)
@json_option
def tune(text: Path, storage: Path | None, worker: int | None, as_json: bool) -> None:
    """Search the parameters that TEXT names, by trials; a search that was interrupted goes on.

    \b
    Example:
      name: width
      trials: 40
      sampler: tpe                    # gp, grid, random
      workers: 2
      space: {rate: {low: 1e-4, high: 0.1, log: true}, args.width: [32, 64, 128]}
      train: {data: digits.npz, module: net.py}
    """
    from leptonai.improve.tune.study import check, parallel, parse, work
    from leptonai.serve import model
    from leptonai.serve import text as texts

    fields, _ = texts.read(model.read_text(text), str(text), "see docs/tuning.md for the form of a study")
    study, rest = parse(fields, str(text))
    study, objective = task(study, rest, text)
    check(study)
    file = storage or text.with_suffix(".db")
    if "classify" in rest and worker is None:
        found = classified(study, rest["classify"], text)
        if as_json:
            print_json(found)
            return
        folds = ", ".join(f"{f:.3f}" for f in found.folds)
        click.echo(f"Balanced accuracy {found.accuracy:.4f} of rows that had no part in choosing (folds {folds}).")
        show(study, found.best)
        return
    with waiting(as_json or worker is not None) as say:
        if worker is None and study.workers > 1:
            say(f"{study.trials} trials by {study.workers} workers")
            parallel(text, file, study.workers)
        done = work(study, objective, file, worker or 0)
    if as_json:
        print_json(done)
    else:
        show(study, done)


def task(study: Study, rest: dict[str, Any], text: Path) -> tuple[Study, Objective]:
    import msgspec

    from leptonai.errors import SpecError

    named = [t for t in TASKS if t in rest]
    if len(named) != 1 or len(rest) != 1:
        raise SpecError(
            f"{text}: names {', '.join(rest) or 'no task'}; one of {', '.join(TASKS)} is needed",
            hint="see docs/tuning.md",
        )
    given, base = rest[named[0]], text.parent
    try:
        if named[0] == "train":
            from leptonai.improve.train.job import parse
            from leptonai.improve.tune.training import objective

            return msgspec.structs.replace(study, direction="maximize"), objective(parse(given, str(text)), base)
        if named[0] == "serve":
            from leptonai.improve.tune import serving

            study = msgspec.structs.replace(study, direction="minimize", workers=1)  # replicas share the machine
            return study, serving.objective(msgspec.convert(given, serving.Serve), base, study.seed)
        if named[0] == "classify":
            from leptonai.improve.tune import nested

            wanted = msgspec.convert(given, nested.Classify)
            rows = labelled(base, wanted)
            return msgspec.structs.replace(study, direction="maximize"), nested.objective(
                rows, nested.maker(wanted, study.seed), wanted.inner, None, wanted.augment, study.seed
            )
    except msgspec.ValidationError as e:
        raise SpecError(f"{text}: {named[0]}: {e}", hint="see docs/tuning.md for its fields") from e
    return study, own(str(given), base)


def labelled(base: Path, wanted: Any) -> Any:
    from leptonai.improve.evaluate.rows import read
    from leptonai.improve.train.job import rows_of

    path = base / wanted.data
    if wanted.group is None:
        return rows_of(path, wanted.label)
    declared = [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]
    return read(path, declared, wanted.label, (wanted.group,))


def classified(study: Study, given: Any, text: Path) -> Any:
    import msgspec

    from leptonai.improve.tune import nested

    wanted = msgspec.convert(given, nested.Classify)
    return nested.nested(labelled(text.parent, wanted), study, nested.maker(wanted, study.seed), wanted)


def own(target: str, base: Path) -> Objective:
    """The function that ``file.py:name`` means: called with the parameters and ``told(step, value) -> go on?``."""
    from leptonai.errors import SpecError
    from leptonai.runtime.loaders.python import import_file

    file, _, name = target.partition(":")
    path = base / file
    if not name or not path.is_file():
        raise SpecError(f"objective is {target!r}; it must be FILE.py:FUNCTION", hint="the path counts from the text")
    found = getattr(import_file(path), name, None)
    if not callable(found):
        raise SpecError(f"{path} has no function {name!r}", hint="objective: FILE.py:FUNCTION")
    function: Objective = found
    return function


def show(study: Study, done: Any) -> None:
    click.echo(f"Best of {done.trials} trials ({done.pruned} ended early, {done.failed} failed): {done.value:.6g}")
    print_table(
        ["PARAMETER", "VALUE"],
        [[n, f"{v:.6g}" if isinstance(v, float) else str(v)] for n, v in done.params.items()],
        "",
    )
