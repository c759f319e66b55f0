"""What can be done next about an incident."""

from __future__ import annotations

from leptonai.ops.respond.plan import Plan
from leptonai.types import Change, Noun, Verdict


class Wait(Noun, frozen=True, kw_only=True):
    why: str


class Propose(Noun, frozen=True, kw_only=True):
    """Put the plan to the door. ``ask``: why a person must approve it first; ``keep``: the change that would take it
    back, None where it is not to be."""

    plan: Plan
    ask: str = ""
    undo: Change | None = None

    @property
    def remedy(self) -> str:
        return self.plan.remedy


class Recommend(Noun, frozen=True, kw_only=True):
    """Record what would be done, and do nothing. ``why`` nothing."""

    plan: Plan
    why: str


class Judge(Noun, frozen=True, kw_only=True):
    """The last action is judged."""

    verdict: Verdict
    detail: str


class TakeBack(Noun, frozen=True, kw_only=True):
    """Put the change that undoes the last action to the door."""

    change: Change
    why: str


class Escalate(Noun, frozen=True, kw_only=True):
    """A person is needed; nothing more is proposed."""

    why: str


class Close(Noun, frozen=True, kw_only=True):
    """``remedy``: what to note as the action when none was taken; "" leaves the actions as they are."""

    why: str
    remedy: str = ""


Act = Wait | Propose | Recommend | Judge | TakeBack | Escalate | Close
