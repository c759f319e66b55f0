"""Whether a live object is as we wish it, whatever the cluster added by itself. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

Json = dict[str, Any]

# The serialisation of quantities as Kubernetes' API documentation has it; it stores 1000m as 1.
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?")
_UNIT = {
    None: Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18), "Ki": Decimal(1 << 10), "Mi": Decimal(1 << 20),
    "Gi": Decimal(1 << 30), "Ti": Decimal(1 << 40), "Pi": Decimal(1 << 50), "Ei": Decimal(1 << 60),
}  # fmt: skip
_NOTHING: tuple[Any, ...] = (None, {}, [], "", 0, False)


def drift(wish: Json, live: Json) -> list[str]:
    """Paths of fields that are not as wished, sorted: ``spec.replicas``. Fields that we do not wish are others'."""
    found: list[str] = []
    for key, value in wish.items():
        if key == "metadata":
            for part in ("labels", "annotations"):
                _compare(value.get(part) or {}, live["metadata"].get(part) or {}, f"metadata.{part}", found)
        elif key not in ("apiVersion", "kind"):
            _compare(value, live.get(key), key, found)
    return sorted(found)


def _compare(wish: Any, live: Any, at: str, found: list[str]) -> None:
    if isinstance(wish, dict) and isinstance(live, dict):
        for key, value in wish.items():
            _compare(value, live.get(key), f"{at}.{key}", found)
    elif isinstance(wish, list) and isinstance(live, list) and len(wish) == len(live):
        for number, (mine, theirs) in enumerate(zip(wish, live, strict=True)):
            _compare(mine, theirs, f"{at}[{number}]", found)
    elif wish != live and not (live is None and wish in _NOTHING) and quantity(wish) != quantity(live):
        found.append(at)


def quantity(value: Any) -> Any:
    """A number for what spells one; anything else as it is, told apart from numbers."""
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return Decimal(match[1]) * _UNIT[match[2]] if match else (value,)
