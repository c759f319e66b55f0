"""Which drills are run, in which order, how often: made of what was asked for, or read from a game day's YAML."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from leptonai.drill.kinds import CONTROLS, FAULTS, KINDS, Fault
from leptonai.errors import SpecError
from leptonai.types import Noun
from leptonai.yaml import decode

MOST_DRILLS = 10_000
MOST_TOGETHER = 2  # faults at once: with more, nobody can say whose cause is whose


class Plan(Noun, frozen=True, kw_only=True):
    """``drills``: kinds, two together as ``kill+leak``. Each seed goes through all of them, on a platform of its own.

    ``shuffle``: in an order that the seed decides. ``rate``: requests a second.
    """

    name: str = "game-day"
    drills: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    rate: float = 16.0
    shuffle: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.drills))

    def of(self, seed: int) -> list[str]:
        """The drills of one seed, in order."""
        order = list(self.drills)
        if self.shuffle:
            random.Random(seed).shuffle(order)
        return order


def kinds_of(drill: str) -> list[Fault]:
    """The faults of ``kill`` or ``kill+leak``. SpecError for what is none."""
    names = [name.strip() for name in drill.split("+")]
    if unknown := [n for n in names if n not in KINDS]:
        raise SpecError(f"no such fault {unknown[0]!r}", hint=f"known: {', '.join(KINDS)}")
    if len(names) > MOST_TOGETHER:
        raise SpecError(f"{drill!r} breaks {len(names)} things at once, the limit is {MOST_TOGETHER}")
    if len(set(names)) < len(names):
        raise SpecError(f"{drill!r} names one fault twice")
    found = [KINDS[n] for n in names]
    if len(found) > 1 and any(f.control for f in found):
        raise SpecError(f"{drill!r}: a control breaks nothing, so it is no part of a combination")
    if len(found) > 1 and sum(f.breaks == "revision" for f in found) > 1:
        raise SpecError(f"{drill!r}: a service has one newest revision", hint="combine it with a fault of another sort")
    return found


def check(plan: Plan, live: bool = False) -> Plan:
    """The plan, when it can be carried out. SpecError naming the field, the value and what was expected."""
    if not plan.drills:
        raise SpecError("the plan has no drills", hint=f"known: {', '.join(KINDS)}")
    if not plan.seeds or len(set(plan.seeds)) < len(plan.seeds) or min(plan.seeds) < 0:
        raise SpecError(f"seeds are {list(plan.seeds)}", hint="name at least one, each once, none below 0")
    if not 1.0 <= plan.rate <= 500.0:
        raise SpecError(f"rate is {plan.rate:g} requests a second", hint="between 1 and 500")
    if len(plan.drills) * len(plan.seeds) > MOST_DRILLS:
        raise SpecError(f"{len(plan.drills) * len(plan.seeds)} drills, the limit is {MOST_DRILLS}")
    if not plan.name.replace("-", "").replace("_", "").isalnum():
        raise SpecError(f"name is {plan.name!r}", hint="letters, digits, - and _: a file is called so")
    for drill in plan.drills:
        found = kinds_of(drill)
        if live and (len(found) > 1 or not found[0].live):
            fit = ", ".join(f.kind for f in FAULTS if f.live)
            raise SpecError(f"{drill} is not done to a service that people use", hint=f"with --live: {fit}")
    return plan


def read_plan(path: Path) -> Plan:
    """The checked plan in ``path``. SpecError naming the file and the fault."""
    try:
        plan = decode(path.read_bytes(), Plan)
    except OSError as e:
        raise SpecError(f"{path}: {e.strerror or e}", hint="name a readable YAML file") from e
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise SpecError(f"{path}: {e}", hint="see docs/drills.md for the form of a game day") from e
    try:
        return check(plan)
    except SpecError as e:
        raise SpecError(f"{path}: {e.message}", hint=e.hint) from e


def make_plan(faults: Sequence[str], every: bool, seeds: Sequence[int], rate: float, live: bool = False) -> Plan:
    """What the command line asks for."""
    if every:
        if faults:
            raise SpecError("--all names every fault", hint="name faults, or say --all")
        faults = [f.kind for f in (*CONTROLS[:1], *FAULTS, *CONTROLS[1:]) if f.live or not live]
    return check(Plan(name="all" if every else "drill", drills=tuple(faults), seeds=tuple(seeds), rate=rate), live=live)
