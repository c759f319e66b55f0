"""YAML text to plain values, with the line of every field, and nothing that text alone could blow up."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from leptonai.errors import SpecError

MAX_BYTES = 1 << 20  # a service text is a page; this is a hundred
MAX_VALUES = 100_000  # after aliases are followed: a few lines of them can mean billions
MAX_DEPTH = 32

Lines = dict[str, int]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: YAML forbids it, PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"field {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# 1e-3 is a number, as YAML 1.2 and everybody who writes it has it; PyYAML wants 1.0e-3 (YAML 1.1).
_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def read(
    text: str, source: str, form: str = "the least service is 'name: NAME' and 'model: PATH'"
) -> tuple[dict[str, Any], Lines]:
    """The mapping in ``text`` and the line (from 1) of each dotted field. SpecError names source and line.

    ``form``: the hint where there are no fields at all.
    """
    if len(text) > MAX_BYTES:
        raise SpecError(f"{source}: {len(text)} characters are over the limit of {MAX_BYTES}")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: Lines = {}
            _note(node, "", lines, 0)
            value = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = mark.line + 1 if mark else 0
        raise SpecError(f"{source}:{line}: {e.problem}", hint="the text must be YAML", line=line) from e
    except yaml.YAMLError as e:
        raise SpecError(f"{source}: {' '.join(str(e).split())}", hint="the text must be YAML") from e
    except ValueError as e:  # a date or a number that PyYAML recognises and Python refuses
        raise SpecError(f"{source}: {e}", hint="put quotes around text") from e
    except RecursionError as e:
        raise SpecError(f"{source}: nested too deeply; the limit is {MAX_DEPTH}") from e
    if value is None:
        raise SpecError(f"{source}: is empty", hint=form)
    if not isinstance(value, dict):
        raise SpecError(f"{source}: expected fields, got {kind(value)}", hint=form)
    return value, lines


def check_size(value: Any, source: str) -> None:
    """SpecError when ``value``, aliases followed, has over MAX_VALUES parts or is nested over MAX_DEPTH deep."""
    count = 0
    stack = [(value, 0)]
    while stack:
        part, depth = stack.pop()
        count += 1
        if count > MAX_VALUES:
            raise SpecError(f"{source}: over {MAX_VALUES} values; are there aliases of aliases?")
        if depth > MAX_DEPTH:
            raise SpecError(f"{source}: nested too deeply; the limit is {MAX_DEPTH}")
        if isinstance(part, dict):
            stack += [(v, depth + 1) for v in part.values()]
        elif isinstance(part, list | tuple):
            stack += [(v, depth + 1) for v in part]


def kind(value: Any) -> str:
    """What a person would call it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"{str(value).lower()} (a truth value; quote it if text is meant)"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value[:40]!r}"
        case list() | tuple():
            return "a list"
        case dict():
            return "a set of fields"
    return f"a {type(value).__name__} (quote it if text is meant)"


def _note(node: yaml.Node | None, path: str, lines: Lines, depth: int) -> None:
    if depth > MAX_DEPTH or len(lines) > MAX_VALUES:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                inner = f"{path}.{key.value}" if path else key.value
                lines[inner] = key.start_mark.line + 1
                _note(value, inner, lines, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{path}[{index}]"] = value.start_mark.line + 1
            _note(value, f"{path}[{index}]", lines, depth + 1)
    elif isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:float" and _endless(node.value):
        problem = f"{path or 'text'}: expected a finite number, got {node.value[:40]}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _endless(number: str) -> bool:
    """Whether YAML's spelling of a number is that of none, or of one past all floats."""
    try:
        return not math.isfinite(float(re.sub(r"\.(inf|nan)$", r"\1", number.lower().replace("_", ""))))
    except ValueError:  # base 60
        return False
