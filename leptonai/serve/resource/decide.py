"""What to do about one resource: a pure function of (what it declares, the history of its service, what was refused).

The newest word counts. A resource speaks when its generation changes, and is not repeated: what anybody else made of
the service since (a rollback, an undo, a deploy, a deletion) stands until the resource changes again, and the status
says so; also where the door would not have that generation, and would be asked again. Dials are no part of it: they
are the platform's, as ``replicas`` of a Deployment are its autoscaler's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from leptonai.serve.resource.form import ADOPT, Declared
from leptonai.serve.resource.schema import KIND
from leptonai.types import DeleteChange, Key, Proposal, Revision, SpecChange

AGAIN = (5.0, 300.0)  # seconds until what was refused is proposed again: first, at most; it doubles


class Word(NamedTuple):
    """Whether the service runs as a resource says; where not, why: ``reason`` in a word, ``message`` in a sentence."""

    ok: bool
    reason: str
    message: str


PENDING = Word(False, "Pending", "it is being seen to")  # for a moment: nobody is told


class Refused(NamedTuple):
    """The door would not have ``generation``. It is asked again at ``again``, after ``pause`` seconds."""

    generation: int
    word: Word
    again: float
    pause: float


class Known(NamedTuple):
    history: Sequence[Revision] = ()  # of the service, oldest first
    rival: str = ""  # another resource that declares the same service, and was first
    pending: Proposal | None = None  # of this generation, waiting for approval
    refused: Refused | None = None
    running: int = 0  # replicas of the service, and objects of it count as one


class Decision(NamedTuple):
    """``finalizer``: True to be put on, False to be taken off; before ``change`` is proposed."""

    word: Word
    change: SpecChange | DeleteChange | None = None
    finalizer: bool | None = None


def decide(one: Declared, known: Known, now: float) -> Decision:
    """At most one step; the word is true until the step is done."""
    life = _life(known.history)
    head = life[-1] if life else None
    owns = any(r.by.startswith(one.owner) for r in life) or (one.adopts and (not one.deleting or one.admitted > 0))
    if one.deleting:
        return _ending(one, known, head if owns else None, owns or not life, now)
    if one.spec is None:
        return Decision(Word(False, "Invalid", one.problem))
    if one.spec.key != one.key:
        said = f"it is the service {one.key} and cannot become {one.spec.key}: delete it, and make another"
        return Decision(Word(False, "Renamed", said))
    if known.rival:
        return Decision(Word(False, "Taken", f"{KIND}/{known.rival} declares {one.key} already"))
    if head is not None and not owns:
        said = f"{one.key} exists: revision {head.number} is of {head.by}; annotate {ADOPT}: 'true' to take it over"
        return Decision(Word(False, "Taken", said))
    if not one.finalized:
        return Decision(PENDING, finalizer=True)
    if head is not None and head.spec == one.spec:
        return Decision(Word(True, "Synced", f"revision {head.number} runs as generation {one.generation} says"))
    if known.history and (_spoken(one, life) or _overruled(one, known.history[-1])):
        return Decision(_held(one, known.history, life))
    if waits := _waits(known, one, now):
        return Decision(waits)
    base = head.number if head else 0
    return Decision(PENDING, SpecChange(spec=one.spec, base=base))


def failed(one: Declared, before: Refused | None, reason: str, message: str, now: float) -> Refused:
    """What becomes of a refusal: the same generation is tried later each time."""
    same = before is not None and before.generation == one.generation
    pause = min(2 * before.pause, AGAIN[1]) if before is not None and same else AGAIN[0]
    return Refused(one.generation, Word(False, reason, message), now + pause, pause)


def rivals(all_of_them: Iterable[Declared]) -> dict[str, str]:
    """uid -> the name of the resource that declares the same service and was first. Who was admitted is before who was
    not, then the older, then by name."""
    first: dict[Key, Declared] = {}
    out = {}
    for one in sorted(all_of_them, key=lambda d: (not d.admitted, d.made, d.name)):
        if (elder := first.setdefault(one.key, one)) is not one:
            out[one.uid] = elder.name
    return out


def _life(history: Sequence[Revision]) -> list[Revision]:
    """The revisions since the service was last deleted."""
    ended = max((n for n, r in enumerate(history) if r.spec is None), default=-1)
    return list(history[ended + 1 :])


def _spoken(one: Declared, life: Sequence[Revision]) -> bool:
    """Whether this very generation was admitted before: by the status, or, where that was lost, by who made what."""
    mine = [r for r in life if r.by.startswith(one.owner)]
    return one.admitted == one.generation or (bool(mine) and mine[-1].by == one.by and mine[-1].spec == one.spec)


def _overruled(one: Declared, newest: Revision) -> bool:
    """Whether others changed the service since the status told that this generation is refused or waits."""
    heard = one.status.get("observedGeneration") == one.generation
    told = int(one.status.get("revision") or 0)
    return heard and 0 < told < newest.number and not newest.by.startswith(one.owner)


def _held(one: Declared, history: Sequence[Revision], life: Sequence[Revision]) -> Word:
    newest = history[-1]
    until = "it stays so until this resource changes"
    if newest.spec is None:
        return Word(False, "Deleted", f"{newest.by} deleted {one.key}: {newest.why}; {until}")
    back = any(r.spec == newest.spec for r in life[:-1])
    said = f"revision {newest.number} of {newest.by} is in force instead: {newest.why}; {until}"
    return Word(False, "RolledBack" if back else "Overridden", said)


def _waits(known: Known, one: Declared, now: float) -> Word | None:
    if known.pending is not None:
        asked = f"{'; '.join(known.pending.reasons[:1])}: leptonai approve {known.pending.id}"
        return Word(False, "ApprovalNeeded", asked)
    if known.refused is not None and known.refused.generation == one.generation and now < known.refused.again:
        return known.refused.word
    return None


def _ending(one: Declared, known: Known, head: Revision | None, ours: bool, now: float) -> Decision:
    """``head``: of the service, where it is this resource's; ``ours``: nobody else has taken the name since."""
    word = Word(False, "Deleting", f"{one.key} drains; {known.running} left")
    if not one.finalized:
        return Decision(word)
    if head is not None and not known.rival and not one.keeps:
        if waits := _waits(known, one, now):
            return Decision(waits)
        return Decision(word, DeleteChange(service=one.key, base=head.number))
    if head is None and ours and known.running and one.admitted:
        return Decision(word)
    return Decision(word, finalizer=False)
