"""``leptonai demo``: the first thing a newcomer runs. Light to import: the CLI loads it to list its commands."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from leptonai.cli.session import Number

if TYPE_CHECKING:
    from rich.console import Console

    from leptonai.demo.story import Report
    from leptonai.drill.screen import Screen
    from leptonai.drill.stage import Stage

PIPE_WIDTH = 160  # columns where there is no terminal to ask
FAULTS = ("kill", "stop", "wrong", "leak", "slow")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON; progress goes to standard error.")
@click.option("--stay", is_flag=True, help="Keep everything running afterwards, until Ctrl-C.")
@click.option(
    "--home", type=click.Path(file_okay=False, path_type=Path), help="Home of the demo's platform, a new folder; kept."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides models, traffic and who is hit.")
@click.option("--rate", type=Number(1, 500), default=40.0, show_default=True, help="Requests a second.")
@click.option("--on", type=click.Choice(["local", "kubernetes"]), default="local", show_default=True)
@click.option("--load", metavar="COMMAND", help="Of --on kubernetes: imports an OCI archive into the nodes.")
@click.option("--only", type=click.Choice(FAULTS), multiple=True, help="Only this fault; may be given again.")
def demo(
    as_json: bool,
    stay: bool,
    home: Path | None,
    seed: int,
    rate: float,
    only: tuple[str, ...],
    on: str,
    load: str | None,
) -> None:
    """Serve a real model, break it in five real ways, watch it being repaired.

    Trains a digits classifier, serves it with two replicas behind Envoy on ports of its own, sends it real traffic,
    injects the faults one after another, and prints how long each took to be detected, diagnosed and repaired.
    Everything is removed afterwards. Exit code 0: each was repaired, with the right cause.

    \b
    Example:
      leptonai demo --stay
      leptonai demo --only kill --only leak --json
      leptonai demo --on kubernetes --load 'cluster load'
    """
    from rich.console import Console

    from leptonai.demo.story import tell
    from leptonai.drill import screen as screens
    from leptonai.drill.kinds import KINDS
    from leptonai.drill.stage import stage

    if (on == "kubernetes") != (load is not None):
        raise click.UsageError("--on kubernetes and --load go together: the models' images must reach the nodes")
    began = time.monotonic()
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    signal.signal(signal.SIGTERM, _interrupt)
    faults = [KINDS[kind] for kind in FAULTS if not only or kind in only]
    screen = screens.Plain(console) if as_json else screens.screen(console)
    with contextlib.ExitStack() as end:
        try:
            with screen, stage(home and home.absolute(), seed, rate, screen, load=load) as where:
                report = tell(where, faults, screen, seed, began)
                example = _example(where, report)
                if stay:
                    _show(report, example, console, as_json)
                    _stay(where, report, screen)
                else:  # under the progress; also when something cannot be taken down
                    end.callback(_show, report, example, console, as_json)
        except KeyboardInterrupt:
            console.print("interrupted; everything was taken down")
            sys.exit(130)
    sys.exit(0 if report.repaired else 1)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _show(report: Report, example: str, console: Console, as_json: bool) -> None:
    if as_json:
        _print_json(report)
    else:
        _print(report, example, console)


def _print(report: Report, example: str, console: Console) -> None:
    from leptonai.drill.table import faults_found, table

    if example:
        console.print("\n`leptonai report` of the last incident (--stay keeps all of them for reading):\n")
        console.print(example, markup=False, highlight=False)
    console.print()
    console.print(table(report.outcomes, console.width))
    console.print("seconds since the injection; requests sent, failed and answered wrongly until recovery", style="dim")
    for line in _complaints(report, faults_found(report.outcomes)):
        console.print(line, style="bold red", markup=False, highlight=False)
    repaired = sum(o.repaired for o in report.outcomes)
    console.print(
        f"\n{repaired} of {len(report.outcomes)} faults repaired with the right cause, "
        f"{report.seconds:.0f} s after the start",
        style="bold green" if report.repaired else "bold red",
    )


def _complaints(report: Report, found: list[str]) -> list[str]:
    stopped = [f"stopped: {report.stopped}"] if report.stopped else []
    return [*found, *(f"false alarm: {text}" for text in report.false_alarms), *stopped]


def _print_json(report: Report) -> None:
    import msgspec

    outcomes = [msgspec.to_builtins(o) | {"repaired": o.repaired, "incidents": []} for o in report.outcomes]
    whole = msgspec.to_builtins(report) | {"outcomes": outcomes, "repaired": report.repaired}
    click.echo(msgspec.json.format(msgspec.json.encode(whole)).decode())


def _example(where: Stage, report: Report) -> str:
    """What ``leptonai report`` says of the last incident of the story."""
    incident = next((o.incident for o in reversed(report.outcomes) if o.incident is not None), None)
    return "" if incident is None else where.cli("report", str(incident)).rstrip()


def _stay(where: Stage, report: Report, screen: Screen) -> None:
    """Returns at Ctrl-C."""
    incidents = ", ".join(str(o.incident) for o in report.outcomes if o.incident is not None)
    screen.note(f"\nstill up; console: {where.client.session()}")
    screen.note(f"  export LEPTONAI_HOME={where.home}")
    screen.note("  leptonai status digits; leptonai why digits; leptonai incidents")
    screen.note(f"  leptonai report N   (N: {incidents})")
    screen.doing("Ctrl-C takes everything down")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
