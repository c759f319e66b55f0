"""One delivery, told to Jenkins and to GitHub: train, test, evaluate, build, push, a canary, and its judgement."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from leptonai.errors import SpecError
from leptonai.export.site import Files, Site

JENKINS, GITHUB = "Jenkinsfile", ".github/workflows/{name}.yml"
_MADE = """"$(python -c "import json; print(json.load(open('canary.json'))['service']['revision'])")\""""
_LEAST = re.compile(r"[a-z0-9_]+=-?[0-9.e-]+")
_PATH = re.compile(r"[A-Za-z0-9._/-]+")


class Step(NamedTuple):
    """``command`` is a script for `sh -e`; ``needs``: the variable without which it is left out."""

    name: str
    command: str
    needs: str = ""


class Delivery(NamedTuple):
    """``text``: of the service; ``model``: the file that training writes and the text names; both in the repository."""

    service: str
    text: str = "service.yaml"
    model: str = "model.onnx"
    train: str = "train.py"
    data: str = "test.npz"  # labelled rows that training did not see
    least: str = "accuracy=0.9"
    patience: int = 3600  # seconds for the judgement


def steps(delivery: Delivery) -> list[Step]:
    """In order; each may rely on the files of those before. SpecError for a path that a script would misread.

    A new model that was rolled back fails the last step with exit code 10, one without enough traffic with 11.
    """
    for path in (delivery.text, delivery.model, delivery.train, delivery.data):
        if not _PATH.fullmatch(path):
            raise SpecError(f"{path!r} cannot stand in a script", hint="letters, digits, dots, dashes and slashes")
    if not _LEAST.fullmatch(delivery.least):
        raise SpecError(f"{delivery.least!r} cannot stand in a script", hint="as in accuracy=0.9")
    d = delivery
    train = f"python {d.train}" if d.train.endswith(".py") else f"leptonai train {d.train}"
    return [
        Step("Train", train),
        Step("Test", "python -m pytest -q"),
        Step("Evaluate", f"leptonai evaluate {d.model} --data {d.data} --at-least {d.least}"),
        Step("Build", f'leptonai build {d.text} -o image.tar --base "${{LEPTONAI_BASE:-debian}}"'),
        Step("Push", 'leptonai push image.tar "$LEPTONAI_IMAGE"', needs="LEPTONAI_IMAGE"),
        Step("Canary", f"leptonai deploy {d.text} --canary --no-wait --json > canary.json"),
        # The revision that this run made: the head may be another one by now, what it was rolled back to.
        Step("Judgement", f"leptonai wait {d.service} --judged --revision {_MADE} --timeout {d.patience}"),
    ]


def jenkins(delivery: Delivery, site: Site) -> Files:
    """A declarative pipeline. `leptonai-token` is a secret text among Jenkins' credentials."""
    stages = "".join(_stage(step) for step in steps(delivery))
    return {JENKINS: _JENKINS.format(platform=site.platform, stages=stages.rstrip("\n"))}


def github(delivery: Delivery, site: Site) -> Files:
    """A workflow. `LEPTONAI_TOKEN` is a secret of the repository, `LEPTONAI_IMAGE` a variable of it."""
    made = "".join(_step(step) for step in steps(delivery))
    return {GITHUB.format(name=delivery.service): _GITHUB.format(d=delivery, platform=site.platform, steps=made)}


def _stage(step: Step) -> str:
    only = f"            when {{ expression {{ env.{step.needs} }} }}\n" if step.needs else ""
    text = step.command.replace("\\", "\\\\").replace("'''", "\\'\\'\\'")
    return (
        f"        stage('{step.name}') {{\n{only}            steps {{\n"
        f"                sh '''{text}'''\n            }}\n        }}\n"
    )


def _step(step: Step) -> str:
    only = f"        if: ${{{{ vars.{step.needs} != '' }}}}\n" if step.needs else ""
    return f"      - name: {step.name}\n{only}        run: {json.dumps(step.command)}\n"


_JENKINS = """\
// Written by `leptonai export jenkins`. A model that is worse than what it replaces does not get through.
pipeline {{
    agent any
    options {{
        disableConcurrentBuilds()
        timestamps()
    }}
    environment {{
        LEPTONAI_HOST = '{platform}'
        LEPTONAI_TOKEN = credentials('leptonai-token')
    }}
    stages {{
{stages}
    }}
    post {{
        always {{
            archiveArtifacts artifacts: 'image.cdx.json,image.lock.json', allowEmptyArchive: true
        }}
    }}
}}
"""
_GITHUB = """\
# Written by `leptonai export github`. A model that is worse than what it replaces does not get through.
name: deliver {d.service}
on:
  push:
    branches: [main]
  workflow_dispatch:
concurrency: deliver-{d.service}
permissions:
  contents: read
jobs:
  deliver:
    runs-on: ubuntu-latest
    env:
      LEPTONAI_HOST: {platform}
      LEPTONAI_TOKEN: ${{{{ secrets.LEPTONAI_TOKEN }}}}
      LEPTONAI_IMAGE: ${{{{ vars.LEPTONAI_IMAGE }}}}
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {{python-version: "3.11"}}
      - name: Install
        run: pip install 'leptonai-platform[onnx,sklearn]' pytest
{steps}\
      - uses: actions/upload-artifact@v4
        if: always()
        with: {{name: materials, path: "image.*.json"}}
"""
