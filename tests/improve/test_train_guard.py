"""The guard on real networks, its checkpoints under kill -9, and the Trainer. Digits, a few seconds each."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training guard is not tested here")

from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from leptonai.errors import LeptonError, ModelError, SpecError  # noqa: E402
from leptonai.improve.train import Batches, Guard, Rules, Trainer, kfold, seed, stratified, warmup  # noqa: E402
from leptonai.improve.train import checkpoint as files  # noqa: E402


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor((x - 4.9) / 6, dtype=torch.float32), torch.tensor(y)


def net() -> nn.Module:
    seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))


def run(model: nn.Module, guard: Guard, batches: Batches, epochs: int, spoil: dict[int, float] | None = None) -> None:
    while batches.epoch < epochs and not guard.stopped:
        for x, y in batches:
            x = x * (spoil or {}).get(guard.steps, 1.0)
            with guard.step((x, y)) as step:
                step.backward(cross_entropy(model(x), y))


def make(model: nn.Module, **more: object) -> tuple[Guard, Batches]:
    x, y = digits()
    batches = Batches(x[:1000], y[:1000], size=50, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup(10, 200))
    return Guard(model, optimizer, scheduler=scheduler, keep={"batches": batches}, **more), batches  # type: ignore[arg-type]


def accuracy(model: nn.Module) -> float:
    x, y = digits()
    model.eval()
    with torch.no_grad():
        share = (model(x[1000:]).argmax(1) == y[1000:]).float().mean().item()
    model.train()
    return share


def test_a_healthy_run_is_the_bare_run_bit_for_bit_and_nothing_is_done() -> None:
    guarded = net()
    guard, batches = make(guarded)
    run(guarded, guard, batches, 4)
    bare = net()
    other, same = make(bare)
    for _ in range(4):
        for x, y in same:
            other.optimizer.zero_grad()
            cross_entropy(bare(x), y).backward()
            other.optimizer.step()
            other.scheduler.step()
    assert guard.events == []
    assert all(
        torch.equal(a, b) for a, b in zip(guarded.state_dict().values(), bare.state_dict().values(), strict=True)
    )


def test_a_bad_batch_leaves_weights_and_running_statistics_as_they_were() -> None:
    model = net()
    guard, batches = make(model)
    run(model, guard, batches, 2)
    before = {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}
    for factor in (float("nan"), 1e4):
        x, y = batches.data[0][:50] * factor, batches.data[1][:50]
        with guard.step((x, y)) as step:
            step.backward(cross_entropy(model(x), y))
        after = model.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert [e.act.cause for e in guard.events] == ["input is not finite", "shifted batch"]


def test_weights_that_are_destroyed_are_put_back() -> None:
    model = net()
    guard, batches = make(model)
    run(model, guard, batches, 5)
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))  # type: ignore[index]
    run(model, guard, batches, 8)
    assert guard.events[0].act.kind == "restore"
    assert accuracy(model) > 0.9


def test_a_layer_that_dies_is_seen_at_once_and_put_back() -> None:
    seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    guard, batches = make(model)
    run(model, guard, batches, 5)
    with torch.no_grad():
        model[2].bias -= 100  # type: ignore[operator]
    died = guard.steps
    run(model, guard, batches, 10)
    assert (guard.events[0].act.cause, guard.events[0].act.kind) == ("dead units", "restore")
    assert guard.events[0].step <= died + 4, "a gradient that is zero calls for a close look, that one for two more"
    assert accuracy(model) > 0.8


class Experts(nn.Module):
    """Each row goes to one of four experts; ``sparse``: the others are called without rows, else their share is 0."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.sparse = sparse
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(4))
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        if self.sparse:
            mixed = torch.zeros_like(x)
            for i, expert in enumerate(self.experts):
                mixed = mixed.index_add(0, rows := (to == i).nonzero()[:, 0], expert(x[rows]))
        else:
            mixed = sum((to == i).float()[:, None] * expert(x) for i, expert in enumerate(self.experts))  # type: ignore[assignment]
        return self.out(mixed)[:, 0]  # type: ignore[no-any-return]


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([head(self.trunk(x)) for head in self.heads], 1)


@pytest.mark.parametrize("kind", ["sparse experts", "dense experts", "masked head", "margin", "margin beside"])
def test_parts_that_rest_are_not_dead(kind: str) -> None:
    """A gradient that is exactly zero is healthy where nothing was asked: whole layers rest in a third of the steps."""
    seed(0)
    model: nn.Module = Heads() if "experts" not in kind else Experts(kind.startswith("sparse"))
    guard = Guard(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))
    drawn = torch.Generator().manual_seed(1)
    rested = 0
    for _ in range(300):
        x = torch.randn(32, 8, generator=drawn)
        y = x[:, 0] + 0.5 * x[:, 1]
        rests = torch.rand(1, generator=drawn).item() < 0.3
        with guard.step((x, y)) as step:
            if isinstance(model, Experts):
                loss = (model(x, torch.randint(3 if rests else 4, (32,), generator=drawn)) - y).square().mean()
            else:
                one, two = model(x).unbind(1)
                side = torch.where(x[:, 0] > 0, 1.0, -1.0)
                margin = (0.1 - one * side - 0.3 * (two.detach() * 0 + x[:, 0].abs())).clamp(min=0)
                if rests:
                    margin = margin * 0 if kind != "margin" else (margin - 10).clamp(min=0)
                loss = margin.mean()
                if kind != "margin":
                    loss = loss + (two - y).square().mean()
            step.backward(loss)
            rested += rests
    assert rested > 60
    assert guard.events == [] and guard.rate == 1.0


