"""Batch normalisation under guard, on a real convolutional net: each way it fails, what is told, what is mended."""

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training guard is not tested here")

from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from leptonai.improve.train import Guard, Rules, Trainer, seed  # noqa: E402
from leptonai.improve.train import decide_norm as norms  # noqa: E402
from leptonai.improve.train.decide import decide  # noqa: E402
from leptonai.improve.train.observed import Gradient, History, Norm, Validation, dump, load  # noqa: E402

RULES = Rules()


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor((x - 4.9) / 6, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y)


X, Y = digits()


def net(momentum: float | None = 0.1) -> nn.Sequential:
    seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU(), nn.Flatten(),
        nn.Linear(72, 32), nn.BatchNorm1d(32, momentum=momentum), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10),
    )  # fmt: skip


def make(model: nn.Module, **more: object) -> Guard:
    return Guard(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), **more)  # type: ignore[arg-type]


def train(model: nn.Module, guard: Guard, steps: int, rows: int = 50, scale: float = 1.0) -> float:
    """The mean loss of that many more steps."""
    total = 0.0
    for _ in range(steps):
        at = guard.steps * rows % 1000
        with guard.step((x := X[at : at + rows] * scale, y := Y[at : at + rows])) as step:
            step.backward(loss := cross_entropy(model(x), y))
            total += loss.item()
    return total / steps


def held(model: nn.Module, scale: float = 1.0) -> Callable[[], float]:
    def evaluate() -> float:
        model.eval()
        torch.rand(1)  # as a DataLoader does when it begins
        with torch.no_grad():
            return float(cross_entropy(model(X[1000:] * scale), Y[1000:]))

    return evaluate


def told(guard: Guard) -> list[tuple[str, str]]:
    return [(e.act.kind, e.act.cause) for e in guard.events]


def same(a: nn.Module, b: nn.Module, only: str = "") -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items() if only in k)


def test_a_healthy_net_is_left_alone_to_the_bit_though_validation_is_checked() -> None:
    """Even where each validation looks suspicious, and though checking draws random numbers."""
    model = net()
    guard = make(model)
    checks = 0

    def evaluate() -> float:
        nonlocal checks
        checks += 1
        return held(model)()

    for _ in range(8):
        train(model, guard, 20)
        state = torch.get_rng_state()
        loss = held(model)()
        torch.set_rng_state(state)
        guard.validated(loss, 0.0, evaluate)
        model.train()
    assert told(guard) == [] and checks == 3, "after 1, 2 and 4 validations"
    bare = net()
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.05, momentum=0.9)
    for i in range(160):
        at = i * 50 % 1000
        optimizer.zero_grad()
        cross_entropy(bare(X[at : at + 50]), Y[at : at + 50]).backward()
        optimizer.step()
    assert same(model, bare)


def test_batches_too_small_for_statistics_are_noted_once() -> None:
    """Six rows after the flattening are six values; the convolution has nine places for each of them."""
    model = net()
    guard = make(model)
    train(model, guard, 60, rows=6)
    few = [e.act for e in guard.events if e.act.cause == norms.FEW]
    assert [(a.kind, a.terms["layer"], a.terms["values"], a.terms["layers"]) for a in few] == [("note", "5", 6, 1)]


def spoil(layer: nn.BatchNorm2d, how: str) -> None:
    if how == norms.BROKEN:
        layer(torch.full((4, 8, 3, 3), float("nan")))
    elif how == norms.COLLAPSED:
        layer.running_var.zero_()
        layer.momentum = 0.0
    else:
        layer(1e8 * torch.randn(4, 8, 3, 3))


