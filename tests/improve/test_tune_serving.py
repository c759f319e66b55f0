"""Knobs of serving: what is on the front, what is chosen, when recorded requests came, and real replicas."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("optuna", reason="optuna is not installed: tuning is not tested here")

from leptonai.cli.main import run
from leptonai.errors import ModelError, SpecError
from leptonai.improve.compress import replica
from leptonai.improve.propose import tuned
from leptonai.improve.tune.serving import (
    Measured,
    Pair,
    Serve,
    Serving,
    asked,
    batching,
    beside,
    came,
    choice,
    front,
    kept,
    stretches,
)
from leptonai.types import Batching, Scale, Spec, Variant

numbers = st.sampled_from([1.0, 2.0, 3.0])
trials = st.lists(
    st.builds(
        Measured,
        params=st.just({}),
        p50=numbers,
        p99=numbers,
        rate=numbers,
        processors=st.integers(1, 3),
        beside99=numbers,
        asked=numbers,
    ),
    max_size=8,
)


@given(trials, numbers)
def test_the_choice_is_on_the_front_and_within_the_promise(found: list[Measured], latency: float) -> None:
    """Whoever is left out is beaten by somebody on the front; nobody within the promise has fewer processors."""
    best = front(found)
    for one in found:
        assert any(b.slow <= one.slow and b.rate >= one.rate and b.processors <= one.processors for b in best)
    able = [t for t in found if t.p99 <= latency and t.rate >= t.asked]
    chosen = choice(found, latency)
    assert (chosen is None) == (not able), "told only where it is so"
    if chosen is not None:
        assert chosen in front(able)
        assert chosen.processors == min(t.processors for t in able)
    lowest, keep = choice(found, None), [t for t in found if t.rate >= t.asked]
    assert lowest is None if not found else lowest is not None and lowest.slow == min(t.slow for t in keep or found)


def test_requests_come_as_the_prediction_log_has_them(tmp_path: Path) -> None:
    logs = tmp_path / "run" / "r1" / "predictions"
    logs.mkdir(parents=True)
    arrived = [100.0, 109.0, 110.0, 110.5, 111.0, 130.0]
    lines = [json.dumps({"id": str(t), "at": t + 0.25, "seconds": 0.25, "code": 200}) for t in arrived]
    (logs / "1.jsonl").write_text("\n".join(lines[:3]) + "\n")
    (logs / "2.jsonl").write_text("\n".join(lines[3:]) + "\n")
    pattern = tmp_path / "run" / "*" / "predictions" / "*.jsonl"
    assert came(pattern, 2.0) == [0.0, 1.0, 1.5, 2.0], "the busiest two seconds, over all files"
    with pytest.raises(SpecError, match="no request is in it"):
        came(tmp_path / "none-*.jsonl", 2.0)
    (logs / "3.jsonl").write_text("{")
    with pytest.raises(SpecError, match=r"3.jsonl:1: "):
        came(pattern, 2.0)


def test_the_choice_becomes_a_revision_on_probation() -> None:
    old = Batching(max_queue=40, max_bytes=1000)
    spec = Spec(name="s", variants=(Variant(model="m", options={"a": 1}, batching=old),), scale=Scale(max=4))
    made = tuned(spec, batching({"batch": 64, "wait": 0.01}), 2, 3, None)
    got = made.variants[0]
    assert (got.batching.policy, got.batching.max_size, got.batching.max_wait) == ("eager", 64, 0.01)
    assert got.batching.max_bytes == 1000 and got.batching.max_queue == 64, "a full batch can wait"
    assert got.options == {"a": 1, "threads": 2} and got.model == "m"
    assert made.scale.replicas == 3 and made.rollout.strategy == "canary"
    with pytest.raises(SpecError, match=r"9 replicas are outside scale.min 0 to scale.max 4"):
        tuned(spec, Batching(), None, 9, None)
    with pytest.raises(SpecError, match="several variants"):
        tuned(Spec(name="s", variants=(Variant(model="m"), Variant(name="b", model="m"))), Batching(), 1, 1, None)


def named(file: Path) -> list[str]:
    import optuna

    return sorted(optuna.get_all_study_names(f"sqlite:///{file}"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    model = LogisticRegression().fit(x, x[:, 0] > 0)
    for name in ("m", "small"):
        (tmp_path / f"{name}.onnx").write_bytes(to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString())
    np.savez(tmp_path / "rows.npz", X=x)
    return tmp_path


def test_settings_are_measured_on_real_replicas_and_told_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = "serve: {model: m.onnx, traffic: rows.npz, rate: 50, seconds: 0.5, connections: 2, latency: 30"
    text = folder / "s.yaml"
    text.write_text(f"name: s\ntrials: 2\nsampler: grid\nspace: {{precision: [fp32, mine]}}\n{serve}, "
                    "siblings: {mine: small.onnx}}\n")  # fmt: skip
    assert run(["tune", str(text)]) == 0
    out = capsys.readouterr().out
    assert "PRECISION" in out and "A SECOND" in out and "BESIDE" in out and out.count("chosen") == 1, out
    found = kept(folder / "s.trials.jsonl")
    assert {t.params["precision"] for t in found} == {"fp32", "mine"}
    assert all(0 < t.p50 <= t.p99 and t.rate > 1 and t.processors == 1 for t in found)
    assert all(t.beside50 > 0 and t.beside99 > 0 and t.cpu > 0 for t in found), "beside a replica of the model as it is"
    assert named(folder / "s.db") == ["s, p99 beside a reference"], "seconds of earlier versions are another study's"
    assert run(["tune", str(text), "--json"]) == 0, "nothing is left to do: the same is told"
    told = json.loads(capsys.readouterr().out)
    assert len(told["trials"]) == 2 and told["chosen"]["params"] in [t.params for t in found]


SLOW = """
import time
import numpy as np

