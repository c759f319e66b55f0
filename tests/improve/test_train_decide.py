"""What the guard decides, as tables: pure, without torch."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.improve.train.decide import bad, decide, remember
from leptonai.improve.train.observed import Batch, Gradient, History, Layer, Rules, Validation, dump, load

RULES = Rules()


def gradient(step: int = 0, loss: float = 1.0, **more: object) -> Gradient:
    return Gradient(**{"step": step, "loss": loss, "norm": 1.0, "weight": 10.0, "rate": 0.01, **more})  # type: ignore[arg-type]


def healthy(steps: int = 40) -> History:
    h = History()
    for i in range(steps):
        loss = 2.3 * 0.95**i + 0.01 * (i % 3)
        b = Batch(step=i, loss=loss, location=0.01 * (i % 2), scale=1.0 + 0.01 * (i % 3))
        assert decide(h, b, RULES) == []
        h = remember(h, gradient(i, loss), [], RULES, b)
    return h


@pytest.mark.parametrize(
    ("seen", "kinds", "cause"),
    [
        (Batch(step=40, loss=0.3), [], ""),
        (Batch(step=40, loss=1.0), [], ""),  # above the recent ones, but no worse than the start
        (Batch(step=40, loss=9.0), ["skip"], "loss spike"),
        (Batch(step=40, loss=nan), ["skip"], "loss is not finite"),
        (Batch(step=40, loss=nan, weights_finite=False), ["restore", "lower_rate"], "weights are not finite"),
        (Batch(step=40, loss=0.3, location=nan), ["skip"], "input is not finite"),
        (Batch(step=40, loss=0.3, scale=40.0), ["skip"], "shifted batch"),
        (Batch(step=40, loss=0.3, location=0.5), [], ""),  # half a standard deviation is no fault
        (gradient(norm=5.0), [], ""),
        (gradient(norm=1e4), ["clip"], "gradient explosion"),
        (gradient(norm=inf), ["skip"], "gradient is not finite"),
        (gradient(norm=inf, loss_scale=1024.0), ["skip", "lower_scale"], "overflow"),
        (gradient(layers=(Layer(name="a", dead=1.0, weight=1.0, passed=0.0),)), [], ""),  # one look says nothing
        (gradient(layers=(Layer(name="a", dead=1.0, weight=1.0, last=True),)), [], ""),
        (Validation(step=40, loss=9.0), [], ""),  # one bad validation says nothing
    ],
)
def test_one_observation_after_forty_healthy_steps(seen: Batch | Gradient, kinds: list[str], cause: str) -> None:
    acts = decide(healthy(), seen, RULES)
    assert [a.kind for a in acts] == kinds
    assert all(a.cause == cause for a in acts)


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ({"passed": 0.0}, ["restore", "lower_rate"]),
        ({"passed": 0.005}, ["restore", "lower_rate"]),
        ({"passed": 1.0}, []),  # nothing was asked of it: an expert without tokens, a masked head
        ({"passed": 0.0, "dead": 0.5}, []),
        ({"passed": 0.0, "last": True}, []),
    ],
)
def test_a_layer_is_dead_when_its_activation_stops_all_that_reaches_it_at_three_looks(
    more: dict[str, float], kinds: list[str]
) -> None:
    h = healthy()
    layer = Layer(**{"name": "a", "dead": 1.0, "weight": 1.0, **more})  # type: ignore[arg-type]
    for i in range(3):
        seen = gradient(i, 0.3, layers=(layer,))
        acts = decide(h, seen, RULES)
        assert [a.kind for a in acts] == (kinds if i == 2 else [])
        h = remember(h, seen, acts, RULES, Batch(step=i, loss=0.3))
        h = h if acts else remember(h, gradient(i, 0.3), [], RULES, Batch(step=i, loss=0.3))  # a step without a look
    assert h.dying == 0 and load(dump(h)) == h


def test_a_layer_that_wakes_between_two_looks_is_not_dead() -> None:
    h = healthy()
    for i in range(12):
        layer = Layer(name="a", weight=1.0, dead=float(i % 3 > 0), passed=float(i % 3 == 0))
        seen = gradient(i, 0.3, layers=(layer,))
        assert decide(h, seen, RULES) == []
        h = remember(h, seen, [], RULES, Batch(step=i, loss=0.3))


def test_spikes_in_a_row_put_the_weights_back_once_and_then_blame_the_data() -> None:
    h, kinds = healthy(), []
    for i in range(6):
        spike = Batch(step=i, loss=9.0)
        acts = decide(h, spike, RULES)
        kinds.append([a.kind for a in acts])
        h = remember(h, spike, acts, RULES)
    assert kinds == [["skip"], ["skip"], ["restore"], ["skip"], ["skip"], ["skip"]]


def test_an_explosion_soon_after_a_restore_lowers_the_rate_and_without_end_stops() -> None:
    h, lowered, stopped = healthy(), 0, False
    for i in range(400):
        seen = Batch(step=i, loss=nan, weights_finite=False) if i % 2 else None
        if seen is None:
            h = remember(h, gradient(i, 0.3), [], RULES, Batch(step=i, loss=0.3))
            continue
        acts = decide(h, seen, RULES)
        lowered += any(a.kind == "lower_rate" for a in acts)
        h = remember(h, seen, acts, RULES)
        if any(a.kind == "stop" for a in acts):
            stopped = True
            break
    assert stopped
    assert lowered == RULES.restores


def test_a_rate_is_not_blamed_for_weights_that_came_straight_from_a_snapshot() -> None:
    h, seen = healthy(), Batch(step=40, loss=nan, weights_finite=False)
    first = decide(h, seen, RULES)
    second = decide(remember(h, seen, first, RULES), seen, RULES)
    assert [a.kind for a in first] == ["restore", "lower_rate"]
    assert [a.kind for a in second] == ["restore"]


@pytest.mark.parametrize(
    ("layer", "cause"),
    [
        (Layer(name="a", magnitude=500.0, spread=300.0), "activations explode"),
        (Layer(name="a", magnitude=0.3, spread=1e-5), "activations collapse"),
        (Layer(name="a", magnitude=1.0, spread=0.4), ""),
        (Layer(name="a", magnitude=0.3, spread=1e-5, last=True), ""),
    ],
)
def test_a_broken_start_is_initialised_anew_and_a_trained_model_never(layer: Layer, cause: str) -> None:
    seen = gradient(layers=(layer,), input_magnitude=1.0)
    assert [(a.kind, a.cause) for a in decide(History(), seen, RULES)] == ([("reinitialise", cause)] if cause else [])
    assert decide(healthy(), seen, RULES) == []


def test_over_fitting_needs_a_rise_that_matters_and_training_that_still_falls() -> None:
    def after(losses: list[float], training: list[float]) -> list[str]:
        h, kinds = healthy(), []
        for v, t in zip(losses, training, strict=True):
            seen = Validation(step=0, loss=v, training=t)
            acts = decide(h, seen, RULES)
            h = remember(h, seen, acts, RULES)
            kinds += [f"{a.kind}:{a.cause}" for a in acts]
        return kinds

    falls = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3]
    assert after([1.0, 1.2, 1.2, 1.3, 1.4, 1.5], falls) == ["restore:over-fitting", "stop:over-fitting"]
    assert after([1.0, 1.2, 1.2, 1.3, 1.4, 1.5], [1.0] * 6) == ["note:plateau"]
    assert after([1.0, 1.0, 1.0, 1.0, 1.0, 1.5], falls) == ["note:plateau"], "one bad validation says nothing"
    assert after([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], falls) == ["note:plateau"]
    assert after([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], falls) == []


@given(st.lists(st.tuples(st.floats(), st.floats(), st.booleans()), max_size=60))
def test_only_healthy_steps_shape_what_is_normal_and_a_history_survives_its_text(
    steps: list[tuple[float, float, bool]],
) -> None:
    h = healthy()
    for i, (loss, norm, whole) in enumerate(steps):
        b = Batch(step=i, loss=loss, weights_finite=whole)
        acts = decide(h, b, RULES)
        seen: Batch | Gradient = b
        if not bad(acts):
            seen = gradient(i, loss, norm=abs(norm))
            acts = decide(h, seen, RULES)
        new = remember(h, seen, acts, RULES, b)
        assert (new.losses == h.losses) == bad(acts) or new.losses == ()
        assert all(abs(v) < inf for v in (*new.losses, *new.norms))
        h = new
    assert dump(load(dump(h))) == dump(h)


def test_skill_that_is_lost_while_training_gets_worse_is_put_back_at_a_lower_rate() -> None:
    """Over-fitting stops a run; a rate that cannot keep what was learnt is only lowered."""
    h = History(first=2.3, best=1.0, best_training=0.9, stale=4, since=(1.7,) * 4, healthy=100, seen=100)
    acts = decide(h, Validation(step=1, loss=1.7, training=1.6), Rules())
    assert [a.kind for a in acts] == ["restore", "lower_rate"] and acts[0].cause == "skill is lost"
    after = remember(h, Validation(step=1, loss=1.7, training=1.6), acts, Rules())
    assert (after.stale, after.restores, after.lowered, after.best) == (0, 1, 1, 1.0)
    assert [a.kind for a in decide(h, Validation(step=1, loss=1.7, training=0.5), Rules())] == ["restore", "stop"]
    assert [a.kind for a in decide(h, Validation(step=1, loss=1.05, training=1.6), Rules())] == ["note"]


def test_a_rate_that_rewrites_the_weights_three_times_is_lowered() -> None:
    h = History()
    kinds = []
    for step in range(3):
        seen = Gradient(step=step, loss=2.3, norm=5.0, weight=7.0, rate=5.0)
        acts = decide(h, seen, Rules())
        kinds.append([a.kind for a in acts])
        h = remember(h, seen, acts, Rules(), Batch(step=step, loss=2.3))
    assert kinds == [["clip"], ["clip"], ["restore", "lower_rate"]]
    assert h.violent == 0, "the next start is judged anew"
    assert acts[1].terms["factor"] == pytest.approx(0.02 * 7 / 5 / 5), "to what would have been gentle"


def test_no_progress_at_a_rate_that_was_too_high_before_lowers_it_once_more() -> None:
    h = History(first=2.3, best=1.0, best_training=0.9, stale=4, since=(1.01,) * 4, healthy=100, seen=100, lowered=1)
    seen = Validation(step=1, loss=1.01, training=0.95)
    assert [a.kind for a in decide(h, seen, Rules())] == ["restore", "lower_rate"]
    never = History(first=2.3, best=1.0, best_training=0.9, stale=4, since=(1.01,) * 4, healthy=100, seen=100)
    assert [a.kind for a in decide(never, seen, Rules())] == ["note"], "a plateau alone is no fault"
    assert [a.kind for a in decide(h, Validation(step=1, loss=1.01, training=0.8), Rules())] == ["note"]
