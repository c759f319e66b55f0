"""What reviews have taught, and taking it back."""

from __future__ import annotations

import msgspec

from leptonai.api.route import Asked, Query, Route
from leptonai.client.learnt import FOLDER, LEARNT, RESET, Learnt, Reset, ResetRequest
from leptonai.errors import LeptonError, SpecError
from leptonai.platforms.local.rundir import write_atomically

MOST_WHY = 1000


def learnt(asked: Asked[Query, None]) -> Learnt:
    """What is in force of what reviews taught: rules, limits, the order of remedies, and its worth on held-out ones."""
    try:
        return msgspec.json.decode((asked.world.home / FOLDER / LEARNT).read_bytes(), type=Learnt)
    except FileNotFoundError:
        return Learnt()
    except (OSError, msgspec.MsgspecError) as e:
        raise LeptonError(
            f"what was learnt cannot be read: {e}", hint="it is written anew after the next review"
        ) from e


def reset(asked: Asked[Query, ResetRequest]) -> Reset:
    """What all reviews so far taught is taken back; they are kept, and later ones teach."""
    return _keep(asked, asked.world.store.last_review(), "learnt.reset")


def restore(asked: Asked[Query, ResetRequest]) -> Reset:
    """Every review teaches again."""
    return _keep(asked, 0, "learnt.restored")


def _keep(asked: Asked[Query, ResetRequest], after: int, kind: str) -> Reset:
    world, why = asked.world, asked.body.why.strip()
    if not why or len(why) > MOST_WHY:
        raise SpecError(f"why has {len(why)} characters, 1 to {MOST_WHY} are allowed", hint="say why, for the record")
    made = Reset(after=after, by=asked.caller.by, at=world.clock(), why=why)
    folder = world.home / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        write_atomically(folder / RESET, msgspec.json.encode(made))
    except OSError as e:
        raise LeptonError(f"{folder} cannot be written: {e.strerror}", hint="nothing was taken back") from e
    world.record(kind, "ops", {"after": after, "why": why}, asked.caller.by)
    return made


ROUTES = [
    Route("GET", "/learnt", "viewer", learnt, Learnt),
    Route("POST", "/learnt/reset", "operator", reset, Reset, body=ResetRequest),
    Route("POST", "/learnt/restore", "operator", restore, Reset, body=ResetRequest),
]
