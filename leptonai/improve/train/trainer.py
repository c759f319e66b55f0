"""For those who want no loop of their own: the guard around epochs and validation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from leptonai.errors import SpecError
from leptonai.improve.train.batches import Batches
from leptonai.improve.train.board import Tells
from leptonai.improve.train.guard import Guard
from leptonai.improve.train.observed import Event
from leptonai.improve.train.schedule import Shape, warmup
from leptonai.types import Noun


class Result(Noun, frozen=True, kw_only=True):
    steps: int
    epochs: int
    losses: tuple[float, ...]  # validation, or mean training loss, of each epoch
    stopped: str  # why before its end; "" when it ran through
    events: tuple[Event, ...]


class Epoch:
    """The epoch under way, kept in checkpoints: its training losses so far, and how many epochs have been judged."""

    def __init__(self) -> None:
        self.total = 0.0
        self.count = self.judged = 0
        self.losses: list[float] = []

    def add(self, loss: float) -> None:
        self.total, self.count = self.total + loss, self.count + 1

    def end(self, told: float) -> None:
        self.total, self.count, self.judged = 0.0, 0, self.judged + 1
        self.losses.append(told)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count, "judged": self.judged, "losses": list(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count, self.judged = state["total"], state["count"], state["judged"]
        self.losses = list(state["losses"])


class Trainer:
    """``fit`` trains ``model`` by AdamW (decoupled weight decay, Loshchilov & Hutter 2019) under a guard.

    ``loss(output, target)`` gives one number. ``options`` go to Guard: folder, every, precision, accumulate, rules.
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Any], Any],
        *,
        rate: float = 1e-3,
        weight_decay: float = 0.01,
        batch_size: int = 64,
        warm: float = 0.05,
        schedule: Shape = "cosine",
        seed: int = 0,
        **options: Any,
    ) -> None:
        if not 0 <= warm < 1:
            raise SpecError(f"warm is {warm}; it is a share of the run in [0, 1)")
        self.model, self.loss = model, loss
        self._rate, self._decay, self._size = rate, weight_decay, batch_size
        self._warm, self._schedule, self._seed, self._options = warm, schedule, seed, options

    def fit(
        self,
        train: tuple[Any, Any],
        validation: tuple[Any, Any] | None = None,
        *,
        epochs: int = 10,
        progress: Callable[[int, float], None] | None = None,
        board: Tells | None = None,
    ) -> Result:
        """The model is trained; with ``validation`` it holds the weights of its best epoch.

        With a ``folder`` among the options, a run that was killed goes on where its last checkpoint was.
        ``progress(epoch, loss)`` is called after each epoch; ``board`` is told of every step, epoch and act.
        """
        if epochs < 1:
            raise SpecError(f"epochs is {epochs}; it must be at least 1")
        batches = Batches(*train, size=self._size, seed=self._seed)
        total = -(-epochs * len(batches) // int(self._options.get("accumulate", 1)))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self._rate, weight_decay=self._decay)
        factor = warmup(int(self._warm * total), total, self._schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        epoch, acts, told_of = Epoch(), 0, 0
        guard = Guard(
            self.model, optimizer, scheduler=scheduler, keep={"batches": batches, "epoch": epoch}, **self._options
        )
        if guard.folder is not None:
            guard.resume()
        while epoch.judged < epochs and not guard.stopped:
            self.model.train()
            if batches.epoch == epoch.judged:  # else it was killed between an epoch's last step and its judgement
                for x, y in batches:
                    with guard.step((x, y)) as step:
                        loss = self.loss(self.model(x), y)
                        step.backward(loss)
                        epoch.add(loss.item())
                    if board is not None:
                        rate = float(optimizer.param_groups[0]["lr"]) * guard.rate
                        acts += sum(e.act.kind != "note" for e in guard.events[told_of:])
                        told_of = len(guard.events)
                        board.tell(guard.steps, loss__train=loss.item(), rate=rate, acts=acts)
            told = trained = epoch.total / max(epoch.count, 1)
            if validation is not None:
                told = self.evaluate(*validation)
                guard.validated(told, trained, partial(self.evaluate, *validation))
            epoch.end(told)
            if board is not None:
                board.tell(guard.steps, loss__epoch=told)
            if progress is not None:
                progress(batches.epoch, told)
        guard.best()
        return Result(
            steps=guard.steps,
            epochs=batches.epoch,
            losses=tuple(epoch.losses),
            stopped=guard.stopped,
            events=tuple(guard.events),
        )

    def evaluate(self, x: Any, y: Any) -> float:
        """The mean loss on held-out data, weights untouched."""
        self.model.eval()
        with torch.no_grad():
            return float(self.loss(self.model(x), y))
