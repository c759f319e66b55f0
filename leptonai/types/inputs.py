"""Which requests are refused for what they bring: a rule about one input, as one line of text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from leptonai.types.keys import Noun

Aspect = Literal["high", "low", "mean", "odd", "length", "hash"]
SIGNS: Mapping[str, str] = {"high": ">", "low": "<", "mean": "<>", "odd": ">", "length": ">", "hash": "="}
MOST_RULES = 8  # in force for one service at once
_RULE = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})\.(high|low|mean|odd|length|hash) ?([<>=]) ?([A-Za-z0-9.+-]{1,24})"
)
_HASH = re.compile(r"[0-9a-f]{16}")


class InputRule(Noun, frozen=True, kw_only=True):
    """Holds of a request whose input ``name`` has ``aspect`` beyond ``bound``, as its text says: ``image.high>508``,
    ``image.low<-3``, ``prompt.length>20000``, ``image.hash=9f86d081884c7d65``.

    Aspects are those of the prediction log (docs/protocol.md): of numbers the largest, the smallest and the mean, each
    to three digits, how many are not finite, and a hash; of a text its length.
    """

    name: str
    aspect: Aspect
    sign: Literal["<", ">", "="]
    bound: float = 0.0
    digest: str = ""  # of a hash

    def __str__(self) -> str:
        return f"{self.name}.{self.aspect}{self.sign}{self.digest or format(self.bound, '.6g')}"

    @staticmethod
    def parse(text: str) -> InputRule | None:
        """The rule that ``text`` says; None when it says none."""
        found = _RULE.fullmatch(text)
        if found is None or found[3] not in SIGNS[found[2]]:
            return None
        name, aspect, sign, said = found.groups()
        if aspect == "hash":
            known = _HASH.fullmatch(said)
            return InputRule(name=name, aspect="hash", sign="=", digest=said) if known else None
        try:
            bound = float(said)
        except ValueError:
            return None
        if not abs(bound) < float("inf"):  # nan neither
            return None
        return InputRule(name=name, aspect=aspect, sign=sign, bound=bound)  # type: ignore[arg-type]

    def holds(self, seen: Mapping[str, Any]) -> bool:
        """Of a request whose inputs look as ``seen``; what was not seen breaks no rule."""
        told = seen.get(self.name)
        value = told.get(self.aspect) if isinstance(told, Mapping) else None
        if self.aspect == "hash":
            return bool(value == self.digest)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return value > self.bound if self.sign == ">" else value < self.bound
