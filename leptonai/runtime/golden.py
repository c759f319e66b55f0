"""Golden examples: answers a model must still give when it is loaded. They travel in its folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson

from leptonai.errors import LeptonError, ModelError
from leptonai.runtime.tensors import ORJSON
from leptonai.types import Golden

if TYPE_CHECKING:
    from leptonai.runtime.model import Model


def read(folder: str, file: str) -> list[Golden]:
    """The examples for the model file, from ``<stem>.golden.json`` beside it or ``golden.json``; [] without."""
    root = Path(folder)
    for path in (root / PurePosixPath(file).with_suffix(".golden.json"), root / "golden.json"):
        if path.is_file():
            try:
                return msgspec.json.decode(path.read_bytes(), type=list[Golden])
            except (msgspec.DecodeError, OSError) as e:
                raise ModelError(
                    f"{path.name}: {e}",
                    hint='a list of {"inputs": {...}, "outputs": {...}, "tolerance"?}',
                    code="golden_failed",
                ) from e
    return []


def check(model: Model, examples: list[Golden]) -> None:
    """Run every example. ModelError ``golden_failed`` names the first output that differs, with both values."""
    for number, example in enumerate(examples):
        try:
            job = model.example_job(example.inputs)
            result = model.run([job])[0]
            body = model.encode(job, result, "", "")[0]
            assert isinstance(body, bytes)  # only an inference request asks for tensors as they are
            answer = orjson.loads(body)
        except LeptonError as e:
            raise ModelError(f"golden example {number}: {e.message}", hint=e.hint, code="golden_failed") from e
        except Exception as e:
            raise ModelError(
                f"golden example {number} fails: {type(e).__name__}: {e}", hint="see the log", code="golden_failed"
            ) from e
        if said := difference(example, answer):
            raise ModelError(
                f"golden example {number}: {said}",
                hint="the model file is not the one these examples were made with, or its library changed",
                code="golden_failed",
            )


def difference(example: Golden, answer: Any) -> str:
    """The first output of ``answer`` that is not as the example has it, with both values; "": all are."""
    if example.outputs is None:
        return ""
    expected = orjson.loads(orjson.dumps(example.outputs, option=ORJSON))
    if isinstance(expected, dict) and isinstance(answer, dict):
        pairs = [(name, value, answer.get(name)) for name, value in expected.items()]
    else:
        pairs = [("output", expected, answer)]
    for name, want, have in pairs:
        if not close(want, have, example.tolerance):
            return f"output {name!r} is {_short(have)}, should be {_short(want)} within {example.tolerance:g}"
    return ""


def close(want: Any, have: Any, tolerance: float) -> bool:
    """Equal in structure and text, and numbers within ``tolerance`` (relative plus absolute)."""
    if isinstance(want, dict):
        return isinstance(have, dict) and all(k in have and close(v, have[k], tolerance) for k, v in want.items())
    if isinstance(want, list):
        if not isinstance(have, list) or len(want) != len(have):
            return False
        return all(close(w, h, tolerance) for w, h in zip(want, have, strict=True))
    if isinstance(want, bool | str) or want is None or isinstance(have, bool | str) or have is None:
        return type(want) is type(have) and bool(want == have)
    return bool(np.isclose(have, want, rtol=tolerance, atol=tolerance))


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
