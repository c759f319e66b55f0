"""classify: train, judge and show the classifiers that vote beside the rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import Session, json_option, print_json, print_table

if TYPE_CHECKING:
    from leptonai.ops.classify.samples import Sample
    from leptonai.ops.classify.score import Score

DRAWN = 1440  # worlds
OWN = 5  # times that what the platform has lived through counts, beside one that was simulated
PAGE = 1000
APART = 1_000_003  # between the seeds of what is learnt from and of what is judged by
COLUMNS = ["", "INCIDENTS", "FIRST", "FIRST TWO", "MACRO-F1", "CALIBRATION"]
DRILLS = click.Path(exists=True, path_type=Path)


@click.group()
def classify() -> None:
    """Train, judge and show the classifiers that vote beside the rules.

    \b
    Example:
      leptonai classify show
    """


@classify.command()
@json_option
@click.pass_obj
def show(session: Session, as_json: bool) -> None:
    """Show the classifier in force: its version, what it was trained on, how much each voter counts.

    \b
    Example:
      leptonai classify show --json
    """
    from leptonai.ops.classify.ensemble import RULES
    from leptonai.ops.classify.files import FOLDER, Newest

    newest = Newest(session.folder().path / FOLDER)
    made = newest.ensemble
    if made is None:
        told: dict[str, Any] = {"version": "", "weights": {}}
    else:
        weights = dict(zip([*(m.name for m in made.models), RULES], made.weights, strict=True))
        told = {"version": newest.version, "weights": weights, "reach": made.reach, "about": made.about}
    told["broken"] = newest.broken.message if newest.broken else ""
    if as_json:
        return print_json(told)
    if made is None:
        click.echo("No classifier: the rules stand alone. `leptonai classify train` makes one.")
    else:
        about = ", ".join(f"{k} {v}" for k, v in made.about.items() if k != "held_out")
        click.echo(f"Version {newest.version}: {about}.")
        if isinstance(held := made.about.get("held_out"), dict):
            low, high = held["interval"]
            click.echo(
                f"On {held['incidents']} incidents that it has not seen: right first {held['first']:.3f}, macro-F1 "
                f"{held['macro_f1']:.3f} ({low:.3f} to {high:.3f}), calibration error {held['calibration']:.3f}."
            )
        click.echo("Weights: " + ", ".join(f"{k} {v:.2f}" for k, v in told["weights"].items()))
    if newest.broken:
        click.echo(f"warning: {newest.broken.message}", err=True)


@classify.command()
@click.option("--simulated", type=click.IntRange(min=0), default=DRAWN, show_default=True, metavar="N",
              help="Simulated worlds with a fault each to learn from.")  # fmt: skip
@click.option("--judge", type=click.IntRange(min=0), default=240, show_default=True, metavar="N",
              help="Others to judge the new classifier by.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the simulated worlds.")
@click.option("--reviewed", is_flag=True, help="Learn also from the platform's incidents whose cause was told.")
@click.option(
    "--drills", type=DRILLS, multiple=True, help="Learn also from drills: a file or folder of their outcomes."
)
@json_option
@click.pass_obj
def train(
    session: Session, simulated: int, judge: int, seed: int, reviewed: bool, drills: tuple[Path, ...], as_json: bool
) -> None:
    """Train a classifier; it is kept only when it is better than the one in force on incidents neither has seen.

    Without --reviewed and --drills the same numbers and seed give the same classifier. The platform takes a new version
    up within a round.

    \b
    Example:
      leptonai classify train --reviewed
    """
    from leptonai.ops.classify.files import FOLDER, Newest, keep
    from leptonai.ops.classify.renew import renew
    from leptonai.ops.classify.samples import drilled

    live = drilled(drills)
    lived = [*(_reviewed(session) if reviewed else []), *live]
    learn = _drawn(seed, simulated, "learn") if simulated else []
    held = _drawn(seed + APART, judge, "judge") if judge else []
    taught, judges = dealt(lived)
    learn, held = learn + taught, held + judges
    about: dict[str, object] = {"simulated": simulated, "reviewed": reviewed, "drills": len(live)}
    folder = session.folder().path / FOLDER
    found = renew(learn, held, Newest(folder).ensemble, seed)
    found.ensemble.about.update(about | {"held_out": _whole(found.after)})
    kept = str(keep(folder, found.ensemble)) if found.kept else ""
    if as_json:
        before = _brief(found.before) if found.before else None
        return print_json({"kept": kept, "before": before, "after": _brief(found.after), "gain": found.gain})
    rows = [_row("in force", found.before)] if found.before else []
    print_table(COLUMNS, [*rows, _row("new", found.after)], "")
    click.echo(f"Kept as version {kept}." if kept else "Not kept: it is no better than the one in force.")


@classify.command()
@click.option("--simulated", type=click.IntRange(min=100), default=DRAWN, show_default=True, metavar="N",
              help="Simulated worlds to be scored on, with a fault each.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the simulated worlds.")
@click.option("--by", "how", type=click.Choice(["all", "service"]), default="all", show_default=True,
              help="Held out: service, load shape and severity at once, or service alone.")  # fmt: skip
@click.option("--drills", type=DRILLS, multiple=True,
              help="Score the classifier in force on drills instead: a file or folder of their outcomes.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write one that has learnt from all of them here, with these scores, as ours was.")  # fmt: skip
@json_option
@click.pass_obj
def evaluate(
    session: Session, simulated: int, seed: int, how: str, drills: tuple[Path, ...], out: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Score rules, each classifier and the ensemble on incidents held out by service, load shape and severity.

    With --drills the classifier in force is scored on incidents of real processes.

    \b
    Example:
      leptonai classify evaluate --simulated 600
      leptonai classify evaluate --drills ~/.leptonai/drills
    """
    from leptonai.ops.classify.evaluate import ENSEMBLE, by_service, held_out, strictly
    from leptonai.ops.classify.renew import whole

    if drills:
        return _on_drills(session, drills, as_json)
    samples = _drawn(seed, simulated, "")
    found = held_out(samples, strictly if how == "all" else by_service, seed)
    if out is not None:
        whole(samples, seed, {"simulated": simulated, "held_out": _whole(found.scores[ENSEMBLE])}, out)
    if as_json:
        return print_json({name: _whole(s) for name, s in found.scores.items()})
    rows = [_row(name, s) for name, s in found.scores.items()]
    print_table(COLUMNS, rows, "")
    _by_cause(found.scores[ENSEMBLE])


