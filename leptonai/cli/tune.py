"""tune: search parameters of training, classifying, detecting or serving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import Session, json_option, key_of, print_json, print_table, waiting, workspace_option

if TYPE_CHECKING:
    from leptonai.client.wire import ServiceView
    from leptonai.improve.tune.serving import Measured, Serving
    from leptonai.improve.tune.study import Objective, Study

storage_type = click.Path(dir_okay=False, path_type=Path)
TASKS = ("objective", "train", "classify", "detect", "serve")


@click.command()
@click.argument("text", type=click.Path(path_type=Path))
@click.option("--storage", type=storage_type, help="SQLite file of the trials; else TEXT.db. Goes on.")
@click.option("--deploy", "service", metavar="SERVICE", help="Propose the chosen knobs of serving to this service.")
@click.option("--worker", type=click.IntRange(0), hidden=True)
@workspace_option
@json_option
@click.pass_obj
def tune(
    session: Session,
    text: Path,
    storage: Path | None,
    service: str | None,
    worker: int | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Search the parameters that TEXT names, by trials; a search that was interrupted goes on.

    Of serving, what every trial measured is shown, and with --deploy the choice becomes a revision on probation. Of
    detecting, the choice is judged beside the defaults on series that had no part in it, and what to write into
    settings.yaml is shown where the gain holds.

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
    file = storage or text.with_suffix(".db")
    if service is not None and "serve" not in rest:
        from leptonai.errors import SpecError

        raise SpecError(f"--deploy is for knobs of serving; {text} has none", hint="see `serve` in docs/tuning.md")
    if list(rest) == ["detect"]:
        from leptonai.cli.tune_detect import tune_detect

        tune_detect(study, rest["detect"], text, file, worker, as_json)
        return
    study, objective = task(study, rest, text, file.with_suffix(".trials.jsonl"))
    check(study)
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
            parallel(study, text, file)
        done = work(study, objective, file, worker or 0)
    if "serve" in rest:
        from leptonai.improve.tune import serving

        assert isinstance(objective, serving.Serving)
        served(session, objective, done, service and key_of(service, workspace), as_json)
    elif as_json:
        print_json(done)
    else:
        show(study, done)


def task(study: Study, rest: dict[str, Any], text: Path, trials: Path) -> tuple[Study, Objective]:
    """``trials``: where what serving measured is kept."""
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

            wish = msgspec.convert(given, serving.Serve)
            unit = f"{study.name}, {wish.aim} beside a reference"  # values of another unit are another study's
            study = msgspec.structs.replace(study, name=unit, direction="minimize", workers=1)  # one machine
            return study, serving.Serving(wish, base, study.seed, trials)
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


def served(session: Session, objective: Serving, done: Any, key: str | None, as_json: bool) -> None:
    """What each trial measured, which are on the front, and the choice; proposed to ``key`` unless None."""
    from leptonai.errors import SpecError
    from leptonai.improve.tune import serving

    assert objective.file is not None
    view: ServiceView | None = None
    latency = objective.task.latency
    if key is not None and latency is None:
        with session.client() as client:
            latency = client.service(key).service.spec.slo.latency
    trials = serving.kept(objective.file)
    chosen = serving.choice(trials, latency)
    if key is not None:
        if chosen is None:
            raise SpecError(
                f"no setting answers all that comes, 99 % within {(latency or 0) * 1e3:g} ms; nothing is proposed",
                hint="allow more replicas or threads in the space, or less traffic",
            )
        view = proposed(session, objective, chosen, key)
    if as_json:
        print_json({"best": done, "trials": trials, "chosen": chosen, "service": view})
        return
    best = serving.front(trials)
    names = sorted({name for t in trials for name in t.params})
    rows = [
        [
            *(f"{v:.4g}" if isinstance(v := t.params.get(n, "-"), float) else str(v) for n in names),
            f"{1e3 * t.p50:.2f}", f"{1e3 * t.p99:.2f}", f"{t.beside99:.2f}", f"{1e3 * t.cpu:.2f}", f"{t.rate:.0f}",
            str(t.processors),
            "chosen" if t is chosen else "front" if t in best else "",
        ]
        for t in sorted(trials, key=lambda t: t.slow)
    ]  # fmt: skip
    print_table(
        [*(n.upper() for n in names), "p50 MS", "p99 MS", "BESIDE", "CPU MS", "A SECOND", "PROCESSORS", ""], rows, ""
    )
    if chosen is None:
        click.echo(f"No setting answers all that comes, 99 % within {(latency or 0) * 1e3:g} ms.")
    if view is not None:
        click.echo(f"{view.key} revision {view.service.revision}: {view.status}.")


def proposed(session: Session, objective: Serving, chosen: Measured, key: str) -> ServiceView:
    from leptonai.improve import propose
    from leptonai.improve.tune import serving

    params = chosen.params
    model = objective.model(params) if params.get("precision", "fp32") != "fp32" else None
    threads, replicas = (int(params[n]) if n in params else None for n in ("threads", "replicas"))
    why = (
        f"tune: {1e3 * chosen.p99:.1f} ms at p99, {chosen.rate:.0f} answers a second on {chosen.processors} processors"
    )
    with session.client() as client:
        spec = client.service(key).service.spec
        return client.deploy(propose.tuned(spec, serving.batching(params), threads, replicas, model), why=why)
