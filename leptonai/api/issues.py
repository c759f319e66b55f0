"""Issues: complaints of users that say the same, who sees to them, and whether the repair helped."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from leptonai.api.route import Asked, Limit, Query, Route
from leptonai.client.wire import IssueRequest, IssueVerdict
from leptonai.errors import Conflict, NotFound, SpecError
from leptonai.ops.feedback.issues import complained
from leptonai.ops.feedback.kpi import complains
from leptonai.ops.logs.privacy import Masker
from leptonai.ops.report.safe import plain
from leptonai.store import Store
from leptonai.types import Feedback, Issue, Service, Survey, parse_key

MOST_OWNER, MOST_NOTE = 100, 1000  # characters
_MASKER = Masker()


class Which(Query, frozen=True, kw_only=True):
    state: Literal["open", "in_work", "fixed", "closed"] | None = None
    service: str | None = None
    limit: Limit = 200


def take_up(store: Store, item: Feedback, service: Service) -> None:
    """A complaint in words is counted with those that say the same; called in the transaction that keeps the item."""
    if not item.note.strip() or item.about.startswith("incident:"):
        return
    if not complains(item, service.spec.survey or Survey()):
        return
    text = plain(_MASKER.mask(item.note))
    issue, terms, gone = complained(service.key, text, item.at, store.issue_terms(service.key))
    if gone:
        store.drop_issue(gone)
    store.put_issue(issue, terms)


def issues(asked: Asked[Which, None]) -> list[Issue]:
    """The issues that the token covers, the newest complaint first."""
    q = asked.query
    found = asked.world.store.issues(q.service, q.state, min(q.limit, 1000))
    return [i for i in found if asked.covers(parse_key(i.service)[0])]


def issue(asked: Asked[Query, None]) -> Issue:
    """One issue with its newest texts, masked."""
    return _found(asked.world.store.issue(asked.path["id"]), asked)


def change_issue(asked: Asked[Query, IssueRequest]) -> Issue:
    """The issue with another owner, state, repairing revision or note."""
    world, body, now = asked.world, asked.body, asked.world.clock()
    for name, text, most in (("owner", body.owner, MOST_OWNER), ("note", body.note, MOST_NOTE)):
        if text is not None and len(text) > most:
            raise SpecError(f"the {name} has {len(text)} characters, the limit is {most}", hint="say it shorter")
    with world.store.transaction():
        found = _found(world.store.issue(asked.path["id"]), asked)
        given = {f: v for f in ("state", "owner", "revision", "note") if (v := getattr(body, f)) is not None}
        if not given:
            raise SpecError(
                f"issue {found.id}: nothing is to change", hint="give a state, an owner, a revision or a note"
            )
        if body.revision is not None and (body.state or found.state) != "fixed":
            raise SpecError("a revision repairs an issue in state fixed only", hint='send "state": "fixed" with it')
        if body.state == "fixed":
            given |= {"fixed": now, "closed": None, "before": None, "after": None}
            number = body.revision or found.revision
            if number is None:
                raise SpecError(f"issue {found.id}: which revision repairs it?", hint="`--revision N`")
            if number not in [r.number for r in world.store.revisions(found.service)]:
                raise NotFound(f"{found.service} has no revision {number}", hint=f"leptonai status {found.service}")
        elif body.state == "closed":
            given |= {"closed": now}
        elif body.state is not None:
            given |= {"fixed": None, "closed": None}
        made = world.store.put_issue(msgspec.structs.replace(found, **given))
        detail = {"issue": made.id, "title": made.title, "state": made.state, "owner": made.owner}
        world.record("issue.changed", made.service, detail | {"revision": made.revision}, asked.caller.by)
    return made


def judge_issue(asked: Asked[Query, IssueVerdict]) -> Issue:
    """What ops has seen since the repair: the issue is closed when complaints became rarer, else open again."""
    world, body = asked.world, asked.body
    with world.store.transaction():
        found = _found(world.store.issue(asked.path["id"]), asked)
        if found.state != "fixed":
            raise Conflict(f"issue {found.id} is {found.state}, not fixed", hint="somebody changed it meanwhile")
        text = f"complaints per request {body.before:.3g} before, {body.after:.3g} since revision {found.revision}"
        made = msgspec.structs.replace(found, before=body.before, after=body.after, note=text)
        if body.fell:
            made = msgspec.structs.replace(made, state="closed", closed=world.clock())
        else:
            made = msgspec.structs.replace(made, state="open", fixed=None)
        world.store.put_issue(made)
        detail = {"issue": made.id, "fell": body.fell, "before": body.before, "after": body.after, "p": body.chance}
        world.record("issue.verified", made.service, detail, asked.caller.by)
    return made


def _found(found: Issue, asked: Asked[Any, Any]) -> Issue:
    if not asked.caller.covers(parse_key(found.service)[0]):
        raise NotFound(f"no issue {found.id}", hint="leptonai issues lists them")
    return found


ROUTES = [
    Route("GET", "/issues", "viewer", issues, list[Issue], query=Which),
    Route("GET", "/issues/{id:int}", "viewer", issue, Issue),
    Route("POST", "/issues/{id:int}", "operator", change_issue, Issue, body=IssueRequest),
    Route("POST", "/issues/{id:int}/verdict", "operator", judge_issue, Issue, body=IssueVerdict),
]