def _on_drills(session: Session, drills: tuple[Path, ...], as_json: bool) -> None:
    """The live result: the classifier in force is asked about incidents that it was not made from."""
    from leptonai.errors import NotFound
    from leptonai.ops.classify.evaluate import ENSEMBLE, lived_by
    from leptonai.ops.classify.files import FOLDER, Newest
    from leptonai.ops.classify.samples import drilled
    from leptonai.series.proportion import wilson

    newest = Newest(session.folder().path / FOLDER)
    if newest.ensemble is None:
        raise NotFound("no classifier is in force", hint="leptonai classify train makes one")
    found = lived_by(newest.ensemble, drilled(drills))
    learnt = newest.ensemble.about.get("drills")
    bounds = {n: [float(b) for b in wilson(round(s.accuracy * s.count), s.count)] for n, s in found.scores.items()}
    if as_json:
        scores = {n: _whole(s) | {"first_interval": bounds[n]} for n, s in found.scores.items()}
        pairs = {"gained": found.gained, "lost": found.lost, "chance": found.chance}
        return print_json({"version": newest.version, "learnt_drills": learnt, "scores": scores, **pairs})
    rows = [[*_row(n, s), "{:.2f} to {:.2f}".format(*bounds[n])] for n, s in found.scores.items()]
    print_table([*COLUMNS, "FIRST, 95 %"], rows, "")
    click.echo(
        f"\nBeside the rules alone, version {newest.version} is right in {found.gained} more and wrong in {found.lost} "
        f"more; chance alone: {found.chance:.2f}."
    )
    if learnt:
        click.echo(f"It has learnt from {learnt} incidents of drills: if these are among them, this is no test.")
    _by_cause(found.scores[ENSEMBLE])


def _by_cause(best: Score) -> None:
    click.echo(f"\nThe ensemble, by cause; macro-F1 {best.low:.3f} to {best.high:.3f} (95 %):")
    wrong = {t: {s: n for s, n in row.items() if s != t} for t, row in best.confusion.items()}
    print_table(
        ["CAUSE", "INCIDENTS", "PRECISION", "RECALL", "F1", "TAKEN FOR"],
        [
            [c.cause, str(c.count), f"{c.precision:.2f}", f"{c.recall:.2f}", f"{c.f1:.2f}",
             ", ".join(f"{s} {n}" for s, n in sorted(wrong[c.cause].items(), key=lambda w: -w[1]))]
            for c in best.classes
        ],
        "",
    )  # fmt: skip


def _drawn(seed: int, count: int, name: str) -> list[Sample]:
    """Half of the worlds by each of two processes, of seeds that no other ``seed`` has."""
    from concurrent.futures import ProcessPoolExecutor

    from leptonai.ops.classify.samples import drawn
    from leptonai.ops.simulate.cases import draw

    click.echo(f"simulating {count} worlds ...", err=True)
    seeds, counts = (2 * seed - 1, 2 * seed), ((count + 1) // 2, count // 2)
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(draw, seeds, counts))
    return [s for own, one in zip(seeds, found, strict=True) for s in drawn(one.cases, f"{name}{own}-")]


def dealt(lived: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """What is learnt from and what judges, of what the platform has lived through: every fourth judges, each of the
    others is learnt from OWN times."""
    learn = [sample for i, sample in enumerate(lived) if i % 4 != 3 for _ in range(OWN)]
    return learn, [sample for i, sample in enumerate(lived) if i % 4 == 3]


def _reviewed(session: Session) -> list[Sample]:
    from leptonai.ops.classify.samples import lived
    from leptonai.ops.learn.reviews import truths

    client = session.client()
    reviews = []
    after = 0
    while (page := client.all_reviews(after, PAGE)).items:
        reviews += [review for _, review in page.items]
        after = page.next
    known = truths(reviews)
    return lived([client.incident(id) for id in sorted(known)], known)


def _row(name: str, s: Score) -> list[str]:
    return [
        name,
        str(s.count),
        f"{s.accuracy:.3f}",
        f"{s.second:.3f}",
        f"{s.macro_f1:.3f}",
        f"{s.calibration:.3f}",
    ]


def _brief(s: Score) -> dict[str, Any]:
    return {
        "incidents": s.count, "first": s.accuracy, "first_two": s.second, "macro_f1": s.macro_f1,
        "interval": [s.low, s.high], "calibration": s.calibration,
    }  # fmt: skip


def _whole(s: Score) -> dict[str, Any]:
    by_cause = {
        c.cause: {"incidents": c.count, "precision": c.precision, "recall": c.recall, "f1": c.f1} for c in s.classes
    }
    return _brief(s) | {"causes": by_cause, "confusion": s.confusion, "bins": s.bins}
