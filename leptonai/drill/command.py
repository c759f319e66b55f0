"""``leptonai drill``: break things on purpose. Light to import: the CLI loads it to list its commands."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from leptonai.cli.session import Number
from leptonai.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from leptonai.cli.session import Session
    from leptonai.drill.outcome import Outcome
    from leptonai.drill.plan import Plan

PIPE_WIDTH = 160  # columns where there is no terminal to ask


@click.command()
@click.argument("faults", nargs=-1, metavar="[FAULT[+FAULT]...]")
@click.option("--all", "every", is_flag=True, help="Every kind of fault and every control, one after another.")
@click.option("--list", "listing", is_flag=True, help="Print the kinds with their right answers and bounds.")
@click.option("--game-day", type=click.Path(dir_okay=False, path_type=Path), help="A plan in YAML: which, how often.")
@click.option("--live", metavar="SERVICE", help="Drill a service that people use, on its own platform.")
@click.option("--simulated", is_flag=True, help="In the simulator: seconds instead of minutes, remedies act there.")
@click.option("--yes", is_flag=True, help="Needed with --live: what is broken there is broken for its users.")
@click.option("--seed", type=int, multiple=True, help="Decides models, traffic and who is hit; may be given again.")
@click.option("--seeds", type=click.IntRange(1, 1000), metavar="N", help="Short for --seed 0 to --seed N-1.")
@click.option("--rate", type=Number(1, 500), default=16.0, show_default=True, help="Requests a second.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where outcomes are kept; else the home folder.",
)
@click.option("--resume", is_flag=True, help="Go on with a run that was cut short.")
@click.option("--json", "as_json", is_flag=True, help="Print outcomes and score as JSON; progress goes to stderr.")
@click.pass_obj
def drill(
    session: Session,
    faults: tuple[str, ...],
    every: bool,
    listing: bool,
    game_day: Path | None,
    live: str | None,
    simulated: bool,
    yes: bool,
    seed: tuple[int, ...],
    seeds: int | None,
    rate: float,
    out: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Inject real faults, and measure what the platform makes of them.

    Without --live all plays on a platform of its own, on ports of its own, which is removed afterwards. Each fault
    waits until everything is calm, is followed until it is repaired or a person is called, healed, and judged. Each
    outcome is kept at once in a file, which --resume reads. Exit code 0: every fault was named and answered rightly,
    no control was disturbed, and nothing healthy was touched.

    \b
    Example:
      leptonai drill kill stop
      leptonai drill --all --seed 0 --seed 1 --seed 2 --json
      leptonai drill kill+leak
      leptonai drill stop --live digits --yes
      leptonai drill --all --simulated --seeds 50 --resume
    """
    from leptonai.drill.campaign import on_a_copy, on_live
    from leptonai.drill.ledger import Ledger
    from leptonai.drill.plan import make_plan, read_plan
    from leptonai.drill.table import kinds_table

    console = _console(as_json)
    if listing:
        _console(False).print(kinds_table())
        return
    if game_day is not None and (faults or every):
        raise SpecError("--game-day names its faults itself", hint="give a plan, or faults")
    if seeds is not None and seed:
        raise SpecError("--seeds counts from 0, --seed names them", hint="give one of the two")
    numbers = tuple(range(seeds)) if seeds is not None else seed or (0,)
    if simulated:
        if live or game_day:
            raise SpecError("--simulated breaks nothing that runs", hint="leave out --live and --game-day")
        sys.exit(_simulate(session, faults, every, numbers, out, resume, console, as_json))
    plan = read_plan(game_day) if game_day else make_plan(faults, every, numbers, rate, bool(live))
    if live and not yes:
        raise SpecError(
            f"--live breaks {live} for its users: {', '.join(plan.names)}", hint="say --yes when that is what you want"
        )
    ledger = Ledger(out or _folder(session), plan.name if not live else f"live-{live.replace('/', '.')}")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        outcomes, stopped = (on_live if live else on_a_copy)(plan, ledger, resume, console, session.client, live or "")
    except KeyboardInterrupt:
        console.print("interrupted; everything was taken down; --resume goes on")
        sys.exit(130)
    sys.exit(_show(plan, outcomes, stopped, ledger, console, as_json))


def _simulate(
    session: Session, faults: tuple[str, ...], every: bool, seeds: tuple[int, ...], out: Path | None, resume: bool,
    console: Console, as_json: bool,
) -> int:  # fmt: skip
    from leptonai.drill.campaign import in_simulator
    from leptonai.drill.ledger import Ledger
    from leptonai.drill.plan import Plan, check
    from leptonai.drill.simulated import check as check_simulated
    from leptonai.drill.simulated import simulated_kinds

    if every and faults:
        raise SpecError("--all names every fault", hint="name faults, or say --all")
    plan = check(Plan(name="simulated", drills=simulated_kinds() if every else faults, seeds=seeds))
    check_simulated(plan.names)
    ledger = Ledger(out or _folder(session), plan.name)
    return _show(plan, in_simulator(plan, ledger, resume, console), "", ledger, console, as_json)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _folder(session: Session) -> Path:
    from leptonai.client.home import find_home

    return find_home(session.home).path


def _console(as_json: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _show(plan: Plan, outcomes: list[Outcome], stopped: str, ledger: object, console: Console, as_json: bool) -> int:
    """The exit code."""
    import msgspec

    from leptonai.drill.baselines import baselines
    from leptonai.drill.score import score
    from leptonai.drill.table import by_kind, faults_found, score_table, table

    said, others = score(outcomes), baselines(outcomes)
    good = not stopped and all(o.repaired for o in outcomes)
    if as_json:
        rows = [msgspec.to_builtins(o) | {"repaired": o.repaired, "incidents": []} for o in outcomes]
        whole = {
            "plan": plan.name,
            "score": said,
            "baselines": others,
            "outcomes": rows,
            "stopped": stopped,
            "good": good,
        }
        click.echo(msgspec.json.format(msgspec.json.encode(whole)).decode())
        return 0 if good else 1
    console.print()
    if plan.name == "simulated":
        console.print(by_kind(said))
        console.print(score_table(said, others))
        return 0 if good else 1
    console.print(table(outcomes, console.width))
    console.print(
        "seconds since the injection; requests sent, failed and answered wrongly until the answer", style="dim"
    )
    for line in [*faults_found(outcomes), *([f"not all were drilled: {stopped}"] if stopped else [])]:
        console.print(line, style="bold red", markup=False, highlight=False)
    console.print()
    console.print(score_table(said, others))
    return 0 if good else 1
