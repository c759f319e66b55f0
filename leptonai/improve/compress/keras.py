"""Keras and SavedModel to TensorFlow Lite, by an interpreter that has tensorflow: this one or another."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leptonai.errors import ModelError, NotInstalled, SpecError
from leptonai.improve.evaluate.answers import ask, opened
from leptonai.improve.evaluate.rows import Array

MODES = {"tflite": "", "int8 weights (tflite)": "dynamic", "fp16 (tflite)": "fp16", "int8 (tflite)": "int8"}
TIMEOUT = 600.0  # seconds; importing tensorflow alone takes ten
TOLERANCE = 1e-3  # of the largest output, of the fp32 conversion against Keras


def is_keras(path: Path) -> bool:
    return path.suffix in (".keras", ".h5") or (path / "saved_model.pb").is_file()


def interpreter(python: str | None) -> str:
    """``python``, else this interpreter when it has tensorflow. NotInstalled: it has not; SpecError: no such file."""
    if python is None and importlib.util.find_spec("tensorflow") is None:
        error = NotInstalled("a Keras model", "tensorflow")
        error.hint += ", or name an interpreter that has it with --python"
        raise error
    if python is not None and not Path(python).is_file():
        raise SpecError(f"{python}: no such interpreter")
    return python or sys.executable


def plain(model: Path, python: str | None, work: Path) -> Path:
    """The fp32 conversion, which tells what the model takes. ModelError when it cannot be converted."""
    return _run(model, work, python, {"modes": {"tflite": ""}})["tflite"]


def calibrated(model: Path, python: str | None, work: Path, rows: Array) -> dict[str, Path]:
    """Every conversion that works, by name: int8 calibrated on ``rows``, the fp32 one checked against Keras.

    ModelError when it differs by more than TOLERANCE.
    """
    np.savez(work / "rows.npz", x=rows[:256])
    found = _run(model, work, python, {"rows": str(work / "rows.npz")})
    want = np.load(work / "keras.npy")
    predictor = opened(found["tflite"])
    have = next(iter(ask(predictor, {predictor.inputs[0]["name"]: rows[: len(want)]}).values()))
    difference = float(np.abs(want - have).max() / max(np.abs(want).max(), 1e-12))
    if not difference <= TOLERANCE:
        raise ModelError(f"the TensorFlow Lite model differs from Keras by {difference:.2g} of the largest output")
    return found


def _run(model: Path, work: Path, python: str | None, more: dict[str, Any]) -> dict[str, Path]:
    script = Path(__file__).with_name("keras_convert.py")
    job = {"model": str(model.resolve()), "out": str(work), "modes": MODES, **more}
    command = [interpreter(python), "-I", str(script), msgspec.json.encode(job).decode()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as e:
        raise ModelError(f"{model.name} was not converted within {TIMEOUT:g} s") from e
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"{model.name} cannot be converted: {last[:300]}")
    made = {name: work / f"{mode or 'fp32'}.tflite" for name, mode in MODES.items()}
    return {name: path for name, path in made.items() if path.is_file()}
