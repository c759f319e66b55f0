"""Runbook files: read, checked as a whole, refused with place and reason when they contradict themselves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.diagnosis.signals import COLLECTED, OF_SERVICES
from leptonai.ops.remedies import Remedies, Wishing, reversal_of
from leptonai.ops.runbook.form import Limits, RowText, StepText, Text, Verify
from leptonai.ops.runbook.rows import Row, Runbook, Step
from leptonai.protocols import Remedy
from leptonai.yaml import decode

MOST_BYTES = 1 << 20  # of one file
MOST_TRIES = 100
MOST_FACTOR = 100  # times the replicas wished; scale.max bounds them in any case
HINT = "see docs/runbooks.md for the form of a runbook"


def read(path: Path) -> Text:
    """The document in ``path``, its form checked. PluginError naming the file: not there, not YAML, unknown fields."""
    try:
        if not path.is_file():
            raise PluginError(f"{path} is no file", hint=HINT)
        if (size := path.stat().st_size) > MOST_BYTES:
            raise PluginError(f"{path} has {size:,} bytes; a runbook has {MOST_BYTES:,} at most", hint="split it")
        return decode(path.read_bytes(), Text)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise PluginError(f"{path}: {e}", hint=HINT) from e


def bind(text: Text, source: str, remedies: Remedies, causes: Collection[str] = CAUSES) -> Runbook:
    """The checked runbook that ``text`` says.

    Raises PluginError naming the source, the cause and the fault: a cause or remedy that is not known, what a remedy
    cannot be given, a number out of its range, and whatever contradicts itself: two rows for one severity, a step that
    is there twice, one that takes back the one before it, approval of what is only recommended, compensation for what
    cannot be taken back, a verification that ends before it can succeed.
    """
    found: dict[str, tuple[Row, ...]] = {}
    for cause, said in text.items():
        if cause not in causes:
            raise PluginError(f"{source}: no such cause {cause!r}", hint=f"known: {', '.join(sorted(causes))}")
        rows = said if isinstance(said, tuple) else (said,)
        try:
            found[cause] = tuple(_row(cause, row, source, remedies) for row in rows)
            _disjoint(found[cause])
        except PluginError as e:
            raise PluginError(f"{source}: {cause}: {e.message}", hint=e.hint or HINT) from e
    return Runbook(found)


def load_runbook(path: Path, remedies: Remedies, causes: Collection[str] = CAUSES) -> Runbook:
    """The checked runbook in ``path``; see ``read`` and ``bind`` for what is raised."""
    return bind(read(path), str(path), remedies, causes)


def _row(cause: str, text: RowText, source: str, remedies: Remedies) -> Row:
    if not text.severity:
        raise PluginError("a row without a severity never applies", hint="leave severity out for all of them")
    if len(set(text.severity)) != len(text.severity):
        raise PluginError(f"severity {', '.join(text.severity)} names one twice")
    _numbers(text.limits, text.verify)
    steps = tuple(_step(text, s if isinstance(s, StepText) else StepText(do=s), remedies) for s in text.steps)
    _compatible(steps)
    if text.autonomy == "recommend" and not steps:
        raise PluginError("there is nothing to recommend", hint="name steps, or leave autonomy out")
    return Row(
        cause=cause,
        severity=text.severity,
        steps=steps,
        reconcile=text.reconcile,
        owner=text.owner,
        responsibilities=text.responsibilities,
        limits=text.limits,
        source=source,
    )


def _step(row: RowText, text: StepText, remedies: Remedies) -> Step:
    remedy = _made(text.do, text.given, remedies)
    limits, verify = text.limits or row.limits, text.verify or row.verify
    try:
        _numbers(limits, verify)
    except PluginError as e:
        raise PluginError(f"step {text.do}: {e.message}", hint=e.hint) from e
    if not 1 <= text.tries <= MOST_TRIES:
        raise PluginError(f"step {text.do}: tries is {text.tries}; it must be 1 to {MOST_TRIES}")
    reversal, wanted = reversal_of(remedy), text.compensate if text.compensate is not None else row.compensate
    if text.compensate and reversal == "none":
        raise PluginError(
            f"step {text.do} is to be taken back, which nothing can", hint="leave compensate out, or say false"
        )
    usual = "always" if getattr(remedy, "approved", False) and row.approval == "never" else row.approval
    approval = text.approval or usual
    autonomy = text.autonomy or row.autonomy
    asked = text.approval or (row.approval if text.autonomy is None else "never")
    if autonomy == "recommend" and asked != "never":
        raise PluginError(
            f"step {text.do} is only recommended and asks for approval: nothing of it can be approved",
            hint="autonomy: act, with the approval",
        )
    return Step(
        remedy=remedy,
        given=text.given,
        tries=text.tries,
        approval=approval,
        autonomy=autonomy,
        limits=limits,
        verify=verify,
        compensate=reversal == "automatic" if wanted is None else wanted and reversal != "none",
    )


def _made(name: str, given: dict[str, Any], remedies: Remedies) -> Remedy:
    known = remedies.get(name)
    if known is None:
        raise PluginError(f"no such remedy {name!r}", hint=f"known: {', '.join(remedies)}")
    if not isinstance(known, type):
        if given:
            raise PluginError(f"step {name} takes nothing under `with`")
        return known
    try:
        made: Wishing = msgspec.convert(given, known)
    except msgspec.ValidationError as e:
        raise PluginError(f"step {name}: with: {e}") from e
    for field in made.__struct_fields__:
        value = getattr(made, field)
        if isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value <= 1e6:
            raise PluginError(f"step {name}: with.{field} is {value:g}; it must be between 0 and 1,000,000")
        if field == "factor" and isinstance(value, float) and not 1 <= value <= MOST_FACTOR:
            raise PluginError(
                f"step {name}: with.factor is {value:g}; it must be 1 to {MOST_FACTOR}",
                hint="leave it out for as many times as the traffic is",
            )
        if field == "refuse" and not 0 <= value <= 86400:
            raise PluginError(f"step {name}: with.refuse is {value:g} s; it must be between 0 s and a day")
        if field in ("share", "above", "most") and isinstance(value, int | float) and not 0 < value <= 1:
            raise PluginError(f"step {name}: with.{field} is {value:g}; it is a share above 0, up to 1")
        if field in ("seconds", "timeout") and not 1 <= value <= 86400:
            raise PluginError(f"step {name}: with.{field} is {value:g} s; it must be between 1 s and a day")
    return made


def _numbers(limits: Limits, verify: Verify) -> None:
    for name, value, low, high in (
        ("limits.attempts", limits.attempts, 1, 100),
        ("limits.cooldown", limits.cooldown, 0, 86400),
        ("limits.share", limits.share, 0.01, 1),
        ("limits.ready", limits.ready, 0, 10_000),
        ("limits.most", limits.most, 1, 10_000),
        ("limits.window", limits.window, 60, 7 * 86400),
        ("verify.seconds", verify.seconds, 1, 86400),
        ("verify.settle", verify.settle, 0, 86400),
    ):
        if value is not None and not low <= value <= high:
            raise PluginError(f"{name} is {value:g}; it must be between {low:g} and {high:g}")
    if verify.seconds is not None and verify.settle is not None and verify.settle >= verify.seconds:
        raise PluginError(
            f"verify.settle is {verify.settle:g} s and verify.seconds {verify.seconds:g} s: nothing could ever help",
            hint="settle is a part of the seconds",
        )
    for name, bounds in verify.signals.items():
        if name not in OF_SERVICES and not bounds.foreign:
            whose = "the machine's, not a service's" if name in COLLECTED else "not collected"
            raise PluginError(
                f"verify.signals.{name} never can be seen: it is {whose}",
                hint="docs/telemetry.md lists the signals; `foreign: true` for one that others send of the service",
            )
        if bounds.above is None and bounds.below is None:
            raise PluginError(f"verify.signals.{name} has no bound", hint="{below: 0.01} or {above: 10}")
        if bounds.above is not None and bounds.below is not None and bounds.above > bounds.below:
            raise PluginError(f"verify.signals.{name}: nothing is above {bounds.above:g} and below {bounds.below:g}")


def _compatible(steps: Sequence[Step]) -> None:
    for first, second in combinations(steps, 2):
        if first.name == second.name and first.given == second.given:
            raise PluginError(f"step {first.name} is there twice", hint="`tries: 2` tries it again")
    for first, second in pairwise(steps):
        if {first.name, second.name} == {"fallback_on", "fallback_off"}:
            raise PluginError(f"step {second.name} takes back {first.name}, the step before it")
        both = {first.name, second.name}
        if both <= {"shift_weight", "degrade"} and first.given.get("to") != second.given.get("to"):
            raise PluginError(
                f"step {second.name} to {second.given.get('to')!r} takes back {first.name} to {first.given.get('to')!r}"
            )


def _disjoint(rows: Sequence[Row]) -> None:
    if not rows:
        raise PluginError("no row", hint="an empty row {} calls a person")
    for first, second in combinations(rows, 2):
        if both := sorted(set(first.severity) & set(second.severity)):
            raise PluginError(f"two rows for severity {', '.join(both)}", hint="give each row severities of its own")
