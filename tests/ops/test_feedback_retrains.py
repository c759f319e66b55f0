"""What docs/feedback.md says of complaints that begin a retraining is what the engine does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec

from leptonai.ops.diagnosis.cases import run
from leptonai.ops.diagnosis.files import book_with
from leptonai.ops.feedback.issues import HOUR
from leptonai.ops.feedback.listener import Listener
from leptonai.ops.openers import Openers
from leptonai.ops.remedies import load_remedies
from leptonai.ops.respond import Propose, Sight, next_action
from leptonai.ops.runbook import load_runbook
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Ops
from leptonai.types import (
    Cause,
    Dials,
    Incident,
    Issue,
    JobChange,
    Replica,
    Revision,
    Service,
    Signal,
    Spec,
    Variant,
    VariantDials,
)  # fmt: skip

PAGE = Path(__file__).parents[2] / "docs" / "feedback.md"


def told(folder: Path) -> tuple[Path, Path]:
    """The rule file and the runbook of the page."""
    text = PAGE.read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text[text.index("## From complaints") :], re.DOTALL)
    paths = folder / "rules.yaml", folder / "runbook.yaml"
    for path, block in zip(paths, blocks, strict=True):
        path.write_text(block)
    return paths


def test_the_rule_file_holds_its_cases(tmp_path: Path) -> None:
    book, own = book_with(told(tmp_path)[0])
    for case in [c for c in book.cases if "say the same" in c.name]:
        assert not run(case, book).wrong
    assert [r.cause for r in own.rules] == ["users_object"]


def test_complaints_of_one_issue_and_labels_open_an_incident(tmp_path: Path) -> None:
    openers = Openers()
    openers.use(book_with(told(tmp_path)[0])[0])
    ready = Replica(id="r1", service="digits", variant="main", digest="d", state="ready", since=0.0)
    found = []
    for second in range(100, 200):
        for name, value in (("issue_complaints_count", 24.0), ("label_accuracy_ratio", 0.8)):
            openers.saw([Signal(name=name, labels={"service": "digits"}, at=float(second), value=value)])
        found += openers.step(float(second), {"digits": [ready]}).get("digits", [])
    assert found[0].name == "users_object" and found[0].began <= 101


def test_the_runbook_asks_for_leave_to_retrain(tmp_path: Path) -> None:
    rules, runbook = told(tmp_path)
    row = load_runbook(runbook, load_remedies(), book_with(rules)[0].causes)
    spec = Spec(name="digits", variants=(Variant(model="sha256:" + "0" * 64),))
    service = Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=2)}), revision=1)
    now = 1e6
    incident = Incident(
        id=3, subject="default/service/digits", severity="warning", title="x", began=now - 90, opened=now - 60,
        diagnosed=now - 60, causes=(Cause(name="users_object", subject="digits", confidence=0.8),),
    )  # fmt: skip
    sight = Sight(
        service=service, revisions=(Revision(service="digits", number=1, spec=spec, by="human:ana", at=1.0, why=""),),
        collected=now, firing=True, leads_since=now - 60,
    )  # fmt: skip
    act = next_action(incident, sight, now, Ops(), row)
    assert isinstance(act, Propose) and act.ask, "a person is asked"
    change = act.plan.proposal.change
    assert isinstance(change, JobChange) and change.job.command[-3:] == ("pipeline", "run", "/srv/models/digits.yaml")


def test_what_nobody_has_repaired_is_counted_by_issue() -> None:
    class Control:
        async def issues(self, state: str) -> list[Issue]:
            made = Issue(
                id=1, service="digits", title="wrong", terms=("wrong",), count=30, first=0.0, last=now, examples=(),
                hours=((int(now // HOUR) - 30, 10), (int(now // HOUR), 20)),
            )  # fmt: skip
            made = msgspec.structs.replace(made, id={"open": 1, "in_work": 2}[state], state=state)  # type: ignore[arg-type]
            return [made, msgspec.structs.replace(made, id=made.id + 2, service="gone")]

    now = 100 * HOUR
    listener = Listener(Control(), Memory())  # type: ignore[arg-type]
    found = asyncio.run(listener.count({"digits"}, now))
    assert [(s.labels["issue"], s.value) for s in found] == [("1", 20.0), ("2", 20.0)], "of the newest day alone"
