"""Each worked example, its fast path: train a little, serve by a real replica, ask what users ask, hear them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: examples are not trained here")

import http.client
import runpy

from leptonai.improve.compress.replica import Replica, replica
from leptonai.improve.flow.steps import steps
from leptonai.improve.flow.text import parse
from leptonai.serve import spec, text

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = runpy.run_path(str(EXAMPLES / "run.py"))
USERS = runpy.run_path(str(EXAMPLES / "users.py"))
SMALL = {
    "faults": {"rows": 150, "jobs": ("svm",)},
    "recommendation": {"rows": 300, "epochs": 1},
    "risk": {"rows": 300},
    "sentiment": {"rows": 300, "epochs": 1},
    "support": {"rows": 300, "epochs": 1},
}


def ask(served: Replica, body: object) -> object:
    served.ask([json.dumps(body).encode()], 1, 30.0)
    connection: http.client.HTTPConnection = served._connection
    connection.request("POST", "/predict", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    return json.loads(answer.read())


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.timeout(600)
def test_an_example_trains_serves_and_answers_its_users(name: str, tmp_path: Path) -> None:
    folder = RUN["copied"](name, tmp_path)
    given = ", ".join(f"{k}={v}" for k, v in SMALL[name].items())
    code = f"import train; train.main({given})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-1000:]
    wanted, model = spec.load(folder / "service.yaml")
    assert model is not None and wanted.name == name and wanted.variants[0].idempotent and wanted.scale.replicas == 2
    fields, _ = text.read((folder / "pipeline.yaml").read_text(), "pipeline.yaml", "")
    flow = parse(fields, "pipeline.yaml")
    found = steps(flow, folder, tmp_path / "run", lambda: None, print)  # type: ignore[arg-type, return-value]
    assert [step for step, _ in found] == ["collect", "train", "evaluate", "compress", "canary", "judge", "report"]
    assert flow.canary is not None and flow.canary.service == name
    lines = [json.loads(line) for line in (folder / "data" / "live.jsonl").read_text().splitlines()]
    with replica(folder / "model") as served:
        for line in lines[:20]:
            said = USERS["opinion"](line, ask(served, line["body"]))
            assert ("rating" in said and 1 <= said["rating"] <= 5) or said["label"] == line["label"]
        served.stop()  # what it logged is written by then
        [log] = (served.folder / "predictions").glob("*.jsonl")
        seen = [json.loads(row)["output"] for row in log.read_text().splitlines()]
    kind = type(lines[0].get("label", ""))
    assert all(isinstance(s[0] if isinstance(s, list) else s, kind) for s in seen), "labels can be joined to it"
