"""One training run described as data: a PyTorch module or a scikit-learn estimator, its rows, its numbers.

The same job on the same machine gives the same model file, byte for byte; one that was killed goes on where its last
checkpoint was.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leptonai.errors import LeptonError, ModelError, SpecError, needs
from leptonai.improve.evaluate.answers import opened
from leptonai.improve.evaluate.rows import Array, Rows, read, stored
from leptonai.improve.train.board import Board, Several, Tells
from leptonai.improve.train.observed import SKIPPED
from leptonai.improve.train.splits import kfold, stratified
from leptonai.runtime.loaders import one_line
from leptonai.types import Noun

Progress = Callable[[int, float], None]  # (epoch, held-out loss)
ADDRESS = re.compile(r"(?<![\d.])\d{12,}(?![\d.]*\d)")  # of an object in memory
MOST_EPOCHS = 1_000_000  # each is kept with its loss
MOST_THREADS = 256  # some thousands end the process
WHEN = (1980, 1, 1, 0, 0, 0)  # of every entry in a file of ours: when it was written must not change what it is


class Job(Noun, frozen=True, kw_only=True):
    """Either ``module`` (a Python file with one torch Module) or ``estimator`` (a class of scikit-learn by full name).

    Paths are relative to the file that holds the job. ``hold``: share of the rows that judge.
    """

    data: str
    module: str | None = None
    estimator: str | None = None
    args: dict[str, Any] = {}  # of the constructor
    label: str | None = None
    epochs: int = 20
    rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 64
    hold: float = 0.2
    seed: int = 0
    every: int = 50  # steps between checkpoints
    board: bool = False  # write TensorBoard event files to events/
    threads: int = 1  # of torch; another number may round otherwise, and gives other weights


class Trained(Noun, frozen=True, kw_only=True):
    model: str  # file name in the run's folder
    quality: float  # accuracy, or minus the rmse, on the rows that were held out
    classes: tuple[str, ...] = ()  # what the columns of scores stand for
    losses: tuple[float, ...] = ()  # held-out, of each epoch
    stopped: str = ""  # why before its end
    acts: int = 0  # of the guard, notes not counted
    notes: tuple[str, ...] = ()  # what the estimator warned of, which checkpoints could not be used


def check(job: Job) -> None:
    """SpecError names the field that cannot be."""
    if (job.module is None) == (job.estimator is None):
        raise SpecError(
            "a job names either module (a Python file) or estimator (a class of scikit-learn)",
            hint="for example module: net.py",
        )
    if job.estimator is not None and not job.estimator.startswith("sklearn."):
        raise SpecError(
            f"estimator is {job.estimator!r}; it must be a class of scikit-learn",
            hint="for example sklearn.ensemble.RandomForestClassifier",
        )
    if not 0 < job.hold < 1:
        raise SpecError(f"hold is {job.hold}; it is a share of the rows in (0, 1)", hint="a fifth is hold: 0.2")
    if not 0 <= job.seed < 1 << 32:
        raise SpecError(f"seed is {job.seed}; it must be in [0, 2**32)", hint="any such number will do")
    for name in ("epochs", "batch_size", "every", "threads"):
        if getattr(job, name) < 1:
            raise SpecError(f"{name} is {getattr(job, name)}; it must be at least 1")
    if job.epochs > MOST_EPOCHS:
        raise SpecError(f"epochs is {job.epochs}; the limit is {MOST_EPOCHS}")
    if job.threads > MOST_THREADS:
        raise SpecError(f"threads is {job.threads}; torch is given at most {MOST_THREADS}")
    if not (0 < job.rate < float("inf") and 0 <= job.weight_decay < float("inf")):
        raise SpecError(
            f"rate is {job.rate}, weight_decay {job.weight_decay}; they must be positive", hint="rate: 1e-3"
        )


def rows_of(path: Path, label: str | None) -> Rows:
    """Rows with one input, ``x``: whole numbers stay so (an embedding's indices), all others are float32."""
    shape, whole = [-1, -1], False
    if path.suffix == ".npz" and path.is_file():
        arrays = stored(path)
        if name := next((n for n in ("x", "X") if n in arrays), None):
            shape, whole = [-1] * max(1, arrays[name].ndim), arrays[name].dtype.kind in "iu"
    return read(path, [{"name": "x", "datatype": "INT64" if whole else "FP32", "shape": shape}], label)


def split(rows: Rows, hold: float, seed: int) -> tuple[Rows, Rows]:
    """Rows that train and rows that judge; by class where there are classes."""
    labels = rows.labelled()
    folds = max(2, min(round(1 / hold), len(rows)))
    if labels.dtype.kind == "f":
        train, held = kfold(len(rows), folds, seed)[0]
    else:
        kinds, counts = np.unique(labels, return_counts=True)
        if counts.min() < 2:
            raise SpecError(
                f"class {str(kinds[counts.argmin()])!r} has one row of {len(rows)}; one must train and one must judge",
                hint="give at least two rows of each class",
            )
        train, held = stratified(labels, max(2, min(folds, int(counts.min()))), seed)[0]
    return rows.take(train), rows.take(held)


def train(
    job: Job, base: Path, folder: Path, progress: Progress = lambda epoch, loss: None, tells: Sequence[Tells] = ()
) -> Trained:
    """``folder`` holds the model file, and checkpoints of a network. SpecError, ModelError, NotInstalled: why not."""
    check(job)
    if job.module:
        needs("training a network", "torch")
    else:
        needs("training an estimator", "sklearn", "skops")
    rows = rows_of(base / job.data, job.label)
    kept, held = split(rows, job.hold, job.seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SpecError(f"{folder} cannot be made: {e.strerror or e}", hint="choose another folder") from e
    if job.module:
        return _network(job, base, folder, kept, held, progress, tells)
    return _estimator(job, base, folder, kept, held, progress)


def _estimator(job: Job, base: Path, folder: Path, kept: Rows, held: Rows, progress: Progress) -> Trained:
    import skops.io
    from sklearn.base import ClusterMixin, OutlierMixin
    from threadpoolctl import threadpool_limits

    assert job.estimator is not None
    module, _, kind = job.estimator.rpartition(".")
    try:
        made: Any = getattr(importlib.import_module(module), kind)
        if not inspect.isclass(made) or not hasattr(made, "fit"):
            raise AttributeError(f"{kind} cannot fit")
        if not hasattr(made, "predict") or issubclass(made, ClusterMixin | OutlierMixin):
            raise AttributeError(f"{kind} learns no labels; a classifier or a regressor is wanted")
        given = {"random_state": job.seed} if "random_state" in inspect.signature(made).parameters else {}
        model: Any = made(**{**given, **job.args})
    except (ImportError, AttributeError, TypeError) as e:
        raise SpecError(f"estimator {job.estimator} cannot be made: {e}", hint="check its name and args") from e
    x, y = (_flat(r.inputs["x"]).astype(np.float64) for r in (kept, held))
    try:
        # sums in another order give another model: resumed elsewhere, it must be the same
        with threadpool_limits(1), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            model.fit(x, kept.labels)
    except Exception as e:
        raise ModelError(f"{job.estimator} cannot learn these rows: {' '.join(str(e).split())[:300]}") from e
    said = model.predict(y)
    if hasattr(model, "_optimizer"):
        del model._optimizer  # a fitted network needs none, and skops would not load the model with it
    skops.io.dump(model, folder / "model.skops")
    settled(folder / "model.skops")
    name = _servable(folder, x)
    quality = _quality(said, held.labelled())
    progress(1, -quality)
    classes = tuple(str(c) for c in getattr(model, "classes_", ()))
    notes = dict.fromkeys(str(w.message).strip().partition("\n")[0] for w in heard)
    return Trained(model=name, quality=quality, classes=classes, notes=tuple(notes))


def _servable(folder: Path, x: Array) -> str:
    """The file that a replica will load: trees are no types that skops trusts, so they go as ONNX.

    ModelError when neither can be served.
    """
    try:
        opened(folder / "model.skops")
        return "model.skops"
    except ModelError as e:
        if e.code != "untrusted":
            raise
    import skops.io

    from leptonai.improve.compress.sklearn import to_onnx
    from leptonai.runtime.loaders.sklearn import SklearnPredictor

    file = folder / "model.skops"
    model = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))  # written by us a moment ago
    to_onnx(SklearnPredictor(model, "sklearn"), x, folder / "model.onnx")
    file.unlink()
    return "model.onnx"


