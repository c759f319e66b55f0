"""What the guard sees, what it may do, and the rules between them: frozen values, no torch, no I/O."""

from __future__ import annotations

from typing import Literal

import msgspec

from leptonai.types import Noun

Kind = Literal["skip", "clip", "lower_rate", "restore", "reinitialise", "lower_scale", "recalibrate", "stop", "note"]

SKIPPED = "checkpoint skipped"  # the cause of the note about a checkpoint that is damaged or of another version


class Rules(Noun, frozen=True, kw_only=True):
    """The guard's thresholds. Ratios and robust scores only, so that one set serves every model and every loss."""

    window: int = 64  # healthy steps remembered
    enough: int = 16  # healthy steps before a loss or an input can be called unusual
    young: int = 8  # steps in which a broken start may be initialised anew: nothing has been learnt yet
    look: int = 100  # steps between two close looks at every layer; the first steps and suspicion look at once
    look_most: int = 1000  # the same after long health: at most an eighth of the steps since the last trouble
    inspect: int = 4  # after ``look`` steps without trouble, of so many batches one has its inputs looked at
    spike: float = 6.0  # robust deviations above the recent median, and above the loss of the start
    diverged: float = 3.0  # times the first loss while there is no history yet
    shift: float = 10.0  # robust deviations of a batch's location or scale ...
    shift_size: float = 1.0  # ... that also moved by this many ordinary standard deviations (or e-folds of scale)
    explode: float = 10.0  # times the largest healthy gradient norm of the run
    jump: float = 2.0  # times the largest recent loss that a spike must reach: losses near zero scatter widely
    violent: float = 0.5  # update over weights, in one step: the weights are being rewritten (healthy is about 1e-3)
    rough: float = 0.1  # update over weights that makes a rising or stuck loss the rate's fault
    gentle: float = 0.02  # update over weights to which a first violent gradient is clipped
    dead: float = 0.99  # share of a layer's units without gradient, and of the gradient that its activation stops
    collapse: float = 1e-3  # spread over magnitude of a layer's output: every input looks the same to it
    huge: float = 50.0  # magnitude of a hidden output over that of the model's input, before anything is learnt
    vanish: float = 1e-8  # relative gradient of the first layer over that of the last
    suspect: int = 3  # spikes, or looks at a dead layer, in a row until weights, not data, are suspected and put back
    settle: int = 10  # healthy steps after which a snapshot counts as good, and after which a restore has worked
    snapshot: int = 50  # healthy steps between snapshots
    restores: int = 12  # restores without lasting health until training stops
    give_up: int = 500  # steps skipped in a row until training stops
    lower: float = 0.1  # factor on the learning rate after an explosion
    patience: int = 5  # validations without a new best before over-fitting or a plateau is told
    worse: float = 0.1  # of the way from the first loss to the best that must be lost again to be called over-fitting
    scale_grow: int = 200  # healthy steps until the loss scale is doubled again
    few: int = 8  # values per channel from which a batch's statistics say something (Wu & He 2018)
    astray: float = 100.0  # deviations, as ratio or distance, between running statistics and the batch's
    misled: float = 0.5  # of the way from the first loss that validation in eval mode loses against batch statistics


class Layer(Noun, frozen=True, kw_only=True):
    """One layer at one close look. Magnitudes are root mean squares; nan: not seen."""

    name: str
    gradient: float = 0.0  # norm
    weight: float = 0.0  # norm
    dead: float = 0.0  # share of units whose whole gradient row is exactly zero
    passed: float = 1.0  # share of the gradient that reaches its activation which comes through; 1: none reaches it
    magnitude: float = float("nan")  # of the output
    spread: float = float("nan")  # of the output over the batch, per unit
    last: bool = False  # the model's last layer: its scale is the task's own affair


class Norm(Noun, frozen=True, kw_only=True):
    """One batch normalisation layer at one close look."""

    name: str
    values: int  # per channel of the batch, rows times places; 0: not known
    training: bool
    frozen: bool = False  # its own weights are not trained: eval mode is meant
    finite: bool = True  # the running statistics; from here on those of a layer that keeps some
    flat: float = 0.0  # share of channels whose running variance is below the layer's ``eps``
    flat_batch: float = 0.0  # the same of the batch's variance
    ratio: float = 1.0  # running deviation over the batch's, median over the channels
    apart: float = 0.0  # distance of the running mean from the batch's in such deviations, median over the channels
    momentum: float = 0.1  # inf: a plain mean


