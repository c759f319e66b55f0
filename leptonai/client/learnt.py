"""What reviews have taught, as it is shown: rules, limits, the order of remedies, and what that is worth."""

from __future__ import annotations

from leptonai.types import Noun

FOLDER, LEARNT, RESET = "learnt", "learnt.json", "reset.json"  # <home>/learnt/...: written by ops, and by control


class RuleLearnt(Noun, frozen=True, kw_only=True):
    """``alone`` and ``beside``: the confidence now, where no rule for another cause holds and where one does. The four
    counts: reviewed incidents in which it held, weighed by reviewer. ``limits``: those that were moved, from -> to."""

    cause: str
    about: str
    when: str
    declared: float
    alone: float
    beside: float
    right: float
    wrong: float
    right_beside: float
    wrong_beside: float
    limits: dict[str, str] = {}


class HeldOut(Noun, frozen=True, kw_only=True):
    """Reviewed incidents of one cause (or of all), each diagnosed by what the others teach; how many right first."""

    incidents: int
    before: int
    after: int


class Learnt(Noun, frozen=True, kw_only=True):
    """``in_force``: diagnosis uses it; ``why`` it does not, or what it is made of. ``after``: reviews up to this number
    teach nothing, because somebody took back what they taught. ``orders``: of a cause, the remedies as declared and as
    they are tried now."""

    at: float = 0.0
    reviews: int = 0
    incidents: int = 0
    after: int = 0
    in_force: bool = False
    why: str = "nothing was reviewed yet"
    rules: tuple[RuleLearnt, ...] = ()
    orders: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    total: HeldOut = HeldOut(incidents=0, before=0, after=0)
    causes: dict[str, HeldOut] = {}


class ResetRequest(Noun, frozen=True, kw_only=True):
    why: str


class Reset(Noun, frozen=True, kw_only=True):
    """What reviews up to number ``after`` taught is taken back; 0: nothing is."""

    after: int
    by: str
    at: float
    why: str
