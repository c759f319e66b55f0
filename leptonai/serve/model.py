"""Models on disk, looked at without running or loading them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from leptonai.errors import SpecError
from leptonai.types import Variant

SUFFIXES = (".onnx", ".skops", ".pt2", ".pt", ".tflite", ".keras", ".h5", ".pkl", ".joblib")
PICKLES = (".pkl", ".joblib")


def find(path: Path) -> Path:
    """The file that holds the model at ``path``: itself, or the only one of a known kind at the top of a folder.

    In a folder Python code comes first, because it may use the other files. SpecError when there is none or several.
    """
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.exists():
            raise SpecError(f"{path}: no such file", hint="give the path of a model, a Python file or a service.yaml")
        if not path.is_file():
            raise SpecError(f"{path}: is neither a file nor a folder", hint="give the path of a model or its folder")
        if path.suffix not in (*SUFFIXES, ".py"):
            known = ", ".join((*SUFFIXES, ".py", ".yaml"))
            raise SpecError(f"{path}: {path.suffix or 'no'} suffix is not known", hint=f"known: {known}")
        if path.stat().st_size == 0:
            raise SpecError(f"{path}: is empty", hint="was the model written completely?")
        with path.open("rb"):
            return path
    except OSError as e:
        raise SpecError(f"{path}: {e.strerror or e}", hint="the file must be readable") from e


def _in_folder(folder: Path) -> Path:
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.suffix in (*SUFFIXES, ".py"))
    code = [f for f in files if f.suffix == ".py"]
    preferred = [f for f in code if f.name == "model.py"] or code or files
    if not preferred:
        raise SpecError(f"{folder}: holds no model", hint=f"known: {', '.join((*SUFFIXES, '.py'))}, or a service.yaml")
    if len(preferred) > 1:
        names = ", ".join(f.name for f in preferred)
        raise SpecError(
            f"{folder}: holds several models: {names}", hint="name the file itself, or write a service.yaml"
        )
    return find(preferred[0])


def check(found: Path, variant: Variant, service: str) -> None:
    """Return when ``found`` may be served as ``variant``; else SpecError says what stands against it."""
    if found.suffix in PICKLES and variant.trust != "pickle":
        raise SpecError(
            f"{found}: a pickle can run any code when it is loaded, and this variant has trust: {variant.trust}",
            hint=f"save it with skops, or, if you trust its source, deploy a text with name: {service}, "
            f"model: {found.name}, trust: pickle",
        )
    if found.suffix == ".py":
        wanted = variant.options.get("class")
        python_class(found, wanted if isinstance(wanted, str) else None)


def python_class(path: Path, wanted: str | None) -> str:
    """The name of the one class in a Python file that has ``predict`` (or a torch module's ``forward``).

    Found in the syntax tree: nothing is imported. ``wanted`` chooses among several.
    """
    try:
        tree = ast.parse(read_text(path), filename=str(path))
    except SyntaxError as e:
        raise SpecError(f"{path}:{e.lineno}: {e.msg}", hint="it is not valid Python", line=e.lineno) from e
    except (ValueError, RecursionError, MemoryError) as e:
        raise SpecError(f"{path}: {e}", hint="it is not valid Python") from e
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    able = {c.name for c in classes if _methods(c) & {"predict", "forward"}}
    for c in classes:  # a subclass predicts too, and what only serves as a base is not meant
        bases = {b.id for b in c.bases if isinstance(b, ast.Name)} & able
        if bases:
            able = (able - bases) | {c.name}
    names = ", ".join(sorted(able)) or "none"
    if wanted is not None:
        if wanted not in {c.name for c in classes}:
            raise SpecError(f"{path}: has no class {wanted!r}", hint=f"classes with predict: {names}")
        return wanted
    if len(able) != 1:
        raise SpecError(
            f"{path}: must have one class with a predict method; it has: {names}",
            hint="say which with options: {class: NAME}" if able else "write a class with predict(self, ...)",
        )
    return next(iter(able))


def _methods(node: ast.ClassDef) -> set[str]:
    return {n.name for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def read_text(path: Path) -> str:
    """The text of a file; SpecError for one that is missing, unreadable, empty or not UTF-8."""
    try:
        content = path.read_bytes()
        if not content.strip():
            raise SpecError(f"{path}: is empty", hint="was it written completely?")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1
        raise SpecError(f"{path}:{line}: is not UTF-8 text: {e.reason}", hint="save it as UTF-8", line=line) from e
    except FileNotFoundError as e:
        raise SpecError(f"{path}: no such file", hint="give the path of a text file") from e
    except OSError as e:
        raise SpecError(f"{path}: {e.strerror or e}", hint="the file must be readable") from e


def service_name(path: Path) -> str:
    """A valid service name made of the file's: ``My Model_v2.onnx`` -> ``my-model-v2``."""
    stem = path.resolve().name if path.is_dir() else path.stem
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    if not name or not name[0].isalpha():
        name = f"model-{name}".rstrip("-")
    return name[:40].rstrip("-")
