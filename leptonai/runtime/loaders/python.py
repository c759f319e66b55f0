"""A plain Python file with a class: ``setup(self, options)`` prepares, ``predict`` answers by its type hints.

Other methods open other doors by their names: ``embed``, ``complete`` and ``chat`` those of OpenAI's API. An attribute
``app``, of the class or of the file, is an ASGI app that answers every other path.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import typing
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np

from leptonai.errors import ModelError
from leptonai.protocols import Predictor
from leptonai.runtime.background import BACKGROUND
from leptonai.runtime.tensors import DTYPES
from leptonai.types import Variant

DOORS = ("embed", "complete", "chat")
OWN_OPTIONS = {"class", "loader", "file"}
SCALARS = {float: "FP64", int: "INT64", bool: "BOOL", str: "BYTES"}


class PythonLoader:
    name = "python"

    def match(self, files: list[str]) -> str | None:
        """``model.py`` if there is one, else the only Python file at the top of the folder."""
        found = [f for f in files if f.endswith(".py") and "/" not in f]
        if "model.py" in found:
            return "model.py"
        if len(found) > 1:
            raise ModelError(
                f"several Python files: {', '.join(found)}", hint="name one model.py, or say which with options.file"
            )
        return found[0] if found else None

    def load(self, path: str, variant: Variant) -> Predictor:
        module = import_file(Path(path))
        found = model_class(module, path, variant.options.get("class"))
        torch = sys.modules.get("torch")
        if torch is not None and issubclass(found, torch.nn.Module):
            from leptonai.runtime.loaders.torch import module_predictor

            return module_predictor(found, Path(path), variant)
        options = {k: v for k, v in variant.options.items() if k not in OWN_OPTIONS}
        return PythonPredictor(found, path, options, getattr(module, "app", None))


def import_file(path: Path) -> Any:
    """The module of a file, its folder importable. ModelError with the cause in one line."""
    from leptonai.runtime.loaders import one_line

    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path.name} is no Python file", hint="its name must end in .py")
    sys.dont_write_bytecode = True  # the artifact is read-only
    sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as e:
        raise ModelError(
            f"{path.name} imports {e.name!r}, which is not installed", hint="install it, or ship it in the folder"
        ) from e
    except SyntaxError as e:
        raise ModelError(f"{path.name} line {e.lineno}: {e.msg}", hint="it is not valid Python") from e
    except (Exception, SystemExit) as e:
        raise ModelError(
            f"{path.name} fails when imported: {one_line(e)}", hint="run it by itself, or see the replica's log"
        ) from e
    return module


def model_class(module: Any, path: str, wanted: object) -> type:
    """The class to serve: ``options.class``, else the only one defined in the file that can predict (or forward)."""
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    able = [c for c in own if any(callable(getattr(c, name, None)) for name in ("predict", "forward", *DOORS))]
    names = ", ".join(c.__name__ for c in able) or "none"
    if wanted is not None:
        able = [c for c in able if c.__name__ == wanted]
        if not able:
            raise ModelError(
                f"{Path(path).name} has no class {wanted!r} with a predict method",
                hint=f"classes that have one: {names}",
            )
    if len(able) > 1:
        bases = {b for c in able for b in c.__mro__[1:]}
        able = [c for c in able if c not in bases]
    if len(able) != 1:
        raise ModelError(
            f"{Path(path).name} must have one class with a predict method; it has: {names}",
            hint="say which with options.class" if able else "write a class with a method predict(self, ...)",
        )
    return able[0]


class Parameter(typing.NamedTuple):
    """One argument of predict. ``datatype``: of the tensor that carries it; ``array``: it is a numpy array."""

    name: str
    hint: Any
    required: bool
    datatype: str
    shape: list[int]
    array: bool


def parameters_of(method: Any, path: str, batch: bool = False) -> tuple[list[Parameter], bool]:
    """The arguments of a bound method, and whether it takes others besides. ModelError for what JSON cannot name."""
    try:
        hints = typing.get_type_hints(method)
    except Exception as e:
        name = method.__name__
        raise ModelError(f"{Path(path).name}: the type hints of {name}: {e}", hint="repair or remove them") from e
    found: list[Parameter] = []
    open_ended = False
    for name, p in inspect.signature(method).parameters.items():
        if p.kind is p.VAR_KEYWORD:
            open_ended = True
        elif p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL):
            raise ModelError(
                f"{Path(path).name}: {method.__name__} takes {name!r} by position only",
                hint="JSON fields are named arguments",
            )
        else:
            hint = hints.get(name, Any)
            if batch:
                hint = _entry_of(hint, name, path)
            found.append(Parameter(name, hint, p.default is p.empty, *_tensor_of(hint)))
    return found, open_ended


def _entry_of(hint: Any, name: str, path: str) -> Any:
    """What one request carries of an argument that holds a batch: T of ``list[T]``; of an array, an array."""
    if hint is Any or hint is list:
        return Any
    if hint is np.ndarray or get_origin(hint) is np.ndarray:
        return hint
    if get_origin(hint) is list:
        return get_args(hint)[0]
    raise ModelError(
        f"{Path(path).name}: with batch = True, predict's {name!r} must be a list or an array, not {hint}",
        hint=f"write {name}: list[...], one entry for each request",
    )


def _tensor_of(hint: Any) -> tuple[str, list[int], bool]:
    if hint in SCALARS:
        return SCALARS[hint], [1], False
    origin, args = get_origin(hint), get_args(hint)
    if hint is np.ndarray or origin is np.ndarray:
        dtype = next((get_args(a)[0] for a in args if get_origin(a) is np.dtype), None)
        name = next((n for n, d in DTYPES.items() if isinstance(dtype, type) and d.type is dtype), "FP64")
        return name, [-1], True
    if origin is list:
        shape = [-1]
        while args and get_origin(args[0]) is list:
            shape.append(-1)
            args = get_args(args[0])
        if args and args[0] in SCALARS:
            return SCALARS[args[0]], shape, False
    return "BYTES", [1], False  # anything else travels as JSON text


class Method(typing.NamedTuple):
    """A method that is a door of its own. It is called with the request's fields that it takes."""

    call: Any
    parameters: list[Parameter]
    open_ended: bool
    asynchronous: bool
    generates: bool