class Slow:
    def predict(self, X: np.ndarray) -> np.ndarray:
        time.sleep(0.025)
        return X[:, 0]
"""


def test_a_setting_that_falls_behind_is_not_within_the_promise(folder: Path) -> None:
    """40 answers a second at most, of 100 that come in 0.8 s: the last waits over a second, in no half second alone."""
    (folder / "slow").mkdir()
    (folder / "slow" / "model.py").write_text(SLOW)
    task = Serve(model="m.onnx", traffic="rows.npz", rate=100, seconds=0.8, connections=8, siblings={"slow": "slow"})
    serving = Serving(task, folder, 0, folder / "trials.jsonl")
    serving({"precision": "slow", "batch": 1}, lambda step, value: True)
    (found,) = kept(folder / "trials.jsonl")
    assert found.p99 > 0.95 and found.rate < found.asked == asked(serving.due)
    assert choice([found], 0.95) is None and choice([found], 1000.0) is None
    with (folder / "trials.jsonl").open("ab") as out:
        for new in ("beside99", "asked"):  # a line without: seconds without a reference, or a queue emptied in between
            old = {k: v for k, v in msgspec.to_builtins(found).items() if k != new}
            out.write(msgspec.json.encode(old) + b"\n")
    assert kept(folder / "trials.jsonl") == [found], "what was measured otherwise is not compared"


def running() -> list[int]:
    return [p.pid for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]


def test_a_reference_that_fails_is_replaced_and_none_is_left_behind(folder: Path) -> None:
    before = running()
    task = Serve(model="m.onnx", traffic="rows.npz", rate=50, seconds=0.1, connections=2)
    serving, go = Serving(task, folder, 0), lambda step, value: True
    good, serving.due = serving.due, [(0.0, b"{")]
    with pytest.raises(ModelError, match="answers 400"):
        serving.reference()
    assert running() == before, "its warm-up failed: it is gone"
    serving.due = good
    serving.reference()
    (one,) = set(running()) - set(before)
    os.kill(one, signal.SIGKILL)
    with pytest.raises(ModelError, match="does not answer"):
        serving({}, go)
    assert running() == before
    assert serving({}, go) > 0, "the next trial has a new one"
    serving.forget()
    assert running() == before


def test_a_connection_that_was_given_up_can_be_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "ANSWER", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen(8)
        one = replica.Replica(tmp_path, None, str(tmp_path / "s"))  # type: ignore[arg-type] # no process is asked for
        for _ in range(2):
            with pytest.raises(ModelError, match="does not answer: TimeoutError"):
                one.ask([b"{}"], 1, 1.0)


def test_what_cannot_be_served_is_refused(folder: Path) -> None:
    plain = {"model": "m.onnx", "traffic": "rows.npz"}
    for more, says in (
        ({"aim": "mean"}, "aim is 'mean'"),
        ({"siblings": {"a": "none.onnx"}}, "siblings: a: .*no such file"),
        ({"traffic": "none.jsonl"}, "No such file"),
    ):
        with pytest.raises(SpecError, match=says):
            Serving(Serve(**{**plain, **more}), folder, 0)  # type: ignore[arg-type]
    serving = Serving(Serve(**plain), folder, 0)
    with pytest.raises(SpecError, match="knob 'color' is not known"):
        serving({"color": 1}, lambda step, value: True)
    with pytest.raises(SpecError, match=r"precision 'int3' needs an .onnx model; known: .*int8 dynamic"):
        serving.model({"precision": "int3"})
    (folder / "torn.onnx").write_bytes((folder / "m.onnx").read_bytes())
    torn = Serving(Serve(model="torn.onnx", traffic="rows.npz"), folder, 0)
    (folder / "torn.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"cannot be made of torn\.onnx"):
        torn.model({"precision": "int8 dynamic"})


def test_deploy_is_for_knobs_of_serving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.py").write_text("def f(params, told):\n    return params['x']\n")
    (tmp_path / "s.yaml").write_text("name: s\ntrials: 1\nspace: {x: {low: 0, high: 1}}\nobjective: f.py:f\n")
    assert run(["tune", str(tmp_path / "s.yaml"), "--deploy", "digits"]) != 0
    assert "--deploy is for knobs of serving" in capsys.readouterr().err


@given(st.lists(st.floats(0.1, 100.0), min_size=5, max_size=9), st.sampled_from([0.5, 1.0, 3.0]))
def test_what_is_compared_does_not_depend_on_the_moods_of_the_machine(moods: list[float], slower: float) -> None:
    """Each second has its own speed; a setting that takes three times as long takes that in all of them."""
    base = [0.001, 0.002, 0.004]
    pairs = [Pair([m * t for t in base], [slower * m * t for t in base]) for m in moods]
    assert beside(pairs, 0.5) == pytest.approx(slower) and beside(pairs, 0.99) == pytest.approx(slower)
    stalled = [*pairs, Pair(base, [100.0] * 3)]
    assert beside(stalled, 0.5) == pytest.approx(slower), "one bad second decides nothing"


@given(st.lists(st.floats(0, 20), min_size=1, max_size=40).map(sorted))
def test_a_record_is_cut_into_parts_that_keep_every_request_and_its_pace(times: list[float]) -> None:
    due = [(t, str(i).encode()) for i, t in enumerate(times)]
    parts = stretches(due, 0.5)
    assert [body for part in parts for _, body in part] == [body for _, body in due]
    assert all(part and all(0 <= at <= 0.5 for at, _ in part) for part in parts)
