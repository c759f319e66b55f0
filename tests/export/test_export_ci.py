"""The steps of the Jenkinsfile and of the GitHub workflow, run as shell: from training to the canary's judgement."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from api_stage import Stage, open_stage

from leptonai.errors import SpecError
from leptonai.export import Site
from leptonai.export.ci import Delivery, github, jenkins, steps
from leptonai.types import DialChange, Rollout, SpecChange, Token

ADMIN = Token(name="ana", role="admin", secret_sha256="", created=0.0)
TRAIN = """
import numpy as np, onnx
from onnx import TensorProto, helper

told = helper.make_node("ArgMax", ["image"], ["label"], axis=1, keepdims=0)
image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 4])
label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
model = helper.make_model(helper.make_graph([told], "digits", [image], [label]), ir_version=10)
model.opset_import[0].version = 17
onnx.save(model, "model.onnx")
rows = np.random.default_rng(1).random((50, 4), np.float32)
np.savez("test.npz", image=rows, label=rows.argmax(1))
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "home").mkdir()
    with open_stage(tmp_path / "home") as stage:
        stage.service("digits")
        yield stage


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As a team has it: a program that trains, a text, a test."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "service.yaml").write_text("name: digits\nmodel: model.onnx\n")
    (folder / "test_model.py").write_text(
        "from pathlib import Path\n\ndef test_it():\n    assert Path('model.onnx').stat().st_size\n"
    )
    base = folder / "base/usr/bin"
    base.mkdir(parents=True)
    python = base / f"python3.{sys.version_info.minor}"
    python.write_bytes(Path(sys.executable).resolve().read_bytes())
    return folder


def judge(stage: Stage, promoted: bool) -> None:
    """What ops does with the canary that is under way: promotes it, or takes the old version back."""
    found = stage.store.service("digits", time.time())
    assert found is not None and found.canary is not None
    if promoted:
        change = DialChange(service="digits", set={f"rollout.{found.revision}.promoted": 1.0})
        stage.door.propose(change, ADMIN, "it is good")
        return
    spec = stage.store.revisions("digits")[0].spec
    assert spec is not None
    back = msgspec.structs.replace(spec, rollout=Rollout(strategy="canary"))
    stage.door.propose(SpecChange(spec=back, base=found.revision), ADMIN, "it is bad")


def scripts_of_jenkins(text: str) -> list[tuple[str, str, bool]]:
    """(name, script, whether it depends on LEPTONAI_IMAGE), as Jenkins reads the strings."""
    found = re.findall(r"stage\('([^']*)'\) \{\n(\s*when [^\n]*\n)?\s*steps \{\n\s*sh '''(.*?)'''", text, re.S)
    assert text.count("{") == text.count("}")
    return [(name, script.replace("\\\\", "\\"), bool(when)) for name, when, script in found]


def scripts_of_github(text: str) -> list[tuple[str, str, bool]]:
    made = yaml.safe_load(text)
    assert made["jobs"]["deliver"]["env"]["LEPTONAI_TOKEN"] == "${{ secrets.LEPTONAI_TOKEN }}"
    own = [s for s in made["jobs"]["deliver"]["steps"] if "run" in s and s["name"] != "Install"]
    return [(s["name"], s["run"], s.get("if") == "${{ vars.LEPTONAI_IMAGE != '' }}") for s in own]


@pytest.mark.parametrize(("tool", "promoted"), [("jenkins", True), ("github", False)])
def test_the_steps_deliver_a_model_and_a_bad_one_fails_the_last(
    tool: str, promoted: bool, stage: Stage, repository: Path
) -> None:
    delivery, site = Delivery("digits", patience=120), Site(platform=stage.url)
    made = jenkins(delivery, site) if tool == "jenkins" else github(delivery, site)
    ((name, text),) = made.items()
    assert name == ("Jenkinsfile" if tool == "jenkins" else ".github/workflows/digits.yml")
    assert stage.url in text
    scripts = scripts_of_jenkins(text) if tool == "jenkins" else scripts_of_github(text)
    assert [(n, s) for n, s, _ in scripts] == [(s.name, s.command) for s in steps(delivery)]
    stage.token("ci", "operator")
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LEPTONAI_HOST": stage.url,
        "LEPTONAI_TOKEN": stage.secrets["ci"],
        "LEPTONAI_BASE": "base",
    }
    for name, script, optional in scripts:
        if optional:
            continue  # there is no registry here; the push is tested against a real one in tests/image
        if tool == "github" and name in ("Test", "Evaluate", "Build"):
            continue  # the same words as Jenkins', which were run
        if name == "Judgement":
            judge(stage, promoted)  # a runner that comes late hears of the revision that it made
        done = subprocess.run(
            ["sh", "-ec", script], cwd=repository, env=env, capture_output=True, text=True, timeout=300
        )
        expected = 10 if name == "Judgement" and not promoted else 0
        assert done.returncode == expected, f"{name}: {done.stdout}{done.stderr}"
    assert ("promoted" if promoted else "rolled back") in done.stdout
    assert tool == "github" or ((repository / "image.tar").is_file() and (repository / "image.cdx.json").is_file())


def test_a_model_below_the_bar_goes_no_further(repository: Path) -> None:
    (repository / "train.py").write_text(TRAIN.replace("rows.argmax(1)", "rows.argmin(1)"))
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    scripts = {step.name: step.command for step in steps(Delivery("digits"))}
    subprocess.run(["sh", "-ec", scripts["Train"]], cwd=repository, env=env, check=True)
    done = subprocess.run(["sh", "-ec", scripts["Evaluate"]], cwd=repository, env=env, capture_output=True, text=True)
    assert done.returncode == 10 and "at least 0.9 was asked for" in done.stderr, done.stderr
    wrong = scripts["Evaluate"].replace("accuracy=0.9", "charm=1")
    done = subprocess.run(["sh", "-ec", wrong], cwd=repository, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "no measure 'charm'" in done.stderr


@pytest.mark.parametrize("path", ["a b.yaml", "x;rm -rf", "$(id)", "'quoted'", ""])
def test_nothing_in_a_path_becomes_a_command(path: str) -> None:
    with pytest.raises(SpecError, match="cannot stand in a script"):
        steps(Delivery("digits", text=path))
    with pytest.raises(SpecError, match="cannot stand in a script"):
        steps(Delivery("digits", least=f"accuracy={path} "))