def _network(
    job: Job, base: Path, folder: Path, kept: Rows, held: Rows, progress: Progress, tells: Sequence[Tells]
) -> Trained:
    import torch
    from torch.nn.functional import cross_entropy, mse_loss

    from leptonai.improve.train.seeds import seed
    from leptonai.improve.train.trainer import Trainer

    labels = kept.labelled()
    torch.set_num_threads(job.threads)
    classes = None if labels.dtype.kind == "f" else np.unique(np.concatenate([labels, held.labelled()]))
    seed(job.seed)
    model = _module(base / str(job.module), job.args)
    if not any(p.requires_grad for p in model.parameters()):
        raise SpecError(f"{job.module}: the module has no parameters that could learn", hint="torch.nn.Parameter")

    def pair(rows: Rows) -> tuple[Any, Any]:
        y = rows.labelled()
        target = torch.from_numpy(np.searchsorted(classes, y)) if classes is not None else torch.tensor(y).float()
        return torch.from_numpy(rows.inputs["x"].copy()), target

    def loss(output: Any, target: Any) -> Any:
        if not torch.is_tensor(output):
            told = type(output).__name__
            raise SpecError(f"the module gives a {told}; training needs one tensor", hint="return the scores alone")
        if classes is not None:
            if output.dim() != 2 or output.shape[1] < len(classes):
                raise SpecError(f"the module gives {list(output.shape)}, but there are {len(classes)} classes")
            return cross_entropy(output, target)
        return mse_loss(output.squeeze(-1) if output.dim() > 1 else output, target)

    trainer = Trainer(
        model, loss, rate=job.rate, weight_decay=job.weight_decay, batch_size=job.batch_size, seed=job.seed,
        folder=folder / "checkpoints", every=job.every,
    )  # fmt: skip
    x, y = pair(held)
    board = Several([*([Board(folder / "events")] if job.board else []), *tells])
    try:
        result = trainer.fit(pair(kept), (x, y), epochs=job.epochs, progress=progress, board=board)
        for one in tells:
            one.tell(result.steps, ended_count=1.0)
    except LeptonError:
        raise
    except Exception as e:
        raise ModelError(
            f"the module cannot learn these rows: {one_line(e)}", hint=f"its rows have shape {list(x.shape[1:])}"
        ) from e
    finally:
        board.close()
    with torch.no_grad():
        out = model.eval()(x)
    said = (
        classes[out[:, : len(classes)].argmax(1).numpy()] if classes is not None else out.reshape(-1).double().numpy()
    )
    _export(model if classes is None else _answering(model, classes), x[:2], folder / "model.pt2")
    return Trained(
        model="model.pt2",
        quality=_quality(said, held.labelled()),
        classes=() if classes is None else tuple(str(c) for c in classes),
        losses=result.losses,
        stopped=result.stopped,
        acts=sum(e.act.kind != "note" for e in result.events),
        notes=tuple(str(e.act.terms["error"]) for e in result.events if e.act.cause == SKIPPED),
    )


