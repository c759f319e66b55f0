"""Text, a model file or a Python file to a Spec: sugar taken apart, units read, every field checked.

The least service is ``name: digits`` and ``model: ./digits.onnx``. What describes one model (``model``, ``options``,
``env``, ``python``, ``resources``, ``batching``, ``idempotent``, ``trust``) may stand at the top; it then is the
variant ``main``. ``replicas: 2`` is short for ``scale: {replicas: 2}``.
"""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from leptonai.admit.bounds import FieldError, validate
from leptonai.errors import SpecError
from leptonai.serve import model, text, units
from leptonai.types import DIGEST, Noun, Spec, Variant

__all__ = ["from_model_file", "from_python", "load", "parse", "validate"]

SUGAR = tuple(f for f in Variant.__struct_fields__ if f != "name")
UNITS: dict[str, Callable[[str], float]] = {
    "timeout": units.duration,
    "drain": units.duration,
    "latency": units.duration,
    "period": units.duration,
    "start_timeout": units.duration,
    "verify_seconds": units.duration,
    "step_seconds": units.duration,
    "step_timeout": units.duration,
    "max_wait": units.duration,
    "idle": units.duration,
    "max_age": units.duration,
    "cookie_ttl": units.duration,
    "slow_start": units.duration,
    "eject": units.duration,
    "every": units.duration,
    "window": units.duration,
    "hold": units.duration,
    "memory": units.size,
    "max_bytes": units.size,
}


def parse(source_text: str | dict[str, Any], source: str = "<text>", base: Path | None = None) -> Spec:
    """The Spec that YAML text (or the same as a dict) says; equal text gives an equal Spec.

    ``base``: the folder that the path of golden examples counts from; None: they must stand in the text.

    ``idempotent`` left out is filled in where the model's name tells: true for model files, false for Python code.
    SpecError names the source, the line where there is one, the field, the value and what was allowed.
    """
    lines: text.Lines = {}
    if isinstance(source_text, str):
        fields, lines = text.read(source_text, source)
    else:
        fields = source_text
    text.check_size(fields, source)
    try:
        plain = _known(_with_golden(_without_sugar(fields), base), Spec, "")
        spec = _told(msgspec.convert(plain, Spec))
        validate(spec)
    except FieldError as e:
        raise _placed(e.field, e.problem, e.hint, source, fields, lines) from e
    except msgspec.ValidationError as e:
        problem, _, where = str(e).partition(" - at `$")
        problem = problem[:1].lower() + problem[1:].replace("`", "")
        raise _placed(where.rstrip("`").lstrip(".") or "text", problem, "", source, fields, lines) from e
    return spec


def from_model_file(path: str | Path, name: str | None = None) -> Spec:
    """A service of one variant for a model file or folder, named after it unless ``name`` is given."""
    found = model.find(Path(path))
    main = Variant(model=str(Path(path).absolute()), idempotent=found.suffix != ".py")
    spec = Spec(name=name or model.service_name(Path(path)), variants=(main,))
    model.check(found, main, spec.name)
    validate(spec)
    return spec


def from_python(path: str | Path) -> Spec:
    """A service for a file with one plain class that can ``predict``; the file is read, never run."""
    found = Path(path)
    model.python_class(found, None)
    main = Variant(model=str(found.absolute()), idempotent=False)
    spec = Spec(name=model.service_name(found), variants=(main,))
    validate(spec)
    return spec


def load(path: str | Path) -> tuple[Spec, Path | None]:
    """The Spec that ``path`` means, and the path of its (first) local model; None when all are artifacts already.

    ``path``: a ``.yaml`` text, a ``.py`` file, a model file, or a folder with ``service.yaml`` or one model. In the
    Spec, the model of each variant is an absolute path or a digest; relative paths in a text count from its folder,
    and a ``service.yaml`` that names no model means its own folder.
    """
    where = Path(path)
    described = where / "service.yaml" if where.is_dir() else where
    if where.is_dir() and not described.is_file() and (where / "service.yml").is_file():
        described = where / "service.yml"
    if described.suffix not in (".yaml", ".yml") or (where.is_dir() and not described.is_file()):
        spec = from_python(where) if where.suffix == ".py" and not where.is_dir() else from_model_file(where)
        return spec, Path(spec.variants[0].model)
    content = model.read_text(described)
    fields, lines = text.read(content, str(described))
    if where.is_dir() and not {"model", "variants"} & set(fields):
        content += "\nmodel: .\n"
    spec = parse(content, str(described), described.parent)
    variants = []
    for index, variant in enumerate(spec.variants):
        if not DIGEST.fullmatch(variant.model):
            local = (described.parent / variant.model).resolve()
            try:
                found = model.find(local)
                model.check(found, variant, spec.name)
            except SpecError as e:
                field = f"variants[{index}].model"
                raise _placed(field, e.message, e.hint, str(described), fields, lines) from e
            told = found.suffix != ".py" if variant.idempotent is None else variant.idempotent
            variant = msgspec.structs.replace(variant, model=str(local), idempotent=told)
        variants.append(variant)
    spec = msgspec.structs.replace(spec, variants=tuple(variants))
    return spec, next((Path(v.model) for v in variants if not DIGEST.fullmatch(v.model)), None)


