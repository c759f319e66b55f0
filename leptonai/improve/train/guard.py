"""The guard: wraps an ordinary loop, watches each step, and does what ``decide`` says.

guard = Guard(model, optimizer)
for batch in loader:
    with guard.step(batch) as step:
        step.backward(loss_function(model(batch[0]), batch[1]))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from msgspec.structs import replace

from leptonai.errors import ModelError, SpecError
from leptonai.improve.train import checkpoint, decide_norm, initialise
from leptonai.improve.train.batchnorm import Norms
from leptonai.improve.train.calm import Memory
from leptonai.improve.train.decide import bad, decide, remember
from leptonai.improve.train.observed import SKIPPED, Act, Batch, Event, Gradient, History, Rules, Validation, dump, load
from leptonai.improve.train.state import Snapshot, Snapshots, random_states, set_random_states
from leptonai.improve.train.watch import Look, finite, moments, norms, plain

_KEPT = ("steps", "rate", "loss_scale", "stopped", "applied", "weight", "update", "look", "silent")
_ADAPTIVE = ("Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "SparseAdam", "Rprop")


class Guard:
    """Steps the optimizer (and ``scheduler``, once per optimizer step) for a loop, and keeps the run healthy.

    ``folder``: where checkpoints go, every ``every`` steps (0: only on ``save``). ``keep``: more objects with
    ``state_dict`` / ``load_state_dict`` to keep in them, such as ``Batches``. ``accumulate``: batches per optimizer
    step. ``precision``: autocast; fp16 scales the loss. ``listen`` is called with each Event as it happens.
    After ``stopped`` is set (to a reason) the weights are the last good ones and further steps change nothing.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        *,
        scheduler: Any = None,
        folder: str | Path | None = None,
        every: int = 0,
        keep: Mapping[str, Any] | None = None,
        accumulate: int = 1,
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        loss_scale: float = 65536.0,
        rules: Rules | None = None,
        listen: Callable[[Event], None] | None = None,
    ) -> None:
        if accumulate < 1:
            raise SpecError(f"accumulate is {accumulate}; it must be at least 1")
        if every and folder is None:
            raise SpecError(f"every is {every} but no folder for checkpoints was given", hint="folder='run'")
        if precision not in ("fp32", "bf16", "fp16"):
            raise SpecError(f"precision is {precision!r}; it must be fp32, bf16 or fp16")
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.folder = None if folder is None else Path(folder)
        self.rules = rules or Rules()
        self.steps = 0  # steps begun
        self.rate = 1.0  # factor on the optimizer's learning rates, lowered after explosions
        self.loss_scale = loss_scale if precision == "fp16" else 1.0
        self.events: list[Event] = []
        self.stopped = ""
        self._every, self._keep, self._accumulate = every, dict(keep or {}), accumulate
        self._precision = precision
        self._listen = listen
        self._adaptive = any(k.__name__ in _ADAPTIVE for k in type(optimizer).__mro__)
        self._snapshots = Snapshots(self.rules.settle)
        self._best: Snapshot | None = None
        self._applied = 0  # optimizer steps
        self._held = 0  # batches in the gradient so far
        self._weight = 0.0
        self._update = nan  # norm of the last looked-at update over that of the weights
        self._look_next = False
        self._silent = 0  # parameters whose gradient was exactly zero, at the last close look or since
        self._memory = Memory(self.rules)
        self._list()
        self._buffers = [b for b in model.buffers() if b.is_floating_point()]
        self._before = [b.detach().clone() for b in self._buffers]
        self._norms = Norms(model)

    # -- the loop --------------------------------------------------------------------------------------------------

    def step(self, batch: Any) -> Step:
        """One step on ``batch``, for ``with``: its body computes the loss and calls ``backward`` on it, once."""
        return Step(self, batch)

    @property
    def history(self) -> History:
        """All that was seen so far, as ``decide`` reads it."""
        return self._memory.history

    def validated(self, loss: float, training: float = nan, evaluate: Callable[[], float] | None = None) -> bool:
        """Tells a validation result, lower is better; False once training should stop.

        The best weights are kept; when over-fitting is decided they are put back. ``evaluate()`` gives the validation
        loss of the model as it is, in eval mode: with it the running statistics of batch normalisation are checked
        and, where they mislead, made anew. It is called only when ``loss`` is above ``training``, and rarely.
        """
        seen = Validation(step=self.steps, loss=float(loss), training=float(training), counted=self._norms.counted())
        mended: list[Act] = []
        if evaluate is not None and self._norms and decide_norm.suspicious(self.history, seen):
            seen, mended = self._checked(seen, evaluate)
        acts = mended + decide(self.history, seen, self.rules)
        if seen.loss < self.history.best:
            self._best = Snapshot(self.model, self.optimizer, self._applied)
        self._remember(remember(self.history, seen, acts, self.rules))
        self._do(acts, None, best=True)
        return not self.stopped

    def _checked(self, seen: Validation, evaluate: Callable[[], float]) -> tuple[Validation, list[Act]]:
        """Whether running statistics mislead this validation. They are made anew only when that mends it."""
        seen = replace(seen, by_batch=self._norms.ask(evaluate, by_batch=True))
        act = decide_norm.misled(self.history, seen, self.rules)
        if act is None:
            return seen, []
        if (back := self._norms.recalibrate(self._cast())) is None:
            return seen, [replace(act, kind="note")]
        loss = self._norms.ask(evaluate)
        terms = {**act.terms, "recalibrated": loss}
        if isfinite(loss) and decide_norm.better(seen, loss):
            return replace(seen, loss=loss), [replace(act, terms=terms)]
        back()
        return seen, [replace(act, kind="note", terms=terms)]

    def _mended(self, act: Act) -> Act | None:
        """``act``; to recalibrate is done here: a note where that failed, None where it was uncalled for."""
        if act.kind != "recalibrate":
            return act
        match self._norms.mend(self.rules, self._cast()):
            case True:
                return act
            case False:
                return replace(act, kind="note", terms={**act.terms, "mended": "no"})
        return None

    def best(self) -> None:
        """Puts back the weights of the best validation; nothing happens when there was none."""
        if self._best is not None:
            self._best.put_back(self.model, self.optimizer)

    def _cast(self) -> Any:
        """Autocast, None in fp32."""
        if self._precision == "fp32":
            return None
        device = next(self.model.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16 if self._precision == "bf16" else torch.float16)

    def _remember(self, history: History) -> None:
        self._memory.set(history, self._update)

    def _list(self) -> None:
        """What the optimizer steps: walking to it takes longer than all else that a step is asked."""
        self._groups = len(self.optimizer.param_groups)
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._plain = plain(self._parameters)

    def _zero(self) -> None:
        for p in self._parameters:  # as ``zero_grad`` does, which takes ten times as long
            p.grad = None
        self._held = 0

    # -- doing -----------------------------------------------------------------------------------------------------

    def _do(self, acts: list[Act], look: Look | None, best: bool = False) -> None:
        for act in acts:
            event = Event(step=self.steps, act=act)
            self.events.append(event)
            if self._listen is not None:
                self._listen(event)
            match act.kind:
                case "restore":
                    self._restore(best)
                case "reinitialise":
                    initialise.initialise(self.model, look.call if look else None)
                    self.optimizer.state.clear()
                    self._update = nan
                    self._snapshots.clear()
                case "lower_rate":
                    self.rate *= float(act.terms["factor"])
                case "lower_scale":
                    self.loss_scale = max(self.loss_scale / 2, 1.0)
                case "stop":
                    self.stopped = act.cause
        if any(a.kind in ("skip", "restore") for a in acts):
            self._look_next = True

    def _restore(self, best: bool) -> None:
        self._update, self._silent = nan, 0  # they were measured on weights that are gone
        self._remember(self.history)
        if best and self._best is not None:
            self._best.put_back(self.model, self.optimizer)
            self._snapshots.clear()
        elif len(self._snapshots):
            again = self.history.restores > 1
            self._snapshots.good(self._applied, older=again).put_back(self.model, self.optimizer)

    def _apply(self) -> None:
        lowered = [(g, g["lr"]) for g in self.optimizer.param_groups] if self.rate != 1.0 else []
        for group, rate in lowered:
            group["lr"] = rate * self.rate
        try:
            self.optimizer.step()
        finally:
            for group, rate in lowered:
                group["lr"] = rate
        if self.scheduler is not None:
            self.scheduler.step()
        self._applied += 1

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def save(self) -> Path:
        """A checkpoint of this moment is on disk: model, optimizer, scheduler, kept objects, generators, the guard."""
        if self.folder is None:
            raise SpecError("no folder for checkpoints was given", hint="Guard(..., folder='run')")
        if self._held:
            raise SpecError(
                f"{self._held} of {self._accumulate} batches are accumulated", hint="save after a full step"
            )
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "keep": {k: v.state_dict() for k, v in self._keep.items()},
            "random": random_states(),
            "best": self._best.state_dict() if self._best is not None else None,
            "guard": {
                "steps": self.steps, "rate": self.rate, "loss_scale": self.loss_scale, "stopped": self.stopped,
                "applied": self._applied, "weight": self._weight, "update": self._update, "look": self._look_next,
                "silent": self._silent, "history": dump(self.history),
            },
        }  # fmt: skip
        return checkpoint.write(self.folder, self.steps, state)

    def resume(self) -> int:
        """Goes on from the newest whole checkpoint in ``folder``; the number of steps done, 0 when there is none.

        On a CPU the run then is bit for bit the run that was not interrupted, as long as it stays healthy: the
        snapshots in memory begin anew. Raises ModelError when the checkpoint is of another model.
        """
        if self.folder is None:
            raise SpecError("no folder for checkpoints was given", hint="Guard(..., folder='run')")
        state, wrong = checkpoint.newest(self.folder)
        for error in wrong:
            self._do([Act(kind="note", cause=SKIPPED, terms={"error": error.message})], None)
        if state is None:
            return 0
        hint = "use another folder, or the model the run began with"
        if missing := sorted(set(self._keep) ^ set(state.get("keep", ()))):
            raise ModelError(
                f"the checkpoint in {self.folder} and keep= differ in {', '.join(missing)}", hint="use another folder"
            )
        try:
            # All of it is read before anything is overwritten; checkpoints of old do not have every number.
            history, own = load(state["guard"]["history"]), {"silent": 0, **state["guard"]}
            own = {k: own[k] for k in _KEPT}
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
            for name, thing in self._keep.items():
                thing.load_state_dict(state["keep"][name])
            self.steps, self.rate, self.loss_scale = own["steps"], own["rate"], own["loss_scale"]
            self.stopped, self._applied, self._weight = own["stopped"], own["applied"], own["weight"]
            self._update, self._look_next, self._silent = own["update"], own["look"], own["silent"]
            self._remember(history)
        except KeyError as e:
            raise ModelError(f"the checkpoint in {self.folder} does not fit: it has no {e}", hint=hint) from e
        except (RuntimeError, ValueError, TypeError, msgspec.ValidationError) as e:
            told = " ".join(str(e).split())[:300]
            raise ModelError(f"the checkpoint in {self.folder} does not fit: {told}", hint=hint) from e
        self._best = Snapshot.of(state["best"]) if state.get("best") is not None else None
        self._snapshots.clear()
        set_random_states(state["random"])
        return self.steps


