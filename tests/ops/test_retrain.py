"""The remedy ``retrain``: leave for a pipeline, a person's approval, and the process that it becomes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from waiting import until

from leptonai.errors import PluginError
from leptonai.ops.jobs import Jobs
from leptonai.ops.remedies import OURS
from leptonai.ops.respond import Judge, Sight
from leptonai.ops.respond.verdict import verify
from leptonai.ops.runbook import bind
from leptonai.ops.runbook.form import Text, Verify
from leptonai.ops.runbook.rows import Step
from leptonai.settings import Ops
from leptonai.types import (
    Action,
    Cause,
    Dials,
    Incident,
    JobChange,
    Revision,
    Service,
    Spec,
    Variant,
    VariantDials,
)


def step(said: str, row: str = "") -> Step:
    text = f"data_drift: {{steps: [{{do: retrain, {said}}}]{row}}}"
    return bind(msgspec.yaml.decode(text, type=Text), "x", OURS).row("data_drift", "warning").steps[0]


@pytest.mark.parametrize(
    ("said", "row", "approval"),
    [
        ("with: {pipeline: /p.yaml}", "", "always"),
        ("with: {pipeline: /p.yaml}", ", approval: above low", "above low"),
        ("with: {pipeline: /p.yaml}, approval: never", "", "never"),
    ],
)
def test_a_person_approves_unless_the_step_says_otherwise(said: str, row: str, approval: str) -> None:
    found = step(said, row)
    assert found.approval == approval and bool(found.asks) is (approval != "never")


@pytest.mark.parametrize(
    ("given", "says"),
    [("p.yaml", "must be the absolute path"), ("/{model}.yaml", "names 'model'; it may name service")],
)
def test_what_names_no_pipeline_is_refused(given: str, says: str) -> None:
    with pytest.raises(PluginError, match=says):
        step(f'with: {{pipeline: "{given}"}}')


def change(pipeline: str) -> JobChange:
    wish = Service(
        spec=Spec(name="digits", variants=(Variant(model="m"),)),
        dials=Dials(variants={"main": VariantDials(replicas=1)}),
        revision=1,
    )
    incident = Incident(
        id=7, subject="default/service/digits", severity="warning", title="", began=1.0, opened=1.0,
        causes=(Cause(name="data_drift", subject="digits", confidence=0.9),),
    )  # fmt: skip
    remedy = step(f'with: {{pipeline: "{pipeline}", timeout: 120}}').remedy
    proposal = remedy.propose(incident, wish, (), (), 10.0)
    assert proposal is not None and isinstance(proposal.change, JobChange)
    assert f"retrain by {pipeline.format(service='digits')}: data_drift" in proposal.why
    return proposal.change


def test_it_becomes_the_pipeline_of_the_service(tmp_path: Path) -> None:
    """The job that got leave trains a model: a real process, the platform's home in its environment, nothing secret."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 4)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x, y=(x[:, 0] > 0).astype(int))
    (tmp_path / "digits.yaml").write_text(
        "name: digits\ncollect: [rows.npz]\ntrain: {estimator: sklearn.linear_model.LogisticRegression}\n"
    )
    made = change(f"{tmp_path}/{{service}}.yaml")
    assert made.service == "digits"
    assert made.job.command == (
        sys.executable, "-m", "leptonai.cli", "pipeline", "run", str(tmp_path / "digits.yaml")
    )  # fmt: skip

    async def story() -> str:
        jobs = Jobs(str(tmp_path / "home"))
        jobs.start("p-1", made.job, {"service": "digits"})
        await until(lambda: not jobs.running("p-1"))
        ended = jobs.ended("p-1")
        assert ended is not None
        await jobs.close()
        return ended.failed or ended.output

    said = asyncio.run(story())
    assert "trained model" in said, said
    done = list((tmp_path / "digits-run" / "done").glob("train-*/*"))
    assert any(p.suffix == ".skops" for p in done), [str(p) for p in done]


@pytest.mark.parametrize(
    ("remedy", "why", "verdict"),
    [
        ("retrain", "pipeline digits: 0123 of 4567", "effective"),
        ("retrain", "deploy digits.onnx", "inconclusive"),
        ("command", "pipeline digits: 0123 of 4567", "inconclusive"),
    ],
)
def test_the_revision_that_it_was_to_bring_is_nobody_else_s(remedy: str, why: str, verdict: str) -> None:
    made = Spec(name="digits", variants=(Variant(model="n"),))
    wish = Service(spec=made, dials=Dials(variants={"main": VariantDials(replicas=1)}), revision=2)
    newest = Revision(service="digits", number=2, by="human:admin", why=why, at=50.0, spec=made)
    last = Action(remedy=remedy, proposal="p-1", at=0.0, service="digits", revision=1)
    sight = Sight(service=wish, revisions=(newest,), collected=100.0, firing=False, samples=9)
    found = verify(last, sight, 100.0, Ops(), Verify(), well=True)
    assert isinstance(found, Judge) and found.verdict == verdict
