"""Which distributions a replica needs: the runtime's own, the model's library, what its code imports, and theirs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from leptonai.errors import SpecError
from leptonai.image.distributions import normal
from leptonai.store.tree import files_of

# What `leptonai.runtime` imports; the other dependencies of the package are the platform's.
RUNTIME = ("msgspec", "orjson", "pysimdjson", "numpy", "uvloop", "httptools")
_BY_SUFFIX = {
    ".onnx": ("onnxruntime",),
    ".skops": ("scikit-learn", "skops"),
    ".pkl": ("scikit-learn", "joblib"),
    ".joblib": ("scikit-learn", "joblib"),
    ".pt": ("torch",),
    ".pt2": ("torch",),
    ".tflite": ("ai-edge-litert",),
    ".keras": ("tensorflow-cpu", "tensorflow"),
    ".h5": ("tensorflow-cpu", "tensorflow"),
}


def roots(model: Path) -> set[str]:
    """The distributions that the model at ``model`` asks for. SpecError for an import that nobody here brings."""
    files = list(files_of(model).values())
    code = [p for p in files if p.suffix == ".py"]
    found = {normal(name) for name in RUNTIME if _here(name)}
    for path in files:
        known = _BY_SUFFIX.get(path.suffix, ())
        if known and (not code or any(map(_here, known))):  # beside code a model's file may be loaded by anything
            found.add(next(filter(_here, known), known[0]))
    own = {p.stem for p in code} | {p.parent.name for p in code}
    bringers = metadata.packages_distributions() if code else {}
    for path in code:
        for module, certain in imported(path):
            if module in sys.stdlib_module_names or module in own or module == "leptonai":
                continue
            if module in bringers:
                found.add(normal(sorted(bringers[module])[0]))
            elif certain:
                raise SpecError(
                    f"{path.name} imports {module}, which nothing installed here brings",
                    hint="install it, or give --lock with the wheels of all it needs",
                )
    return found


def imported(path: Path) -> list[tuple[str, bool]]:
    """Top-level modules that a Python file imports, and whether it cannot run without: at its top, in no ``try``."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as e:
        raise SpecError(f"{path.name} is no Python: {e}", hint="it would not load either") from e
    certain = {id(n) for n in tree.body}
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            out += [(a.name.partition(".")[0], id(node) in certain) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            out.append((node.module.partition(".")[0], id(node) in certain))
    return sorted(set(out))


def closure(names: Iterable[str]) -> list[str]:
    """``names``, each with its extras ("leptonai-platform[onnx]"), and all that they require here, in order.

    SpecError for what is no name of a distribution, or is not installed.
    """
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [_named(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        name = normal(wanted.name)
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found.add(name)
            for text in _requires(name):
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return sorted(found)


def _named(name: str) -> Requirement:
    try:
        return Requirement(name)
    except InvalidRequirement as e:
        raise SpecError(f"{name!r} is no name of a distribution", hint="as in pillow or leptonai-platform[onnx]") from e


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError as e:
        raise SpecError(f"{name} is needed in the image and not installed here", hint=f"pip install {name}") from e


def _here(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
