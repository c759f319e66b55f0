"""Rows to judge a model by, from ``.npz`` and ``.csv`` files: tensors by input name, labels, columns to slice by."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError

Array = NDArray[Any]
LABELS = ("y", "label", "labels", "target")  # names under which labels are looked for


@dataclass(frozen=True)
class Rows:
    """Row i of every array is one sample. ``columns``: what is no input, by name."""

    inputs: dict[str, Array]
    labels: Array | None = None
    columns: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, index: Array) -> Rows:
        labels = None if self.labels is None else self.labels[index]
        return Rows(
            {k: v[index] for k, v in self.inputs.items()}, labels, {k: v[index] for k, v in self.columns.items()}
        )

    def labelled(self, source: str = "the data") -> Array:
        """The labels; SpecError when there are none, or all are equal: nothing could be told from them."""
        if self.labels is None:
            hint = f"name them {', '.join(LABELS)}, or say which they are: --label, or label: in a text"
            raise SpecError(f"{source} has no labels", hint=hint)
        if self.labels.dtype.kind != "f" and len(np.unique(self.labels)) < 2:
            raise SpecError(
                f"all {len(self)} labels of {source} are {str(self.labels[0])!r}", hint="rows of at least two classes"
            )
        return self.labels


def read(path: Path, inputs: list[dict[str, Any]], label: str | None = None, text: Collection[str] = ()) -> Rows:
    """What ``path`` holds for a model that declares ``inputs`` (as a Predictor does), cast to their datatypes.

    npz: arrays named like the inputs (one input: ``x`` or ``X`` as well); ``label``, else one of LABELS; others of
    as many rows are columns. csv: a header; ``label``, else one of LABELS; the other numeric columns, in order, are
    the features. Columns in ``text`` may be words and are no features. SpecError names the file and what is wrong.
    """
    if not path.is_file():
        what = "is no file" if path.exists() else "no such file"
        raise SpecError(f"{path}: {what}", hint="give an .npz or .csv file")
    if path.suffix == ".npz":
        return _npz(path, inputs, label)
    if path.suffix == ".csv":
        return _csv(path, inputs, label, text)
    raise SpecError(f"{path}: {path.suffix or 'no'} suffix is not known", hint="known: .npz, .csv")


def stored(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name. SpecError when it is none, or holds objects."""
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            with file:
                return {k: file[k] for k in file.files}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as e:
        hint = "np.savez of plain numeric arrays; arrays of objects are refused"
        raise SpecError(f"{path}: cannot be read: {e}", hint=hint) from e


def _npz(path: Path, inputs: list[dict[str, Any]], label: str | None) -> Rows:
    arrays = stored(path)
    labels = _labels(path, arrays, label)
    found: dict[str, Array] = {}
    for declared in inputs:
        name = declared["name"]
        near: list[str] = [name] + (["x", "X"] if len(inputs) == 1 else [])
        key = next((k for k in near if k in arrays), None)
        if key is None and len(inputs) == len(arrays) == 1:
            key = next(iter(arrays))
        if key is None:
            raise SpecError(
                f"{path}: has no array {name!r}, an input of the model", hint=f"there are: {', '.join(arrays) or '-'}"
            )
        found[name] = _cast(path, key, arrays.pop(key), declared)
    counts = {k: len(v) for k, v in found.items()} | ({} if labels is None else {"labels": len(labels)})
    if len(set(counts.values())) != 1:
        raise SpecError(f"{path}: arrays hold different numbers of rows: {counts}", hint="one row for each sample")
    count = next(iter(counts.values()))
    if count == 0:
        raise SpecError(f"{path}: the data set is empty")
    return Rows(found, labels, {k: v for k, v in arrays.items() if v.ndim == 1 and len(v) == count})