def test_a_dead_layer_is_seen_when_batches_are_accumulated() -> None:
    seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    guard, batches = make(model, accumulate=2)
    run(model, guard, batches, 7)
    with torch.no_grad():
        model[2].bias -= 100  # type: ignore[operator]
    died = guard.steps
    run(model, guard, batches, 8)
    assert guard.events[0].act.cause == "dead units"
    assert guard.events[0].step <= died + 2 * 4


def test_sources_in_turn_are_all_usual_after_trouble() -> None:
    """A loader that takes four sources in turn, each at a level of its own; later one batch is broken."""
    seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    guard = Guard(model, torch.optim.SGD(model.parameters(), lr=0.01))
    drawn = torch.Generator().manual_seed(1)
    for i in range(500):
        x = torch.randn(128, 8, generator=drawn) + 0.45 * (i % 4)
        y = torch.tanh(x[:, 0])
        if i == 400:
            x = x * float("nan")
        with guard.step((x, y)) as step:
            step.backward((model(x)[:, 0] - y).square().mean())
    assert [(e.step, e.act.cause) for e in guard.events] == [(400, "input is not finite")]


def test_values_that_a_model_masks_are_no_fault() -> None:
    model = net()
    guard, batches = make(model)
    for x, y in batches:
        holes = x.clone()
        holes[:, 5] = float("nan")
        with guard.step((holes, y)) as step:
            step.backward(cross_entropy(model(torch.nan_to_num(holes)), y))
    assert guard.events == [] and guard.history.healthy == guard.steps == len(batches)


def test_fp16_overflow_lowers_the_loss_scale_until_it_learns() -> None:
    model = net()
    guard, batches = make(model, precision="fp16", loss_scale=2.0**30)
    run(model, guard, batches, 5)
    assert guard.loss_scale < 2.0**30
    assert {e.act.cause for e in guard.events} == {"overflow"}
    assert accuracy(model) > 0.9


def test_a_loss_scale_grows_while_calm_steps_stay_cheap() -> None:
    seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    guard, batches = make(model, precision="fp16", loss_scale=1024.0)
    taken = []
    while guard.steps < 220:
        for x, y in batches:
            with guard.step((x, y)) as step:
                step.backward(cross_entropy(model(x), y))
            taken.append(len(guard._memory._pending))
    assert guard.loss_scale == 2048.0 and guard.events == []
    assert max(taken) > 5, "bounds hold for several steps"


def test_accumulated_batches_make_the_gradient_of_one_large_batch() -> None:
    x, y = digits()
    weights = []
    for pieces in (1, 4):
        seed(3)
        model = nn.Linear(64, 10)
        guard = Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=pieces)
        for part in x[:80].chunk(pieces):
            with guard.step((part,)) as step:
                step.backward(cross_entropy(model(part), y[: len(part)].roll(0) * 0 + 3))
        weights.append(model.weight.detach().clone())
    assert torch.allclose(weights[0], weights[1], atol=1e-6)


CHILD = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from test_train_guard import make, net, run, torch
torch.set_num_threads(1)
model = net()
guard, batches = make(model, folder=sys.argv[1], every=7)
inner = guard.optimizer.step
def step(*args, **kwargs):
    if guard.steps == 31:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*args, **kwargs)