@pytest.mark.parametrize("how", [norms.BROKEN, norms.COLLAPSED, norms.ASTRAY])
def test_running_statistics_that_broke_are_made_anew_at_the_next_look(how: str) -> None:
    """Training goes on as if nothing were: only eval mode would have shown it."""
    model, twin = net(), net()
    guard, other = make(model), make(twin)
    for m, g in ((model, guard), (twin, other)):
        seed(1)
        train(m, g, 81)
    spoil(model[1], how)  # type: ignore[arg-type]
    assert not held(model)() < 1.0
    model.train()
    for m, g in ((model, guard), (twin, other)):
        seed(2)
        train(m, g, 20)
    assert told(guard) == [("recalibrate", how)] and told(other) == []
    assert same(model, twin, "weight") and same(model, twin, "bias")
    assert held(model)() < 1.2 * held(twin)() + 0.05
    assert model[1].momentum == (0.0 if how == norms.COLLAPSED else 0.1)


def test_one_odd_batch_at_a_look_is_no_reason_to_recalibrate() -> None:
    """What comes to the layer is faint in the step that is looked at; the batches kept from earlier looks are not."""
    model, calls = net(), 0
    guard = make(model)

    def faint(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return output * 1e-6 if calls == 101 else output

    model[0].register_forward_hook(faint)
    train(model, guard, 100)
    with torch.no_grad():
        model[1].running_var.mul_(1e3)
    train(model, guard, 2)
    assert calls > 102, "it was tried"
    assert told(guard) == [] and model[1].running_var.mean() > 100, "and taken back"


def test_a_variance_that_collapsed_because_nothing_comes_is_only_noted() -> None:
    model = net()
    model[0].requires_grad_(False)
    guard = make(model)
    train(model, guard, 20)
    model[0].weight.mul_(1e-6)
    model[0].bias.zero_()
    train(model, guard, 190)
    assert [t for t in told(guard) if t[0] != "clip"] == [("note", norms.COLLAPSED)]
    assert guard.events[-1].act.terms["layer"] == "1"


@pytest.mark.parametrize("how", ["momentum", "shard"])
def test_running_statistics_that_mislead_validation_are_made_anew(how: str) -> None:
    """Inputs far from unit variance at a momentum too small to learn it; a bad shard seen before validation."""
    momentum, scale = (1e-4, 30.0) if how == "momentum" else (0.1, 1.0)
    model = net(momentum)
    guard = make(model)
    training = train(model, guard, 100, scale=scale)
    if how == "shard":
        with torch.no_grad():
            for _ in range(5):
                model(X[:50] * 5 + 8)
    kept = {k: v.clone() for k, v in model.state_dict().items() if "running" not in k}
    evaluate = held(model, scale)
    before = evaluate()
    model.train()
    dropping: list[bool] = []
    model[7].register_forward_hook(lambda m, args, out: dropping.append(m.training))
    guard.validated(before, training, evaluate)
    (event,) = [e for e in guard.events if e.act.kind != "note"]
    assert (event.act.kind, event.act.cause) == ("recalibrate", norms.MISLED)
    assert before > 2 * evaluate() and evaluate() == event.act.terms["recalibrated"] == guard.history.best
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in kept.items()), "weights, and how much was counted"
    assert len(dropping) > 10 and not any(dropping)
    assert all(m.momentum == momentum for m in model if isinstance(m, nn.BatchNorm2d))


def test_recalibrating_that_does_not_mend_is_taken_back_and_noted() -> None:
    """Validation data of another scale: batch statistics would mend that, those of the training data do not."""
    model = net()
    guard = make(model)
    training = train(model, guard, 100)

    def evaluate() -> float:
        model.eval()
        with torch.no_grad():
            return float(cross_entropy(model(X[1000:] * 9 + 20), Y[1000:]))

    loss = evaluate()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    guard.validated(loss, training, evaluate)
    assert told(guard) == [("note", norms.MISLED)]
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert guard.history.best == loss


def test_layers_left_in_the_wrong_mode_are_noted_once() -> None:
    model = net()
    guard = make(model)
    train(model, guard, 15)
    held(model)()  # and train() is forgotten
    train(model, guard, 90)
    assert told(guard) == [("note", norms.LEFT)] and guard.events[0].act.terms["layers"] == 2
    model.train()
    for _ in range(2):
        train(model, guard, 5)
        with torch.no_grad():  # and eval() is
            loss = cross_entropy(model(X[1000:]), Y[1000:]).item()
        guard.validated(loss)
    assert told(guard)[1:] == [("note", norms.COUNTED)] and guard.events[1].act.terms["layers"] == 2


