"""Named steps in a row: what one gives, the next one gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from leptonai.errors import LeptonError, ModelError, SpecError


class Pipeline:
    """Steps are functions, or objects with ``transform`` or ``predict`` (and ``fit`` if they learn)."""

    def __init__(self, steps: Iterable[tuple[str, Any]] = ()) -> None:
        self.steps: dict[str, Any] = {}
        for name, step in steps:
            self.add(name, step)

    def add(self, name: str, step: Any) -> Pipeline:
        """``step`` comes last. Raises SpecError when the name is taken or the step cannot be run."""
        if name in self.steps:
            raise SpecError(f"step {name!r} is already there; the steps are {', '.join(self.steps)}")
        if not (callable(step) or hasattr(step, "transform") or hasattr(step, "predict")):
            raise SpecError(
                f"step {name!r} is {type(step).__name__}; it has no transform or predict and is no function"
            )
        self.steps[name] = step
        return self

    def fit(self, x: Any, *target: Any, **options: Any) -> Pipeline:
        """Every step that learns has learnt from what the steps before it give. ``options`` go to the last one."""
        self._some()
        last = next(reversed(self.steps))
        for name, step in self.steps.items():
            if hasattr(step, "fit"):
                self._run(name, partial(_learn, step, target, options if name == last else {}), x)
            if name != last:
                x = self._run(name, _action(step), x)
        return self

    def run(self, x: Any) -> Any:
        """What the last step gives for ``x``. An error in a step names the step."""
        self._some()
        for name, step in self.steps.items():
            x = self._run(name, _action(step), x)
        return x

    predict = __call__ = run

    def _some(self) -> None:
        if not self.steps:
            raise SpecError("the pipeline has no steps", hint="Pipeline([('name', step)])")

    def _run(self, name: str, action: Callable[[Any], Any], x: Any) -> Any:
        try:
            return action(x)
        except LeptonError:
            raise
        except Exception as e:
            raise ModelError(f"pipeline step {name!r} failed: {type(e).__name__}: {e}") from e


def _learn(step: Any, target: tuple[Any, ...], options: dict[str, Any], x: Any) -> None:
    step.fit(x, *target, **options)


def _action(step: Any) -> Callable[[Any], Any]:
    action: Callable[[Any], Any] = getattr(step, "transform", None) or getattr(step, "predict", None) or step
    return action
