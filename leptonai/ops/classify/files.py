"""Versions of the classifier: arrays and a little JSON in one file each, read without running anything of it."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leptonai.errors import PluginError
from leptonai.ops.classify.ensemble import CLASSES, Ensemble
from leptonai.ops.classify.models import MODELS, Model, Scaler
from leptonai.ops.features import FEATURES
from leptonai.protocols import Floats

FOLDER = "classifier"  # of the home folder
SHIPPED = Path(__file__).parent / "shipped.npz"  # in force while the home folder has no version
OURS = "shipped"  # its version
MOST_BYTES = 20 << 20  # of one file, and of one array in it
FORMAT = 1
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    EOFError,
    RuntimeError,  # of zipfile: a damaged bit says it is encrypted, or packed in a way unknown
    zipfile.BadZipFile,
    zlib.error,
    msgspec.MsgspecError,
)


class Meta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    classes: tuple[str, ...]
    features: tuple[str, ...]
    models: tuple[str, ...]
    sharpness: tuple[float, ...]
    weights: tuple[float, ...]
    reach: float
    about: dict[str, Any] = {}


def save(path: Path, ensemble: Ensemble) -> None:
    """The file is whole or not there. The same ensemble gives the same bytes."""
    meta = Meta(
        format=FORMAT, classes=CLASSES, features=ensemble.scaler.names, models=tuple(m.name for m in ensemble.models),
        sharpness=ensemble.sharpness, weights=ensemble.weights, reach=ensemble.reach, about=ensemble.about,
    )  # fmt: skip
    arrays: dict[str, NDArray[np.generic]] = {
        "meta": np.frombuffer(msgspec.json.encode(meta), dtype=np.uint8),
        "fill": ensemble.scaler.fill,
        "mean": ensemble.scaler.mean,
        "scale": ensemble.scaler.scale,
    }
    for model in ensemble.models:
        arrays |= {f"{model.name}.{name}": a for name, a in model.arrays().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, a in arrays.items():
            held = io.BytesIO()
            np.lib.format.write_array(held, np.ascontiguousarray(a), allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), held.getvalue(), zipfile.ZIP_DEFLATED)
    part.replace(path)


def load(path: Path) -> Ensemble:
    """What ``save`` wrote. PluginError naming the file: not there, no such file, of other features or causes, numbers
    that do not fit together. Nothing in the file is run."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise PluginError(f"{path} has {path.stat().st_size:,} bytes; {MOST_BYTES:,} is the most of a classifier")
        with zipfile.ZipFile(path) as file:
            if any(i.file_size > MOST_BYTES for i in file.infolist()) or len(file.infolist()) > 100:
                raise PluginError(f"{path}: larger inside than a classifier is")
            arrays = {
                i.filename.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(file.read(i)), allow_pickle=False)
                for i in file.infolist()
            }
        meta = msgspec.json.decode(arrays["meta"].tobytes(), type=Meta)
        _check(path, meta)
        scaler = Scaler(meta.features, *(_finite(arrays[name]) for name in ("fill", "mean", "scale")))
        models: list[Model] = []
        for name in meta.models:
            mine = {k.removeprefix(f"{name}."): a for k, a in arrays.items() if k.startswith(f"{name}.")}
            models.append(MODELS[name].of(mine))
        made = Ensemble(scaler, tuple(models), meta.sharpness, meta.weights, meta.reach, meta.about)
        one = made.pooled(np.zeros((2, len(meta.features))), np.full((2, len(CLASSES)), 1.0 / len(CLASSES)))
        if one.shape != (2, len(CLASSES)) or not np.isfinite(one).all():
            raise PluginError(f"{path}: its numbers do not fit together")
        return made
    except _DAMAGED as e:
        raise PluginError(
            f"{path}: this is no classifier of ours: {e}", hint="leptonai classify train makes one"
        ) from e


def glance(folder: Path, shipped: Path | None = SHIPPED) -> tuple[str, Meta | None, str]:
    """The version that ``Newest`` puts in force, what is told of it, and why a newer one is not; its arrays are not
    looked at."""
    broken = ""
    for version, path in _files(folder, shipped):
        try:
            with zipfile.ZipFile(path) as file:
                if file.getinfo("meta.npy").file_size > MOST_BYTES:
                    raise PluginError(f"{path}: larger inside than a classifier is")
                held = np.lib.format.read_array(io.BytesIO(file.read("meta.npy")), allow_pickle=False)
            meta = msgspec.json.decode(held.tobytes(), type=Meta)
            _check(path, meta)
            return version, meta, broken
        except PluginError as e:
            broken = broken or e.message
        except _DAMAGED as e:
            broken = broken or f"{path}: this is no classifier of ours: {e}"
    return "", None, broken


def versions(folder: Path) -> list[int]:
    """The numbers of the versions in a home's ``classifier`` folder, ascending."""
    return sorted(int(p.stem) for p in folder.glob("*.npz") if p.stem.isdigit())


def keep(folder: Path, ensemble: Ensemble) -> int:
    """Write the ensemble as the next version; its number. The newest version is in force."""
    number = max(versions(folder), default=0) + 1
    save(folder / f"{number}.npz", ensemble)
    return number


def counts(version: str, said: str) -> bool:
    """Whether the vote of ``version`` does, as settings ``ops.classifiers`` ``said``."""
    return said == "vote" or (said == "trained" and version not in ("", OURS))


class Newest:
    """The classifier in force: the newest version in ``folder`` that can be read, else ``shipped``, or none."""

    def __init__(self, folder: Path | None, shipped: Path | None = SHIPPED) -> None:
        self.ensemble: Ensemble | None = None
        self.version = ""  # "7", or "shipped"; "": none
        self.broken: PluginError | None = None
        self._folder, self._shipped, self._seen = folder, shipped, object()
        self.look()

    def look(self) -> bool:
        """Read what is newest, when that is another one than before; True then."""
        seen = tuple(versions(self._folder)) if self._folder is not None else ()
        if seen == self._seen:
            return False
        self._seen, self.broken = seen, None
        for version, file in _files(self._folder, self._shipped):
            try:
                self.ensemble, self.version = load(file), version
                return True
            except PluginError as e:
                self.broken = self.broken or e
        self.ensemble, self.version = None, ""
        return True


def _files(folder: Path | None, shipped: Path | None) -> list[tuple[str, Path]]:
    """(version, file), the one to be preferred first."""
    found = [(str(n), folder / f"{n}.npz") for n in reversed(versions(folder))] if folder is not None else []
    return [*found, *([(OURS, shipped)] if shipped is not None and shipped.exists() else [])]


def _check(path: Path, meta: Meta) -> None:
    if meta.format != FORMAT or meta.classes != CLASSES or meta.features != tuple(FEATURES):
        raise PluginError(f"{path}: made for other causes or features", hint="leptonai classify train makes a new one")
    if unknown := [name for name in meta.models if name not in MODELS]:
        raise PluginError(f"{path}: no such model {unknown[0]!r}", hint=f"known: {', '.join(MODELS)}")
    if len(meta.sharpness) != len(meta.models) or len(meta.weights) != len(meta.models) + 1:
        raise PluginError(f"{path}: {len(meta.weights)} weights for {len(meta.models)} models and the rules")


def _finite(a: NDArray[np.generic]) -> Floats:
    out = np.asarray(a).astype(np.float64)
    if out.shape != (len(FEATURES),) or not np.isfinite(out).all():
        raise ValueError(f"{out.shape} numbers where {len(FEATURES)} finite ones belong")
    return out
