"""tune with `detect`: parameters of the platform's detectors on labelled series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import print_json, print_table, waiting

if TYPE_CHECKING:
    from leptonai.improve.tune.detecting import Chosen
    from leptonai.improve.tune.study import Study

NAMES = 3  # series of a fold that are named


def tune_detect(study: Study, given: Any, text: Path, file: Path, worker: int | None, as_json: bool) -> None:
    """Search, judge beside the defaults on series that had no part in it, and say what to write into settings.yaml."""
    import msgspec

    from leptonai.errors import SpecError
    from leptonai.improve.tune import detecting
    from leptonai.improve.tune.study import parallel
    from leptonai.ops.detect import labelled
    from leptonai.ops.detect.bench import Bench

    try:
        wish = msgspec.convert(given, detecting.Detect)
    except msgspec.ValidationError as e:
        raise SpecError(f"{text}: detect: {e}", hint="see docs/tuning.md for its fields") from e
    base = text.parent
    windows = None if wish.windows is None else base / wish.windows
    series = labelled.read(base / wish.data, windows, wish.label, wish.value, wish.time)
    bench = Bench(series, wish.augment, wish.profile, study.seed)
    parts = [part for one in series for part in (one.at.tobytes(), one.values.tobytes(), str(one.windows).encode())]
    study = detecting.of(study, wish, parts)
    detecting.check(wish, study, bench)
    with waiting(as_json or worker is not None) as say:
        if worker is None and study.workers > 1:
            say(f"{wish.outer + 1} searches of {study.trials} trials by {study.workers} workers")
            parallel(study, text, file)
        chosen = detecting.nested(bench, study, wish, file, worker or 0)
    if worker is not None:
        return
    own = detecting.settings(chosen, bench.defaults)
    if as_json:
        print_json({**msgspec.to_builtins(chosen), "settings": own})
    else:
        show(chosen, [one.name for one in series], own)


def show(chosen: Chosen, names: list[str], own: dict[str, Any]) -> None:
    import yaml

    rows = []
    for number, fold in enumerate(chosen.folds):
        mine = ", ".join(Path(names[i]).name for i in fold.series[:NAMES])
        more = f" and {len(fold.series) - NAMES} more" if len(fold.series) > NAMES else ""
        what = " ".join(f"{n}={v:.4g}" if isinstance(v, float) else f"{n}={v}" for n, v in fold.params.items())
        rows.append(
            [str(number), mine + more, f"{what} alarm={fold.alarm:g}", f"{fold.tuned['nab']:.1f}",
             f"{fold.default['nab']:.1f}"]
        )  # fmt: skip
    print_table(["FOLD", "SERIES HELD OUT", "CHOSEN ON THE OTHERS", "NAB", "DEFAULTS"], rows, "")
    for word, told in (("chosen without them", chosen.tuned), ("the defaults", chosen.default)):
        daily = told["false_alarms_a_day"]
        click.echo(
            f"{word}: NAB {told['nab']:.1f}, {told['found']:.0f} of {told['incidents']:.0f} incidents found, "
            f"{told['false_alarms']:.0f} false alarms" + (f" ({daily:.2g} a day)" if daily == daily else "")
        )
    if not chosen.holds:
        click.echo("The gain does not hold on series that had no part in choosing: the defaults are kept.")
        return
    click.echo("The gain holds. Into settings.yaml, in force once the platform is started again:\n")
    click.echo(yaml.safe_dump(own, sort_keys=False), nl=False)