class Step:
    """One step in progress; made by ``Guard.step``."""

    __slots__ = (
        "_batch",
        "_cast",
        "_due",
        "_guard",
        "_look",
        "_loss",
        "_moments",
        "_seen",
        "skipped",
        "told",
    )

    def __init__(self, guard: Guard, batch: Any) -> None:
        self._guard, self._batch = guard, batch
        self._look: Look | None = None
        self._seen: Batch | None = None  # only where it had to be judged
        self.told = False
        self.skipped = False

    def __enter__(self) -> Step:
        g = self._guard
        if g._buffers:
            torch._foreach_copy_(g._before, g._buffers)
        self._due = g._memory.looking
        if (g._look_next or self._due) and g._held == g._accumulate - 1:
            g._look_next = False
            self._look = Look(g.model)
            g._norms.open()
        self._moments = moments(self._batch) if g._memory.inspecting else None
        self._cast = g._cast()
        if self._cast is not None:
            self._cast.__enter__()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        g = self._guard
        if self._cast is not None:
            self._cast.__exit__(kind, error, trace)
        if self._look is not None:
            self._look.close()
            g._norms.close()
        if error is not None:
            g._zero()
            return
        if not self.told:
            raise SpecError(
                "a guarded step ended without step.backward(loss)", hint="call it instead of loss.backward()"
            )
        g.steps += 1
        if g._held == g._accumulate and not self.skipped and not g.stopped:
            self._finish()
        if g._norms:
            g._norms.stepped()
        if g._every and g.steps % g._every == 0 and not g.stopped:
            g.save()

    def backward(self, loss: Any) -> None:
        """Judges the loss; unless the batch is skipped, its gradient is added."""
        g = self._guard
        if self.told:
            raise SpecError("step.backward was called twice in one step", hint="add the losses first")
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise SpecError(
                f"the loss is {type(loss).__name__} of {getattr(loss, 'shape', '?')}; it must be one number"
            )
        self.told = True
        if g.stopped:
            return
        if not len(g._snapshots):
            g._snapshots.add(Snapshot(g.model, g.optimizer, g._applied))
        self._loss = loss.item()
        if not g._memory.quiet(self._loss, self._moments):
            seen = self._told()
            if bad(acts := decide(g.history, seen, g.rules)):
                self._refuse(seen, acts)
                return
        if g._accumulate != 1:
            loss = loss / g._accumulate
        if self._look is not None:
            self._look.reach(loss)
        (loss * g.loss_scale if g.loss_scale != 1 else loss).backward()
        g._held += 1

    def _told(self) -> Batch:
        """The batch as ``decide`` reads it. Whether all of it is finite is asked only when the loss is not."""
        g = self._guard
        if self._moments is None:
            self._moments = moments(self._batch)
        (location, scale), whole = self._moments, True
        if not isfinite(self._loss):
            location = location if finite(self._batch) else nan
            whole = finite(list(g.model.parameters()))
        self._seen = Batch(
            step=g.steps,
            loss=self._loss,
            location=location,
            scale=scale,
            update=g._update,
            weights_finite=whole,
        )
        return self._seen

    def _refuse(self, observation: Batch | Gradient, acts: list[Act]) -> None:
        g = self._guard
        self.skipped = True
        g._zero()
        if g._buffers:
            torch._foreach_copy_(g._buffers, g._before)
        g._remember(remember(g.history, observation, acts, g.rules))
        g._do(acts, self._look)

    def _finish(self) -> None:
        """Steps the optimizer when the gradient is judged sound."""
        g = self._guard
        if self._look or len(g.optimizer.param_groups) != g._groups:
            g._list()  # a loop may have added some
        grads = [gradient for p in g._parameters if (gradient := p.grad) is not None]
        if g.loss_scale != 1:
            torch._foreach_mul_(grads, 1 / g.loss_scale)
        norm, silent = norms(grads, g._plain)
        if silent > g._silent:  # a layer has died, or part of the model is not used by this batch: looking will tell
            g._look_next = True
        # A model whose parts rest by turns must not be looked at each time: until the next look that is due, the most
        # that were silent together are no news.
        g._silent = silent if self._look and self._due else max(silent, g._silent)
        if self._look is None and self._seen is None and norm <= g._memory.calm.norm:
            g._apply()
            g._memory.add(self._loss, norm, self._moments)
        elif not self._judged(norm):
            return
        g._zero()
        if g.loss_scale != 1 and (streak := g._memory.streak) and streak % g.rules.scale_grow == 0:
            g.loss_scale *= 2
        if g._applied % g.rules.snapshot == 0:
            g._snapshots.add(Snapshot(g.model, g.optimizer, g._applied))

    def _judged(self, norm: float) -> bool:
        """Whether the optimizer has stepped: everything is shown to ``decide``."""
        g = self._guard
        batch = self._seen or self._told()
        parameters = [p for p in g._parameters if p.grad is not None]
        layers = self._look.layers() if self._look else ()
        if self._look or not g._weight:
            g._weight = norms([p.detach() for p in parameters])[0]
        group = g.optimizer.param_groups[0]
        seen = Gradient(
            step=g.steps,
            loss=self._loss,
            norm=norm,
            weight=g._weight,
            rate=float(group["lr"]) * g.rate,
            adaptive=g._adaptive,
            loss_scale=g.loss_scale,
            input_magnitude=self._look.input_magnitude if self._look else nan,
            layers=layers,
            normed=g._norms.seen() if self._look else (),
            update=g._update,
        )
        acts = decide(g.history, seen, g.rules)
        if bad(acts):
            self._refuse(seen, acts)
            return False
        if self._look and g._norms:
            g._norms.keep(self._look.call)
            acts = [done for a in acts if (done := g._mended(a)) is not None]
        g._do(acts, self._look)
        for act in acts:
            if act.kind == "clip":
                torch._foreach_mul_([p.grad for p in parameters], float(act.terms["to"]) / norm)
        before = [p.detach().clone() for p in parameters] if self._look else []
        g._apply()
        if before:
            moved = torch._foreach_sub([p.detach() for p in parameters], before)
            g._update = norms(moved)[0] / max(g._weight, 1e-12)
        g._remember(remember(g.history, seen, acts, g.rules, batch))
        if g.history.dying:  # the next steps tell whether it stays so
            g._look_next = True
        return True