def _without_sugar(fields: dict[str, Any]) -> dict[str, Any]:
    """``fields`` with the short forms written out."""
    out = dict(fields)
    sugar = {k: out.pop(k) for k in SUGAR if k in out}
    variants = out.get("variants")
    if isinstance(variants, dict):  # {main: {...}, canary: {...}}
        for name, variant in variants.items():
            if not isinstance(variant, dict):
                raise FieldError(f"variants.{name}", f"expected fields, got {text.kind(variant)}")
        out["variants"] = [{"name": name, **variant} for name, variant in variants.items()]
    if sugar and "variants" in out:
        raise FieldError(next(iter(sugar)), "stands beside 'variants'", "move it into the variant it belongs to")
    if not sugar and "variants" not in out:
        raise FieldError("model", "is missing", "give the path of a model file or a Python file")
    if sugar:
        out["variants"] = [{"name": "main", **sugar}]
    if "replicas" in out:
        scale = out.get("scale") or {}
        if not isinstance(scale, dict):
            raise FieldError("scale", f"expected fields, got {text.kind(scale)}")
        if "replicas" in scale:
            raise FieldError("replicas", "is given at the top and in scale", "keep one of them")
        out["scale"] = {**scale, "replicas": out.pop("replicas")}
    return out


def _with_golden(fields: dict[str, Any], base: Path | None) -> dict[str, Any]:
    """``fields`` with the golden examples that ``tests.golden`` names as a file."""
    tests = fields.get("tests")
    if base is None or not isinstance(tests, dict) or not isinstance(tests.get("golden"), str):
        return fields
    try:
        found = msgspec.json.decode((base / tests["golden"]).read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
        problem = f"{tests['golden']}: {e.strerror or e}" if isinstance(e, OSError) else f"{tests['golden']}: {e}"
        raise FieldError("tests.golden", problem, 'a JSON list of {"inputs": {...}, "outputs": {...}}') from e
    return {**fields, "tests": {**tests, "golden": found}}


def _known(value: Any, hint: Any, path: str) -> Any:
    """``value`` with units read and numbers in ``env`` made text; FieldError for an unknown field or a wrong kind."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        kinds = [h for h in typing.get_args(hint) if h is not type(None)]
        nouns = [h for h in kinds if isinstance(h, type) and issubclass(h, Noun)]
        return _known(value, nouns[0] if nouns and isinstance(value, dict) else kinds[0], path)
    leaf = re.sub(r"\[\d+\]$", "", path).rpartition(".")[2]
    if isinstance(hint, type) and issubclass(hint, Noun):
        return _fields(value, hint, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise FieldError(path, f"expected a list, got {text.kind(value)}")
        return [_known(part, typing.get_args(hint)[0], f"{path}[{i}]") for i, part in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise FieldError(path, f"expected fields, got {text.kind(value)}")
        for key in value:
            if not isinstance(key, str):
                raise FieldError(path, f"the key {key!r} is not text", "put quotes around it")
        return {k: _environment(v, f"{path}.{k}") for k, v in value.items()} if leaf == "env" else value
    if hint in (int, float):
        if isinstance(value, str) and leaf in UNITS:
            try:
                value = UNITS[leaf](value)
            except ValueError as e:
                raise FieldError(path, str(e)) from e
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FieldError(path, f"expected a number, got {text.kind(value)}")
        if abs(value) > 2**63 or math.isnan(value):
            raise FieldError(path, f"expected a finite number under 2^63, got {str(value)[:40]}")
        if hint is int and value != int(value):
            raise FieldError(path, f"expected a whole number, got {value}")
        return hint(value)
    if hint is str and not isinstance(value, str):
        raise FieldError(path, f"expected text, got {text.kind(value)}")
    return value


def _fields(value: Any, noun: type[Noun], path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError(path or "text", f"expected fields, got {text.kind(value)}")
    hints = typing.get_type_hints(noun)
    known = list(noun.__struct_fields__)
    out = {}
    for key, part in value.items():
        inner = f"{path}.{key}" if path else str(key)
        if key not in known:
            allowed = known if path else [*known, *SUGAR, "replicas"]
            near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(allowed)}"
            raise FieldError(inner, "unknown field", hint)
        out[key] = _known(part, hints[key], inner)
    for field in msgspec.structs.fields(noun):
        if field.required and field.name not in out:
            raise FieldError(f"{path}.{field.name}" if path else field.name, "is missing")
    return out


def _environment(value: Any, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FieldError(path, f"expected text, got {text.kind(value)}")
    return str(value)


def _told(spec: Spec) -> Spec:
    """``spec`` with ``idempotent`` filled in where the model's file name says whether it is code."""
    variants = []
    for variant in spec.variants:
        suffix = Path(variant.model).suffix
        if variant.idempotent is None and suffix in (".py", *model.SUFFIXES):
            variant = msgspec.structs.replace(variant, idempotent=suffix != ".py")
        variants.append(variant)
    return msgspec.structs.replace(spec, variants=tuple(variants))


def _placed(field: str, problem: str, hint: str, source: str, fields: dict[str, Any], lines: text.Lines) -> SpecError:
    """A SpecError that names ``field`` as it was written, and where in the text, as nearly as the text has it."""
    if "variants" not in fields:
        field = re.sub(r"^variants\[0\]\.", "", field)
    if field == "scale.replicas" and "replicas" in fields:
        field = "replicas"
    near = field
    while near and near not in lines:
        near = near[: max(near.rfind("."), near.rfind("["), 0)]
    if near:
        return SpecError(f"{source}:{lines[near]}: {field}: {problem}", hint=hint, field=field, line=lines[near])
    return SpecError(f"{source}: {field}: {problem}", hint=hint, field=field)
