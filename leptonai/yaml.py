"""YAML that somebody wrote, decoded within bounds: its parser recurses in C, where too deep a document ends us."""

from __future__ import annotations

import math
from datetime import date, datetime
from functools import cache
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

DEEPEST = 100  # lists and mappings inside one another; what we read has less than ten


@overload
def decode(data: bytes, type: type[T]) -> T: ...


@overload
def decode(data: bytes, type: Any = Any) -> Any: ...


def decode(data: bytes, type: Any = Any) -> Any:
    """``data`` as ``type``. msgspec.DecodeError: no YAML, or nested deeper than DEEPEST; msgspec.ValidationError: of
    another form. The depth is counted on the stream of tokens, which needs no recursion. ``.nan`` and ``.inf`` are no
    numbers here: nothing that people decide by compares with them as they would think."""
    import yaml

    loader = _finite()
    depth = 0
    try:
        for event in yaml.parse(data, Loader=loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST:
                line = event.start_mark.line + 1 if event.start_mark is not None else 0
                raise msgspec.DecodeError(f"line {line}: more than {DEEPEST} lists or mappings inside one another")
    except (yaml.YAMLError, UnicodeDecodeError):
        pass  # told by the decoder in its own words
    try:
        found = yaml.load(data, loader)  # noqa: S506 - a safe loader, with one constructor of ours
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        raise msgspec.DecodeError(f"line {mark.line + 1 if mark else 0}: {e.problem or e.context}") from None
    except (yaml.YAMLError, ValueError) as e:  # ValueError: a date, or more digits than Python reads
        raise msgspec.DecodeError(" ".join(str(e).split())) from None
    return found if type is Any else msgspec.convert(found, type, builtin_types=(datetime, date))


@cache
def _finite() -> Any:
    """YAML's safe loader, in C where there is one, that takes finite numbers only."""
    import yaml

    class Finite(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
            value: float = super().construct_yaml_float(node)
            if not math.isfinite(value):
                raise yaml.constructor.ConstructorError(
                    None, None, f"{node.value} is no finite number", node.start_mark
                )
            return value

    Finite.add_constructor("tag:yaml.org,2002:float", Finite.construct_yaml_float)
    return Finite
