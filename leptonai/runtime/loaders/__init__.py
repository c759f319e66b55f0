"""Which library loads a model folder. Ours come from a plain dict, others by the entry point ``leptonai.loaders``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from leptonai.errors import LeptonError, ModelError, PluginError, how_to_install
from leptonai.protocols import Loader, Predictor
from leptonai.types import Variant

# In order: Python code comes first because it may use the other files beside it.
BUILT_IN = {
    "python": "leptonai.runtime.loaders.python:PythonLoader",
    "onnx": "leptonai.runtime.loaders.onnx:OnnxLoader",
    "sklearn": "leptonai.runtime.loaders.sklearn:SklearnLoader",
    "torch": "leptonai.runtime.loaders.torch:TorchLoader",
    "tflite": "leptonai.runtime.loaders.tflite:TfliteLoader",
    "keras": "leptonai.runtime.loaders.keras:KerasLoader",
}


def find(files: list[str], variant: Variant) -> tuple[Loader, str]:
    """The loader and the file it would load. ``options.loader`` and ``options.file`` choose; else the first match wins.

    Third-party loaders are only looked for when none of ours matches or one is asked for by name: looking for entry
    points reads every installed distribution.
    """
    wanted, named = variant.options.get("loader"), variant.options.get("file")
    if named is not None and named not in files:
        raise ModelError(f"options.file {named!r} is not in the model folder", hint=f"files: {', '.join(files)}")
    considered = files if named is None else [named]
    for name, target in BUILT_IN.items():
        if wanted in (None, name):
            module, _, attribute = target.partition(":")
            loader: Loader = getattr(import_module(module), attribute)()
            file = loader.match(considered)
            if file is not None:
                return loader, file
    for loader in _third_party(wanted):
        file = loader.match(considered)
        if file is not None:
            return loader, file
    what = f"loader {wanted!r} finds no model" if wanted else "no loader knows a file"
    raise ModelError(
        f"{what} among: {', '.join(considered) or 'no files at all'}",
        hint="deploy an .onnx, .skops, .pkl or .joblib (trust: pickle), .pt2, .pt, .tflite, .keras or .py file",
        code="no_loader",
    )


def _third_party(wanted: str | None) -> list[Loader]:
    from importlib.metadata import entry_points

    found: list[Loader] = []
    for point in entry_points(group="leptonai.loaders"):
        if wanted in (None, point.name):
            try:
                found.append(point.load()())
            except Exception as e:
                raise PluginError(f"loader plug-in {point.name!r} ({point.value}) fails: {e}", hint="repair it") from e
    return found


def load(folder: str, variant: Variant) -> tuple[Predictor, str]:
    """The predictor of the model in ``folder`` and the file it came from. ModelError in one line for every failure."""
    root = Path(folder)
    if not root.is_dir():
        raise ModelError(f"there is no model folder {folder}", hint="deploy the model again")
    files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    loader, file = find(files, variant)
    try:
        return loader.load(str(root / file), variant), file
    except LeptonError:
        raise
    except ModuleNotFoundError as e:
        raise ModelError(
            f"{file} needs the module {e.name!r}, which is not installed",
            hint=f"for {variant.python or 'this interpreter'}: {how_to_install((e.name or '').partition('.')[0])}",
        ) from e
    except Exception as e:
        raise ModelError(
            f"{file} does not load: {one_line(e)}",
            hint="is the file whole, and of that kind? a replica's log has the whole story",
        ) from e


def beside(file: str, options: dict[str, Any] | None = None) -> Predictor:
    """For a class that works around a model file: the model in the folder of the Python ``file`` (``__file__``), loaded
    as a replica would load it, whatever its format. ``predict`` takes and gives arrays by name.

    So the file may be exchanged for a better one, and the class stays. ModelError when there is none or it is broken.
    """
    root = Path(file).resolve().parent
    found = sorted(p.name for p in root.iterdir() if p.is_file() and p.suffix != ".py")
    variant = Variant(model=str(root), options=options or {})
    loader, name = find(found, variant)
    known = {**variant.options, "file": name}
    return load(str(root), Variant(model=str(root), options={**known, "loader": loader.name}))[0]


def one_line(e: BaseException) -> str:
    """An error's class and the first lines of its message, on one line of at most 300 characters."""
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text}"[:300] if text else type(e).__name__
