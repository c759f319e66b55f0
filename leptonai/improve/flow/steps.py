"""The steps of a model's life. Each takes what came before and gives plain values; files lie in its folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leptonai.client import Client
from leptonai.errors import NotFound, SpecError
from leptonai.improve.evaluate.answers import opened
from leptonai.improve.evaluate.judge import evaluate as judge_model
from leptonai.improve.evaluate.measures import Classification
from leptonai.improve.evaluate.rows import read
from leptonai.improve.flow.kept import Kept, Say, State, digest_of
from leptonai.improve.flow.text import Compress, Evaluate, Flow, collected
from leptonai.improve.train.job import Job, parse, rows_of, train
from leptonai.types import OF_PIPELINE, make_key

Connect = Callable[[], Client]


def steps(flow: Flow, base: Path, root: Path, connect: Connect, say: Say) -> list[tuple[str, Kept]]:
    """Named steps for a ``Pipeline``, in order; those that the text does not ask for are left out."""
    files = collected(base, flow.collect)
    job = parse({**flow.train, "data": "collected.npz", "label": None}, flow.name)
    code = [base / job.module] if job.module else []
    out = [
        ("collect", Kept("collect", lambda s, f: collect(files, flow.label, f), root, flow.label, files, say=say)),
        ("train", Kept("train", lambda s, f: learn(job, base, s, f, say), root, job, code, say=say)),
    ]
    if (e := flow.evaluate) is not None:
        outside = [base / e.test, *([base / e.current] if e.current else [])]
        out.append(("evaluate", Kept("evaluate", lambda s, f: measured(e, base, flow, s), root, e, outside, say=say)))
    if (c := flow.compress) is not None:
        outside = [base / flow.evaluate.test] if flow.evaluate else []
        out.append(
            (
                "compress",
                Kept("compress", lambda s, f: smaller(c, job, base, flow, s, f, say), root, c, outside, say=say),
            )
        )
    if flow.canary is not None:
        around = [base / name for name in flow.canary.beside]
        out.append(
            (
                "canary",
                Kept(
                    "canary",
                    lambda s, f: proposed(flow, around, s, f, connect, say),
                    root,
                    flow.canary,
                    around,
                    say=say,
                ),
            )
        )
        out.append(("judge", Kept("judge", lambda s, f: judged(flow, s, connect, say), root, flow.canary, say=say)))
    out.append(("report", Kept("report", lambda s, f: told(flow, s, f), root, flow, always=True, say=say)))
    return out


def collect(files: list[Path], label: str | None, folder: Path) -> dict[str, Any]:
    """All rows of all files in ``collected.npz``; a row that is there twice (with its label) is kept once."""
    parts = [rows_of(path, label) for path in files]
    shapes = {p.name: list(r.inputs["x"].shape[1:]) for p, r in zip(files, parts, strict=True)}
    if len(set(map(str, shapes.values()))) != 1:
        raise SpecError(f"the files hold rows of different shapes: {shapes}")
    x = np.concatenate([r.inputs["x"] for r in parts])
    y = np.concatenate([r.labelled(p.name) for p, r in zip(files, parts, strict=True)])
    first: dict[tuple[bytes, str], int] = {}
    for i, (row, said) in enumerate(zip(x, y.tolist(), strict=True)):
        first.setdefault((row.tobytes(), str(said)), i)
    keep = np.array(list(first.values()))
    np.savez(folder / "collected.npz", x=x[keep], y=y[keep])
    from leptonai.improve.train.job import settled

    settled(folder / "collected.npz")
    return {"rows": len(keep), "twice": len(y) - len(keep)}


def learn(job: Job, base: Path, state: State, folder: Path, say: Say) -> dict[str, Any]:
    source = Path(state.values["collect_files"])
    if job.module:
        job = msgspec.structs.replace(job, module=str((base / job.module).resolve()))
    done = train(
        msgspec.structs.replace(job, data=str((source / "collected.npz").resolve())), base, folder,
        lambda epoch, loss: say(f"train: epoch {epoch}, held-out loss {loss:.4g}"),
    )  # fmt: skip
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {"model": done.model, "digest": digest_of(folder / done.model), "held_out": done.quality, "acts": done.acts}


def trained(state: State) -> Path:
    return Path(state.values["train_files"]) / str(state.values["model"])


def measured(e: Evaluate, base: Path, flow: Flow, state: State) -> dict[str, Any]:
    """Measures on the test rows; ``stopped`` when the model is not good enough."""
    predictor = opened(trained(state))
    rows = read(base / e.test, predictor.inputs, flow.label)
    current = opened(base / e.current) if e.current else None
    against = None
    done, _ = judge_model(predictor, rows)
    m = done.measures
    quality = m.accuracy if isinstance(m, Classification) else -m.rmse
    out: dict[str, Any] = {"quality": quality}
    if current is not None:
        n = judge_model(current, read(base / e.test, current.inputs, flow.label))[0].measures
        against = n.accuracy if isinstance(n, Classification) else -n.rmse
        out["current"] = against
    if e.at_least is not None and quality < e.at_least:
        out["stopped"] = f"quality {quality:.4g} is below {e.at_least:g}"
    elif against is not None and quality < against - e.margin:
        out["stopped"] = f"quality {quality:.4g} is below that of the current model, {against:.4g}"
    return out


def smaller(c: Compress, job: Job, base: Path, flow: Flow, state: State, folder: Path, say: Say) -> dict[str, Any]:
    from leptonai.improve.compress.front import budget
    from leptonai.improve.compress.search import Search

    model = trained(state)
    predictor = opened(model)
    if job.module:
        import torch

        torch.set_num_threads(job.threads)  # as in training, which a run that goes on may not do again
    rows = read(Path(state.values["collect_files"]) / "collected.npz", predictor.inputs)
    test = read(base / flow.evaluate.test, predictor.inputs, flow.label) if flow.evaluate else None
    report = Search(
        model, rows, budget(c.budget), folder, test=test, aim=c.aim, only=c.only, steps=c.steps,
        say=lambda text: say(f"compress: {text}"),
    ).run()  # fmt: skip
    out: dict[str, Any] = {"compressed": report.said}
    if not report.kept:
        kept = next(p for p in (folder / "chosen").iterdir() if p.name.startswith("model."))
        out |= {"chosen": True, "digest": digest_of(kept), "smaller": report.candidates[0].size / report.chosen.size}
    return out


def final(state: State) -> Path:
    """What is to be served: the compressed model with its golden examples, else the trained one."""
    return Path(state.values["compress_files"]) / "chosen" if state.values.get("chosen") else trained(state)


def proposed(flow: Flow, around: list[Path], state: State, folder: Path, connect: Connect, say: Say) -> dict[str, Any]:
    """The model is on probation. Asked twice, it is proposed once: the revision's reason carries the digest."""
    from leptonai.improve.propose import beside, propose

    assert flow.canary is not None
    model = beside(final(state), around, folder) if around else final(state)
    key = make_key(flow.canary.service, flow.canary.workspace)
    why = f"{OF_PIPELINE}{flow.name}: {state.values['digest'][:16]} of {state.digest[:16]}"
    with connect() as client:
        before = next((r for r in client.revisions(key) if r.why == why), None)
        if before is None:
            view = propose(client, key, model, why, lambda text: say(f"canary: {text}"))
            return {"revision": view.service.revision}
    return {"revision": before.number}