def _labels(path: Path, arrays: dict[str, Array], label: str | None) -> Array | None:
    if label is not None and label not in arrays:
        raise SpecError(f"{path}: has no labels {label!r}", hint=f"there are: {', '.join(arrays)}")
    key = label or next((k for k in LABELS if k in arrays), None)
    if key is None:
        return None
    labels = arrays.pop(key)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise SpecError(f"{path}: labels {key!r} have shape {labels.shape}; one label for each row is needed")
    if labels.dtype.kind not in "biufUS":
        hint = "labels are whole numbers, words, or real numbers"
        raise SpecError(f"{path}: labels {key!r} hold {labels.dtype}, which names no class", hint=hint)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise SpecError(f"{path}: {int((~np.isfinite(labels)).sum())} of {len(labels)} labels are not finite")
    return labels


def _csv(path: Path, inputs: list[dict[str, Any]], label: str | None, text: Collection[str]) -> Rows:
    if len(inputs) != 1:
        several = ", ".join(t["name"] for t in inputs)
        raise SpecError(f"{path}: a csv fills one input; the model has {several}", hint="give an .npz file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise SpecError(f"{path}: cannot be read: {e}", hint="give a CSV file in UTF-8 with a header") from e
    body = [line for line in lines[1:] if line]
    if not body:
        raise SpecError(f"{path}: the data set is empty", hint="a line of column names, then one line for each row")
    names: list[str] = lines[0]
    for number, fields in enumerate(body, 2):
        if len(fields) != len(names):
            raise SpecError(
                f"{path}:{number}: {len(fields)} values, but {len(names)} columns",
                hint="the first line names the columns; each other line has a value for each",
            )
    label = label or next((n for n in LABELS if n in names), None)
    for asked in [*([label] if label else []), *text]:
        if asked not in names:
            raise SpecError(f"{path}: has no column {asked!r}", hint=f"columns: {', '.join(names)}")
    labels: Array | None = None
    columns: dict[str, Array] = {}
    features: list[Array] = []
    for i, name in enumerate(names):
        values = [line[i] for line in body]
        if name == label:
            labels = guessed(values)
        elif name in text:
            columns[name] = guessed(values)
        else:
            features.append(_numbers(path, name, values))
            columns[name] = features[-1]
    if not features:
        raise SpecError(f"{path}: has no column of features", hint=f"columns: {', '.join(names)}")
    declared = inputs[0]
    return Rows({declared["name"]: _cast(path, "features", np.stack(features, 1), declared)}, labels, columns)


def _numbers(path: Path, name: str, values: list[str]) -> Array:
    try:
        return np.array(values, np.float64)
    except ValueError:
        for number, value in enumerate(values, 2):
            try:
                float(value)
            except ValueError:
                hint = "make numbers of it, or leave it out of the file; --slice COLUMN takes words"
                raise SpecError(f"{path}:{number}: column {name!r} holds {value!r}, not a number", hint=hint) from None
        raise


def guessed(values: list[str]) -> Array:
    """Whole numbers, else numbers, else words."""
    for kind in (np.int64, np.float64):
        try:
            return np.array(values, kind)
        except (ValueError, OverflowError):
            continue
    return np.array(values)


def _cast(path: Path, key: str, array: Array, declared: dict[str, Any]) -> Array:
    from leptonai.runtime.tensors import DTYPES

    shape = list(declared["shape"])
    wrong = array.ndim != len(shape) or any(w not in (-1, h) for w, h in zip(shape[1:], array.shape[1:], strict=True))
    if wrong:
        wanted = ["rows", *("any" if d == -1 else d for d in shape[1:])]
        raise SpecError(f"{path}: {key!r} has shape {list(array.shape)}; input {declared['name']!r} wants {wanted}")
    if declared["datatype"] == "BYTES":
        return array.astype(object)
    if array.dtype.kind not in "biuf":
        raise SpecError(f"{path}: {key!r} holds {array.dtype}, the model wants {declared['datatype']}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array.reshape(len(array), -1)).all(1)).sum())
        raise SpecError(f"{path}: {bad} of {len(array)} rows of {key!r} hold values that are not finite")
    with np.errstate(over="ignore"):
        cast = array.astype(DTYPES[declared["datatype"]])
    if cast.dtype.kind == "f" and not np.isfinite(cast).all():
        largest = float(np.abs(array.astype(np.float64)).max())
        raise SpecError(f"{path}: {key!r} holds {largest:.3g}, more than {declared['datatype']} can hold")
    return cast
