"""A plan carried out: on platforms of our own, one a seed, or on a service that people use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from leptonai.client import Client
from leptonai.drill.ledger import Ledger
from leptonai.drill.outcome import Outcome
from leptonai.drill.plan import Plan, kinds_of
from leptonai.drill.review import review
from leptonai.drill.run import conduct, wait_until_calm
from leptonai.drill.screen import Plain, Screen, screen
from leptonai.drill.stage import Place, Stage, remove, run_cli, stage
from leptonai.errors import Denied, LeptonError, PlatformError

FRESH_STAGES = 3  # in a row that do not become calm, until the rest of a seed is left out
WORK = 0.012  # seconds of a processor that one call takes where a fault can be felt only then
LEAST_READY = 2  # replicas of a service that people use: one is broken, the other serves


def done_before(plan: Plan, outcomes: list[Outcome]) -> set[tuple[str, int]]:
    """(drill, seed) that the ledger has: all faults of a combination are there."""
    have = {(o.kind, o.seed) for o in outcomes}
    return {
        (drill, seed)
        for seed in plan.seeds
        for drill in plan.names
        if all((fault.kind, seed) in have for fault in kinds_of(drill))
    }


def on_a_copy(
    plan: Plan, ledger: Ledger, resume: bool, console: Console, client: Callable[[], Client], live: str
) -> tuple[list[Outcome], str]:
    """All outcomes, those of the run that is resumed too, and why drills are missing ("": none is).

    What is left of a seed whose platforms do not become calm is left out; a run in which none ever does ends.
    """
    outcomes = ledger.read() if resume else []
    if not resume:
        ledger.clear()
    past = done_before(plan, outcomes)
    watching: Screen = Plain(console) if console.stderr else screen(console)
    note = ledger.path.with_suffix(".home")
    _take_down(note)
    early = ""
    with watching:
        for seed, heavy in [(seed, heavy) for seed in plan.seeds for heavy in (False, True)]:
            left = [d for d in plan.of(seed) if (d, seed) not in past and any(f.heavy for f in kinds_of(d)) == heavy]
            tries = 0
            while left:
                before, why = len(left), ""
                work = WORK if heavy else 0.0
                with _noted(stage(None, seed, plan.rate, watching, whole=True, work=work), note) as where:
                    place = where.place()
                    while left and not why:
                        try:
                            why = wait_until_calm(place, watching)
                            if not why:
                                outcomes += _one(place, left[0], seed, ledger, watching)
                                left.pop(0)
                                watching.rows(outcomes)
                        except LeptonError as e:
                            why = e.message
                if left:
                    tries = tries + 1 if len(left) == before else 1
                    watching.note(f"{why}; going on with a fresh platform")
                    if tries >= FRESH_STAGES:
                        early = early or why
                        watching.note(f"left out, of seed {seed}: {', '.join(left)}")
                        if not outcomes:
                            return outcomes, early
                        break
    return outcomes, early


def on_live(
    plan: Plan, ledger: Ledger, resume: bool, console: Console, client: Callable[[], Client], live: str
) -> tuple[list[Outcome], str]:
    """The same against ``live``, a service that people use. Denied when it is in no state to be drilled."""
    outcomes = ledger.read() if resume else []
    past = done_before(plan, outcomes)
    watching: Screen = Plain(console) if console.stderr else screen(console)
    with watching, client() as found:
        for seed in plan.seeds:
            for drill in [d for d in plan.of(seed) if (d, seed) not in past]:
                place = fit_to_be_drilled(found, live)
                if why := wait_until_calm(place, watching):
                    return outcomes, why
                outcomes += _one(place, drill, seed, ledger, watching)
    return outcomes, ""


def in_simulator(plan: Plan, ledger: Ledger, resume: bool, console: Console) -> list[Outcome]:
    """The same over simulated causes: all drills of a seed side by side in one world, seconds instead of minutes."""
    from leptonai.drill.simulated import drill_seed

    outcomes = ledger.read() if resume else []
    if not resume:
        ledger.clear()
    past = done_before(plan, outcomes)
    for seed in plan.seeds:
        if all((drill, seed) in past for drill in plan.names):
            continue
        for outcome in drill_seed(seed, plan.names):
            if (outcome.kind, seed) not in past:
                ledger.append(outcome)
                outcomes.append(outcome)
        console.print(f"seed {seed}: {len(outcomes)} drills so far", markup=False, highlight=False)
    return outcomes


def fit_to_be_drilled(client: Client, key: str) -> Place:
    """The service as a place to drill, when it stands one replica less. Denied otherwise, saying why.

    The rails: two ready replicas, nothing under way, no open incident, and the error budget is not spent.
    """
    view = client.service(key)
    ready = [r for r in view.replicas if r.state == "ready"]
    hint = "a drill is for a service that is well"
    if len(ready) < LEAST_READY:
        raise Denied(f"{key} has {len(ready)} ready replica(s), {LEAST_READY} are needed", hint=hint)
    if view.service.canary is not None or len(ready) != view.wanted:
        raise Denied(f"{key} is changing: {view.status}", hint=hint)
    if opened := [i for i in client.incidents(open=True) if i.subject.rpartition("/")[2] == key.rpartition("/")[2]]:
        raise Denied(f"incident {opened[0].id} of {key} is open", hint=hint)
    spent = client.availability(key).budget_spent_share
    if spent is not None and spent >= 1.0:
        raise Denied(f"{key} has spent its error budget", hint=hint)
    return Place(client, key, view.service.spec, view.wanted)


def _one(place: Place, drill: str, seed: int, ledger: Ledger, watching: Screen) -> list[Outcome]:
    found = conduct(place, kinds_of(drill), seed, watching)
    for outcome in found:
        ledger.append(outcome)
        if not review(place.client, outcome) and outcome.incident is not None and not outcome.control:
            watching.note(f"  incident {outcome.incident} could not be labelled")
        for line in (*outcome.missing, *outcome.harm, *outcome.noise):
            watching.note(f"  ! {line}")
    return found


@contextlib.contextmanager
def _noted(made: contextlib.AbstractContextManager[Stage], note: Path) -> Iterator[Stage]:
    """The stage, with its home written down: whoever resumes after a kill takes it down first."""
    with made as where:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(where.home))
        yield where
    note.unlink(missing_ok=True)


def _take_down(note: Path) -> None:
    """What a run that was killed left behind is gone."""
    if not note.exists():
        return
    home = Path(note.read_text())
    if home.is_dir():
        with contextlib.suppress(PlatformError):
            run_cli(home, "down")
        remove(home)
    note.unlink()