def method_of(call: Any, path: str) -> Method:
    """A bound method. ModelError unless it takes at least one argument, and all by name."""
    parameters, open_ended = parameters_of(call, path)
    if not parameters:
        raise ModelError(f"{Path(path).name}: {call.__name__} takes no input", hint=f"write {call.__name__}(self, ...)")
    return Method(call, parameters, open_ended, _asynchronous(call), _generates(call))


def _asynchronous(call: Any) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _generates(call: Any) -> bool:
    return inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call)


class PythonPredictor:
    """An instance of a user's class. ``batch = True`` on the class: every argument is a list, one entry a request."""

    platform = "python_class"

    def __init__(self, cls: type, path: str, options: dict[str, Any], app: Any = None) -> None:
        from leptonai.runtime.loaders import one_line

        self.name = cls.__name__
        try:
            self._model: Any = cls()
            setup = getattr(self._model, "setup", None)
            if setup is not None:
                takes = inspect.signature(setup).parameters
                waited = setup(options) if takes else setup()
                if inspect.iscoroutine(waited):
                    BACKGROUND.wait(waited)
            elif options:
                raise ModelError(
                    f"{cls.__name__} has no setup to take options {', '.join(sorted(options))}",
                    hint="write setup(self, options), or remove them",
                )
        except ModelError:
            raise
        except (Exception, SystemExit) as e:
            raise ModelError(f"{cls.__name__} does not set up: {one_line(e)}", hint="see the replica's log") from e
        predict = getattr(self._model, "predict", None)
        self.predicts = callable(predict)
        self.call: Any = predict if self.predicts else _nothing
        self.generates, self.asynchronous = _generates(self.call), _asynchronous(self.call)
        self.whole: Any = self._gathered if self.generates or self.asynchronous else self.call
        self.batchable = getattr(cls, "batch", False) is True
        if self.batchable and (self.generates or self.asynchronous):
            raise ModelError(
                f"{cls.__name__}.predict is a generator or async, with batch = True",
                hint="remove batch: such a predict is called once a request, and many run at once",
            )
        self.parameters, self.open_ended = parameters_of(self.call, path, self.batchable)
        self.methods = {name: method_of(m, path) for name in DOORS if callable(m := getattr(self._model, name, None))}
        self.count_tokens = getattr(self._model, "count_tokens", None)
        self.app = getattr(self._model, "app", None) or app
        if self.app is not None and not callable(self.app):
            raise ModelError(f"{Path(path).name}: app is no ASGI app", hint="rename it, or make it callable")
        self.inputs = [{"name": p.name, "datatype": p.datatype, "shape": p.shape} for p in self.parameters]
        self.outputs: list[dict[str, Any]] = [{"name": "output", **self._answer()}]

    def _answer(self) -> dict[str, Any]:
        """Type and shape of the answer by the hint of what predict returns; without one: text."""
        hint = typing.get_type_hints(self.call).get("return", Any)
        if self.batchable and get_origin(hint) is list:  # the answers of a batch, one of them each request's
            hint = (get_args(hint) or (Any,))[0]
        if hint is Any or self.generates:
            return {"datatype": "BYTES", "shape": [-1]}
        datatype, shape, _ = _tensor_of(hint)
        return {"datatype": datatype, "shape": shape}

    def _gathered(self, **inputs: Any) -> Any:
        """The whole result of a predict that yields, or that is waited for."""
        made = self.call(**inputs)
        if not self.asynchronous:
            return list(made)
        return BACKGROUND.wait(_all(made) if self.generates else made)

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """One call of the user's method; what it returns, under the name ``output``."""
        return {"output": self.whole(**inputs)}


def _nothing() -> None:
    """Stands for the predict of a class that has other doors only."""


async def _all(items: Any) -> list[Any]:
    return [item async for item in items]