guard.optimizer.step = step
run(model, guard, batches, 4)
"""


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    straight = net()
    guard, batches = make(straight)
    run(straight, guard, batches, 4)
    script, out = tmp_path / "child.py", tmp_path / "run"
    script.write_text(CHILD.format(folder=str(Path(__file__).parent)))
    child = subprocess.run([sys.executable, script, str(out)], capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    resumed = net()
    torch.manual_seed(99)
    guard, batches = make(resumed, folder=out)
    assert guard.resume() == 28  # the second epoch, between two checkpoints
    run(resumed, guard, batches, 4)
    after = resumed.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in straight.state_dict().items())


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(tmp_path: Path) -> None:
    model = net()
    guard, batches = make(model, folder=tmp_path, every=20)
    run(model, guard, batches, 2)
    last = files.files(tmp_path)[-1]
    whole = last.read_bytes()
    assert len(files.files(tmp_path)) == 2
    for damaged in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b"", b"\x80\x02pickle"):
        last.write_bytes(damaged)
        again, _ = make(net(), folder=tmp_path)
        assert again.resume() == 20
        assert [e.act.cause for e in again.events] == ["checkpoint skipped"]
    last.write_bytes(whole.replace(b'"format":1', b'"format":9', 1))
    with pytest.raises(ModelError, match="format 9"):
        files.read(last)
    (tmp_path / "step-000000000099.part").write_bytes(b"half")
    assert files.newest(tmp_path)[0] is not None


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    guard, batches = make(net(), folder=tmp_path)
    guard.save()
    other, _ = make(nn.Linear(64, 10), folder=tmp_path)
    with pytest.raises(ModelError, match="does not fit"):
        other.resume()
    assert batches.epoch == 0


def saved(folder: Path) -> tuple[Guard, Batches, dict[str, Any]]:
    """A run that saved itself after its first epoch, and what stands in that file."""
    model = net()
    guard, batches = make(model, folder=folder)
    run(model, guard, batches, 1)
    guard.save()
    state = files.newest(folder)[0]
    assert state is not None
    return guard, batches, state


def test_a_checkpoint_of_the_version_before_is_gone_on_from(tmp_path: Path) -> None:
    guard, batches, state = saved(tmp_path)
    model = guard.model
    del state["guard"]["silent"]
    history = msgspec.json.decode(state["guard"]["history"])
    del history["dying"], history["since"]
    state["guard"]["history"] = msgspec.json.encode(history).decode()
    files.write(tmp_path, guard.steps, state)
    run(model, guard, batches, 2)
    again, same = make(net(), folder=tmp_path)
    assert again.resume() == 20 and same.epoch == 1
    run(again.model, again, same, 2)
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in model.state_dict().items())


def test_what_cannot_be_read_is_told_before_anything_is_overwritten(tmp_path: Path) -> None:
    guard, _, state = saved(tmp_path)
    for spoilt in (
        {**state["guard"], "history": '{"later": 1}'},
        {k: v for k, v in state["guard"].items() if k != "rate"},
    ):
        files.write(tmp_path, guard.steps, {**state, "guard": spoilt})
        fresh, _ = make(net(), folder=tmp_path)
        before = {k: v.clone() for k, v in fresh.model.state_dict().items()}
        with pytest.raises(ModelError, match="does not fit"):
            fresh.resume()
        assert all(torch.equal(v, before[k]) for k, v in fresh.model.state_dict().items())
        assert not fresh.optimizer.state_dict()["state"] and fresh.steps == 0


def test_misuse_is_told() -> None:
    model = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    x, y = digits()
    with pytest.raises(SpecError, match=r"without step\.backward"), guard.step((x, y)):
        pass
    with pytest.raises(SpecError, match="one number"), guard.step((x, y)) as step:
        step.backward(model(x))
    for wrong in ({"accumulate": 0}, {"every": 5}, {"precision": "fp8"}):
        with pytest.raises(SpecError):
            Guard(model, optimizer, **wrong)  # type: ignore[arg-type]
    for call in (
        lambda: Batches(x, y[:5], size=5),
        lambda: kfold(3, 4),
        lambda: stratified(["a"] * 9),
        lambda: stratified([0, 0, 0, 1]),
        lambda: warmup(9, 9),
        lambda: seed(-1),
        lambda: guard.save(),
    ):
        with pytest.raises(LeptonError):
            call()


def test_the_trainer_learns_keeps_the_best_and_ends_early_when_it_over_fits() -> None:
    x, y = digits()
    model = net()
    result = Trainer(model, cross_entropy, rate=3e-3, batch_size=50).fit(
        (x[:1000], y[:1000]), (x[1000:1300], y[1000:1300]), epochs=6
    )
    assert result.epochs == 6
    assert accuracy(model) > 0.9
    noise = torch.randint(0, 10, (200,), generator=torch.Generator().manual_seed(0))
    seed(0)
    wide = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    result = Trainer(wide, cross_entropy, rate=1e-2, batch_size=50, rules=Rules(patience=3)).fit(
        (x[:200], noise), (x[1000:1300], y[1000:1300]), epochs=40
    )
    assert result.stopped == "over-fitting"
    assert result.epochs < 40


@pytest.mark.parametrize("folds", [2, 5])
def test_every_row_is_held_out_once_and_classes_are_spread_evenly(folds: int) -> None:
    labels = np.array([0] * 23 + [1] * 11 + [2] * 6)
    for split in (kfold(40, folds, seed=1), stratified(labels, folds, seed=1)):
        assert sorted(np.concatenate([held for _, held in split])) == list(range(40))
        assert all(not set(train) & set(held) for train, held in split)
    counts = np.array([np.bincount(labels[held], minlength=3) for _, held in stratified(labels, folds, seed=1)])
    assert (counts.max(0) - counts.min(0) <= 1).all()


def test_schedules_rise_then_fall_to_the_floor() -> None:
    factor = warmup(10, 100, floor=0.1)
    values = [factor(i) for i in range(120)]
    assert values[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[100:] == pytest.approx([0.1] * 20)
    assert min(values) > 0
