"""YAML that somebody wrote, decoded within bounds: its parser recurses in C, where too deep a document ends us."""

from __future__ import annotations

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
    another form. The depth is counted on the stream of tokens, which needs no recursion."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
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
    return msgspec.yaml.decode(data, type=type)
