"""Which revision serves, by history and dials."""

from __future__ import annotations

from typing import Any

from leptonai.store.probation import probation
from leptonai.types import Dial, Revision, Rollout, Spec, Variant


def revision(number: int, model: str | None, strategy: Any = "canary", name: str = "main") -> Revision:
    spec = None
    if model is not None:
        spec = Spec(name="d", variants=(Variant(name=name, model=model),), rollout=Rollout(strategy=strategy))
    return Revision(service="d", number=number, by="human:ana", why="", at=float(number), spec=spec)


def dial(path: str, value: float, at: float = 50.0) -> Dial:
    return Dial(path=path, value=value, owner="rollout", reason="", at=at)


def digest(model: str) -> str:
    return Variant(model=model).digest


def test_the_first_revision_has_nothing_to_be_compared_with() -> None:
    assert probation([revision(1, "a")], [], 9.0) == (None, ())


def test_a_new_model_is_on_probation_until_it_is_promoted() -> None:
    history = [revision(1, "a"), revision(2, "b")]
    canary, rejected = probation(history, [dial("rollout.2.weight", 0.25)], 99.0)
    assert canary is not None and rejected == ()
    assert (canary.revision, canary.weight, canary.since, canary.asked) == (1, 0.25, 50.0, 2.0)
    assert canary.stable == history[0].spec.variants  # type: ignore[union-attr]
    assert probation(history, [dial("rollout.2.promoted", 1.0)], 99.0) == (None, ())


def test_going_back_is_no_rollout_and_what_failed_is_remembered() -> None:
    history = [revision(1, "a"), revision(2, "b"), revision(3, "a")]
    assert probation(history, [], 99.0) == (None, (digest("b"),))
    again = [*history, revision(4, "b")]
    canary, rejected = probation(again, [dial("rollout.2.weight", 0.5)], 99.0)
    assert canary is not None and canary.weight == 0.0, "the dials of an earlier try do not count"
    assert rejected == ()


def test_a_second_new_model_is_compared_with_the_one_in_force_not_with_the_first() -> None:
    canary, rejected = probation([revision(1, "a"), revision(2, "b"), revision(3, "c")], [], 99.0)
    assert canary is not None and canary.revision == 1
    assert rejected == (digest("b"),)


def test_replacing_and_renaming_take_force_at_once() -> None:
    assert probation([revision(1, "a"), revision(2, "b", "replace")], [], 99.0) == (None, ())
    assert probation([revision(1, "a"), revision(2, "b", name="other")], [], 99.0) == (None, ())


def test_a_deletion_ends_all_memory() -> None:
    history = [revision(1, "a"), revision(2, "b"), revision(3, None), revision(4, "b")]
    assert probation(history, [], 99.0) == (None, ())
