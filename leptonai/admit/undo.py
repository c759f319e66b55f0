"""What takes back the newest change that a person made: a pure function of the audit log and the world."""

from __future__ import annotations

from collections.abc import Iterable

from leptonai.admit.world import World, dialled
from leptonai.errors import Conflict, NotFound
from leptonai.types import PEOPLE, Change, DialChange, Event, Key, SpecChange


def taking_back(key: Key, events: Iterable[Event], world: World) -> tuple[Change, str]:
    """The change to propose, and what it takes back in words. ``events``: those of ``key``, newest first.

    The newest change of a person counts, also by a custom resource, whichever half of the wish it is in: a spec is
    wished again as it was, after a deletion the deleted one; dials go back to the values they had. A restart and an
    evict leave nothing to take back, nor does a step of a rollout (what is undone is the revision), nor a change that
    changed nothing: they are passed over. An undo is a change too: the next takes it back.

    Raises NotFound when there is none, and Conflict when somebody else has changed the same thing since.
    """
    if not world.history:
        raise NotFound(f"no service {key!r}", hint="leptonai ls shows every service")
    for event in events:
        detail = event.detail
        if event.kind != "proposal.admitted" or not detail["by"].startswith(PEOPLE):
            continue
        if "set" not in detail and detail["revision"] != detail["base"]:
            return _spec(key, detail["revision"], detail["base"], world)
        was, made = detail.get("was", {}), detail.get("set", {})
        back = {p: value for p, value in was.items() if value != made[p] and not p.startswith("rollout.")}
        if back:
            return _dials(key, back, made, world)
    raise NotFound(f"{key}: there is no change of a person to take back", hint=f"see `leptonai why {key}`")


def _spec(key: Key, made: int, base: int, world: World) -> tuple[Change, str]:
    newest = world.history[-1]
    if newest.number != made:
        raise Conflict(
            f"{key}: revision {made} is not in force any more; {newest.by} made revision {newest.number}: {newest.why}",
            hint=f"name the revision you want: leptonai undo {key} --to NUMBER",
            code="superseded",
        )
    before = next((r.spec for r in world.history if r.number == base), None)
    if before is None:
        raise NotFound(f"{key} has nothing before revision {made}", hint=f"leptonai delete {key} removes it")
    return SpecChange(spec=before, base=made if newest.spec else 0), f"undo of revision {made}: back to {base}"


def _dials(key: Key, back: dict[str, float], made: dict[str, float], world: World) -> tuple[Change, str]:
    now = dialled(world.service) if world.service else {}
    for path in back:
        if now.get(path, 0.0) != made[path]:
            last = next((d for d in reversed(world.dials) if d.path == path), None)
            whose = "it ran out" if last is None or (last.expires or world.now + 1) <= world.now else last.owner
            raise Conflict(
                f"{key}: {path} was set to {made[path]:g} and is {now.get(path, 0.0):g} by now: {whose}",
                hint=f"set it to what you want, as in `leptonai scale {key} NUMBER`",
                code="superseded",
            )
    said = ", ".join(f"{path} {made[path]:g}: back to {value:g}" for path, value in sorted(back.items()))
    return DialChange(service=key, set=back), f"undo of {said}"