class Batch(Noun, frozen=True, kw_only=True):
    """Seen before the backward pass."""

    step: int
    loss: float
    location: float = 0.0  # mean of the batch's inputs; nan or inf: the batch holds such a value
    scale: float = 1.0  # their standard deviation
    update: float = float("nan")  # norm of the last looked-at update over that of the weights
    weights_finite: bool = True  # looked at only when the loss is not finite


class Gradient(Noun, frozen=True, kw_only=True):
    """Seen between the backward pass and the optimizer's step."""

    step: int
    loss: float
    norm: float
    weight: float  # norm of all weights, as of the last close look
    rate: float  # the learning rate that will be used
    adaptive: bool = False  # the optimizer bounds its own update (Adam and kin): norm times rate says nothing
    loss_scale: float = 1.0  # mixed precision; 1: none
    input_magnitude: float = float("nan")  # of the model's input
    layers: tuple[Layer, ...] = ()  # only after a close look
    normed: tuple[Norm, ...] = ()  # likewise
    update: float = float("nan")  # norm of the last looked-at update over that of the weights


class Validation(Noun, frozen=True, kw_only=True):
    """Seen after an epoch. ``loss``: anything where lower is better."""

    step: int
    loss: float
    training: float = float("nan")  # the same measure on training data
    by_batch: float = float("nan")  # ``loss`` with each batch normalised by itself; inf: refused, nan: not asked
    counted: tuple[str, ...] = ()  # layers that took batches into their running statistics since the last step


Observation = Batch | Gradient | Validation


class Act(Noun, frozen=True, kw_only=True):
    """One thing to do: what, why, and every number that was compared."""

    kind: Kind
    cause: str
    terms: dict[str, float | str] = {}


class Event(Noun, frozen=True, kw_only=True):
    step: int
    act: Act


class History(Noun, frozen=True, kw_only=True):
    """What deciding needs of the past. Changed only by ``decide.remember``."""

    losses: tuple[float, ...] = ()  # of healthy steps, the latest last
    norms: tuple[float, ...] = ()
    locations: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    first: float = float("nan")  # the very first finite loss
    start: float = float("nan")  # largest of the first healthy losses: no skill yet
    peak: float = 0.0  # largest healthy gradient norm
    healthy: int = 0  # healthy steps in all
    violent: int = 0  # first gradients in a row that would have rewritten the weights
    milder: float = 0.0  # the largest share of any of those gradients that would have been gentle
    streak: int = 0  # healthy steps since the last bad one
    bad: int = 0  # bad steps in a row
    seen: int = 0
    restores: int = 0  # since the last lasting health
    restored_at: int = -1  # ``seen`` at the last restore
    troubled: int = -1  # ``seen`` after the last bad step
    initialised: int = 0  # times the start was initialised anew
    alive: bool = False  # a close look has found every layer alive
    dying: int = 0  # close looks in a row at which a layer was dead
    best: float = float("inf")  # validation
    best_training: float = float("inf")
    stale: int = 0  # validations since the best
    since: tuple[float, ...] = ()  # the last of those, the latest last
    lowered: int = 0
    noted: tuple[str, ...] = ()  # what is told once: cause and layer
    unchecked: int = 0  # validations since running statistics were last checked by another pass
    fruitless: int = 0  # such checks in a row that found nothing


def dump(history: History) -> str:
    """``history`` as JSON text; ``load`` gives back an equal one (nan and inf kept)."""
    fields = {f: getattr(history, f) for f in history.__struct_fields__}
    return msgspec.json.encode({k: _plain(v) for k, v in fields.items()}).decode()


def load(text: str) -> History:
    raw = msgspec.json.decode(text)
    return msgspec.convert({k: v if k == "noted" else _number(v) for k, v in raw.items()}, History)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value.hex() if isinstance(value, float) else value


def _number(value: object) -> object:
    if isinstance(value, list):
        return [_number(v) for v in value]
    return float.fromhex(value) if isinstance(value, str) else value