def test_modes_that_are_meant_are_not_noted() -> None:
    """A frozen layer in eval mode; weights that are swapped for validation, as averaged ones are; none kept at all."""
    model = net()
    model[1].requires_grad_(False).eval()
    guard = make(model)
    train(model, guard, 40)
    own = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict({k: v * 0.999 if v.is_floating_point() else v for k, v in own.items()})
    loss = held(model)()
    model.load_state_dict(own)
    guard.validated(loss)
    assert told(guard) == []
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.ReLU())
    bare.append(nn.Linear(16, 10))
    guard = make(bare)
    training = train(bare, guard, 30)
    guard.validated(held(bare)(), training, held(bare))
    assert told(guard) == []


def test_the_trainer_checks_and_what_was_noted_survives_a_resume(tmp_path: Path) -> None:
    result = Trainer(net(1e-5), cross_entropy, rate=1e-2, batch_size=50).fit(
        (30 * X[:600], Y[:600]), (30 * X[600:], Y[600:]), epochs=3
    )
    assert norms.MISLED in [e.act.cause for e in result.events if e.act.kind == "recalibrate"]
    for steps in (8, 30):
        model = net()
        guard = make(model, folder=tmp_path)
        guard.resume()
        train(model, guard, steps, rows=6)
        guard.save()
        assert [e.act.cause for e in guard.events if e.act.cause == norms.FEW] == ([norms.FEW] if steps == 8 else [])


N = Norm(name="bn", values=64, training=True)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ({}, []),
        ({"values": 8, "ratio": 50.0, "apart": 50.0, "flat": 0.9}, []),
        ({"values": 7}, [("note", norms.FEW)]),
        ({"training": False}, [("note", norms.LEFT)]),
        ({"training": False, "frozen": True, "finite": False}, []),
        ({"finite": False}, [("recalibrate", norms.BROKEN)]),
        ({"flat": 1.0}, [("recalibrate", norms.COLLAPSED)]),
        ({"flat": 1.0, "flat_batch": 1.0}, [("note", norms.COLLAPSED)]),
        ({"ratio": 0.001}, [("recalibrate", norms.COLLAPSED)]),
        ({"ratio": 101.0}, [("recalibrate", norms.ASTRAY)]),
        ({"apart": 101.0, "values": 4}, [("note", norms.FEW), ("recalibrate", norms.ASTRAY)]),
    ],
)
def test_one_layer_at_one_look(fault: dict[str, object], wanted: list[tuple[str, str]]) -> None:
    from msgspec.structs import replace

    seen = replace(N, **fault)  # type: ignore[arg-type]
    g = Gradient(step=9, loss=1.0, norm=1.0, weight=1.0, rate=0.1, normed=(seen, replace(seen, name="other")))
    acts = decide(History(), g, RULES)
    assert [(a.kind, a.cause) for a in acts] == wanted and all(a.terms["layers"] == 2 for a in acts)
    once = norms.noted(History(), acts, g.normed, RULES)
    assert dump(load(dump(once))) == dump(once)
    assert [(a.kind, a.cause) for a in decide(once, g, RULES)] == [w for w in wanted if w[0] != "note"]


def test_what_counts_as_misled() -> None:
    h = History(first=2.0)

    def kind(loss: float, by_batch: float) -> bool:
        return norms.misled(h, Validation(step=1, loss=loss, by_batch=by_batch), RULES) is not None

    assert [kind(1.6, 0.5), kind(1.2, 0.5), kind(0.4, 0.5)] == [True, False, False]
    assert kind(float("nan"), 0.5) and not kind(9.0, float("inf")) and not kind(9.0, float("nan"))
    v = Validation(step=1, loss=2.0, by_batch=1.0)
    assert norms.better(v, 1.4) and not norms.better(v, 1.6)
