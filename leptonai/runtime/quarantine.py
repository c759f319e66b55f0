"""Requests that are refused for what they bring, before the model sees them. No rule in force, no cost."""

from __future__ import annotations

from typing import Any

from leptonai.errors import SpecError
from leptonai.runtime.inputs import inputs_seen
from leptonai.types import InputRule

CODE, STATUS = "quarantined", 422  # no gateway repeats it, and it counts against no promise: the request is at fault


class Quarantine:
    """``key``: the variant's digest, so that hashes are those of its prediction log."""

    def __init__(self, rules: tuple[str, ...], key: bytes) -> None:
        self._rules = tuple(rule for text in rules if (rule := InputRule.parse(text)) is not None)
        self._key = key

    def check(self, inputs: dict[str, Any] | None) -> None:
        """SpecError 422 ``quarantined`` naming the rule that holds of ``inputs``. 0.1 ms at most, as in the prediction
        log: it is the same look."""
        seen = inputs_seen(inputs, self._key) if inputs else None
        for rule in self._rules if seen else ():
            if rule.holds(seen or {}):
                raise SpecError(
                    f"requests with {rule} are in quarantine: they make the model fail",
                    hint="send another input; the quarantine ends by itself",
                    code=CODE,
                    status=STATUS,
                    rule=str(rule),
                )