def judged(flow: Flow, state: State, connect: Connect, say: Say) -> dict[str, Any]:
    """How live traffic judged the revision. SpecError, and nothing kept, while it is under way after the timeout."""
    assert flow.canary is not None
    key = make_key(flow.canary.service, flow.canary.workspace)
    revision = int(state.values["revision"])
    with connect() as client:
        from leptonai.client.rollout import verdict

        end = time.monotonic() + flow.canary.timeout
        while True:
            view, history = client.service(key), client.revisions(key)
            found = verdict(view, history, revision)
            if found is not None:
                said = str(getattr(found, "outcome", ""))
                return {"outcome": said, "why": found.why}
            if time.monotonic() > end:
                hint = "the same command waits on; traffic is what it waits for"
                raise NotFound(
                    f"revision {revision} of {key} is not judged within {flow.canary.timeout:g} s", hint=hint
                )
            say(f"judge: {view.status}")
            time.sleep(1.0)


def told(flow: Flow, state: State, folder: Path) -> dict[str, Any]:
    """``report.md``: what each step gave, in plain words."""
    v = state.values
    lines = [f"# {flow.name}", "", f"- collected {v['rows']} rows ({v['twice']} were there twice)"]
    lines.append(f"- trained {v['model']}: {v['held_out']:.4f} on rows held out, {v['acts']} acts of the guard")
    if "quality" in v:
        beside = f", the current model {v['current']:.4f}" if "current" in v else ""
        lines.append(f"- measured {v['quality']:.4f} on the test rows{beside}")
    if "compressed" in v:
        lines.append(f"- {v['compressed']}")
    if "revision" in v:
        ended = f": {v['outcome']}. {v['why']}".rstrip(". ") if "outcome" in v else ""
        lines.append(f"- proposed as revision {v['revision']}{ended}")
    if state.stopped:
        lines.append(f"- stopped: {state.stopped}")
    lines.append(f"- model sha256 {v['digest']}")
    (folder / "report.md").write_text("\n".join(lines) + "\n")
    (folder / "values.json").write_text(json.dumps({k: v[k] for k in sorted(v) if not k.endswith("_files")}))
    return {"text": "\n".join(lines)}