def _module(path: Path, args: dict[str, Any]) -> Any:
    import torch

    from leptonai.runtime.loaders.python import import_file, model_class

    if not path.is_file():
        raise SpecError(f"{path}: no such file", hint="module names a Python file with one torch Module")
    code = import_file(path)
    try:
        made = model_class(code, str(path), None)
    except ModelError as e:
        raise ModelError(e.message, hint="a job's module is a Python file with one torch Module") from e
    try:
        model = made(**args)
    except Exception as e:
        raise SpecError(f"{path.name}: {made.__name__} cannot be made: {one_line(e)}", hint="check args") from e
    if not isinstance(model, torch.nn.Module):
        raise SpecError(f"{path.name}: {made.__name__} is no torch Module", hint="class Net(torch.nn.Module)")
    return model


def _answering(model: Any, classes: Array) -> Any:
    """``model`` as it is served: the label first, as whoever asks and whoever corrects it says it, then the scores.

    Labels that are words are told by their place in sorted order: a network's outputs are numbers.
    """
    import torch

    places = np.arange(len(classes)) if classes.dtype.kind not in "iub" else classes.astype(np.int64)
    plain = np.array_equal(places, np.arange(len(classes)))

    class Answering(torch.nn.Module):  # type: ignore[misc] # torch's types are not read
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("classes", torch.from_numpy(places))

        def forward(self, x: Any) -> dict[str, Any]:
            scores = self.model(x)
            best = scores[:, : len(classes)].argmax(1)
            return {"label": best if plain else self.classes[best], "scores": scores}

    return Answering().eval()


def _export(model: Any, example: Any, path: Path) -> None:
    import torch

    from leptonai.improve.compress.foreign import quiet

    try:
        with quiet():
            program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths and source lines as they are on disk now: no part of a model
            torch.export.save(program, path)
    except Exception as e:
        raise ModelError(f"the module cannot be exported: {' '.join(str(e).split())[:300]}") from e


def settled(path: Path) -> None:
    """The zip archive at ``path`` with the same times whenever it was written, entries in order.

    skops names parts by their addresses in memory, in ``schema.json`` and as file names: they become 1, 2, 3 ...
    """
    aside = path.with_suffix(".part")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        schema = old.read("schema.json").decode() if "schema.json" in names else ""
        numbers = {a: str(i) for i, a in enumerate(dict.fromkeys(ADDRESS.findall(schema)), 1)}

        def numbered(text: str) -> str:
            return ADDRESS.sub(lambda m: numbers.get(m[0], m[0]), text)

        entries = {numbered(n): numbered(schema).encode() if n == "schema.json" else old.read(n) for n in names}
        for name in sorted(entries):
            new.writestr(zipfile.ZipInfo(name, WHEN), entries[name], zipfile.ZIP_DEFLATED)
    aside.replace(path)


def _quality(said: Array, labels: Array) -> float:
    if labels.dtype.kind == "f":
        return -float(np.sqrt(((said - labels) ** 2).mean()))
    return float((said.astype(str) == labels.astype(str)).mean())


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def parse(fields: Any, source: str) -> Job:
    """A job from plain values. SpecError names the field."""
    try:
        job = msgspec.convert(fields, Job)
    except msgspec.ValidationError as e:
        raise SpecError(f"{source}: {e}", hint=f"fields: {', '.join(Job.__struct_fields__)}") from e
    check(job)
    return job
