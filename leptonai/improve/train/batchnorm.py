"""Batch normalisation under guard: what each layer does at a close look, and running statistics made anew."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf
from typing import Any

import torch
from torch import nn

from leptonai.improve.train.observed import Norm, Rules
from leptonai.improve.train.state import random_states, set_random_states

Call = tuple[tuple[Any, ...], dict[str, Any]]
RECENT = 16  # batches kept: about a thousand rows tell statistics well (Wu & Johnson 2021, section 3.3)


class Norms:
    """The batch normalisation layers of ``model``. Costs a step nothing where there are none, and where there are, the
    reading of one integer for each; inputs of ``RECENT`` batches are kept, copied at close looks."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = {k: m for k, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
        tracked = [(k, m) for k, m in self._layers.items() if m.running_mean is not None]
        self._tracked = [(k, m.num_batches_tracked, m.running_mean) for k, m in tracked]
        self._recent: deque[Call] = deque(maxlen=RECENT)
        self._batch: dict[str, tuple[bool, int, Any, Any]] = {}
        self._handles: list[Any] = []
        self._rests: set[str] = set()  # layers that the last close look found in eval mode
        self.stepped()

    def __bool__(self) -> bool:
        return bool(self._layers)

    # -- at each step ----------------------------------------------------------------------------------------------

    def stepped(self) -> None:
        """A step has ended. Autograd's count of writes to a layer's counter tells whether it counts between steps: a
        forward pass writes to the counter only as autograd sees it, loading a state to the running mean too."""
        self._versions = [(t._version, mean._version) for _, t, mean in self._tracked]

    def counted(self) -> tuple[str, ...]:
        """Layers that counted a batch in train mode since the last step."""
        both = zip(self._tracked, self._versions, strict=True)
        return tuple(k for (k, t, mean), (count, loaded) in both if t._version != count and mean._version == loaded)

    # -- at a close look -------------------------------------------------------------------------------------------

    def open(self) -> None:
        self._batch.clear()
        self._handles = [m.register_forward_pre_hook(self._input(k)) for k, m in self._layers.items()]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _input(self, name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...]) -> None:
            x = args[0].detach()
            rows = x.numel() // max(x.shape[1], 1)
            if module.running_mean is None or rows < 2:
                self._batch[name] = module.training, rows, None, None
                return
            over = [d for d in range(x.dim()) if d != 1]
            var, mean = torch.var_mean(x.float(), over)
            self._batch[name] = module.training, rows, mean, var

        return hook

    def keep(self, call: Call | None) -> None:
        """``call``, how the model was called in a sound step, is kept."""
        if call is not None and self._layers:
            self._recent.append((_copied(call[0]), _copied(call[1])))

    def seen(self) -> tuple[Norm, ...]:
        """What the layers did in the forward pass that was looked at."""
        self._rests = {k for k, (training, *_) in self._batch.items() if not training}
        return tuple(self._norm(k, *told) for k, told in self._batch.items())

    def _norm(self, name: str, training: bool, rows: int, mean: Any, var: Any) -> Norm:
        m = self._layers[name]
        weights = list(m.parameters(recurse=False))
        made = Norm(
            name=name,
            values=0 if isinstance(m, nn.SyncBatchNorm) else rows,  # its rows lie with other processes too
            training=training,
            frozen=bool(weights) and not any(p.requires_grad for p in weights),
            momentum=inf if m.momentum is None else float(m.momentum),
        )
        if mean is None:
            return made
        from msgspec.structs import replace

        finite = bool(torch.isfinite(m.running_mean).all() and torch.isfinite(m.running_var).all())
        if not finite:
            return replace(made, finite=False)
        ratio, apart = self._apart(m, mean, var)
        flat = (m.running_var < m.eps).float().mean().item()
        return replace(made, flat=flat, flat_batch=(var < m.eps).float().mean().item(), ratio=ratio, apart=apart)

    @staticmethod
    def _apart(m: Any, mean: Any, var: Any) -> tuple[float, float]:
        """How far the running statistics are from those of a batch: deviation over deviation, and the distance of the
        means in deviations, medians over the channels. What is left of the start (mean 0, variance 1) is expected."""
        count = int(m.num_batches_tracked) if m.num_batches_tracked is not None else 0
        left = 0.0 if m.momentum is None else (1 - m.momentum) ** count
        want = (1 - left) * var + left + m.eps
        ratio = ((m.running_var + m.eps) / want).clamp_min(0).sqrt().median().item()
        return ratio, ((m.running_mean - (1 - left) * mean).abs() / want.sqrt()).median().item()

    # -- mending ---------------------------------------------------------------------------------------------------

    def _live(self) -> list[Any]:
        return [m for k, m in self._layers.items() if m.running_mean is not None and k not in self._rests]

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Modes of all modules and the generators are afterwards what they were."""
        modes, states = [(m, m.training) for m in self._model.modules()], random_states()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            set_random_states(states)

    def ask(self, evaluate: Callable[[], float], by_batch: bool = False) -> float:
        """``evaluate()``; with ``by_batch`` the layers normalise by each batch, in eval mode too, and count nothing.

        inf when that cannot be told: the user's function or the model refuses a batch of one.
        """
        kept = [(m, m.running_mean, m.running_var) for m in self._live()] if by_batch else []
        with self._aside():
            try:
                for m, _, _ in kept:
                    m.running_mean = m.running_var = None
                return float(evaluate())
            except (RuntimeError, ValueError):
                if not by_batch:
                    raise
                return inf
            finally:
                for m, mean, var in kept:
                    m.running_mean, m.running_var = mean, var

    def recalibrate(self, cast: AbstractContextManager[Any] | None = None) -> Callable[[], None] | None:
        """The running statistics of the layers in training are the plain mean over the kept batches, under the present
        weights and with nothing dropped (as torch.optim.swa_utils.update_bn). Gives what takes it back; None, and
        nothing is changed, when there is no batch, the model refuses one, or what comes out is not finite."""
        live = self._live()
        if not live or not self._recent:
            return None
        buffers = [(b, b.detach().clone()) for b in self._model.buffers()]
        averaged = {id(t) for m in live for t in (m.running_mean, m.running_var)}
        momenta = [m.momentum for m in live]

        def back() -> None:
            for buffer, old in buffers:
                buffer.copy_(old)

        whole = False
        with self._aside(), torch.no_grad():
            try:
                self._model.eval()
                for m in live:
                    m.reset_running_stats()
                    m.momentum, m.training = None, True
                with cast or nullcontext():
                    for args, options in self._recent:
                        self._model(*args, **options)
                whole = all(bool(torch.isfinite(t).all()) for m in live for t in (m.running_mean, m.running_var))
            except (RuntimeError, ValueError):
                pass
            finally:
                for m, momentum in zip(live, momenta, strict=True):
                    m.momentum = momentum
                for buffer, old in buffers:
                    if not whole or id(buffer) not in averaged:
                        buffer.copy_(old)
        return back if whole else None

    def mend(self, rules: Rules, cast: AbstractContextManager[Any] | None = None) -> bool | None:
        """``recalibrate``, kept only where some layer was not finite, flat, or far from what came out; None where none
        was: one odd batch at a look is no reason. False when it could not be done."""
        before = [(m, m.running_mean.clone(), m.running_var.clone()) for m in self._live()]
        back = self.recalibrate(cast)
        if back is None:
            return False
        for m, mean, var in before:
            new = m.running_var + m.eps
            ratio = ((var + m.eps) / new).sqrt().median().item()
            apart = ((mean - m.running_mean).abs() / new.sqrt()).median().item()
            broken = not torch.isfinite(torch.cat((mean, var))).all()
            flat = (var < m.eps).float().mean() >= rules.dead > (m.running_var < m.eps).float().mean()
            if broken or flat or not 1 / rules.astray <= ratio <= rules.astray or apart > rules.astray:
                return True
        back()
        return None


def _copied(value: Any) -> Any:
    if torch.is_tensor(value):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_copied(v) for v in value)
    return value
