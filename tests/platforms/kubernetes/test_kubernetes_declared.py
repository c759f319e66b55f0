"""Services declared by kubectl on a real cluster, with a whole platform that follows them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_stage import Namespace, image, kubectl, needs_cluster
from msgspec.structs import replace
from resource_texts import DIGEST, OK, TWO, WRONG

from leptonai.client import Client
from leptonai.plan.render import to_yaml
from leptonai.serve.resource.schema import API, KIND, definition
from leptonai.types import SpecChange

pytestmark = [needs_cluster, pytest.mark.world, pytest.mark.timeout(600)]

# What this server takes and the door refuses: it reads a whole number's least bound as a whole number, and leaves out
# nulls where none may be.
DOOR_ONLY = {"no time at all", "nothing for fields"}


@pytest.fixture(scope="module", autouse=True)
def defined() -> None:
    """The definition is served. Not where the server would fall: Kubernetes before 1.24 with Go from 1.18 on breaks on
    any custom resource (its vendored reflect2 1.0.1). LEPTONAI_TEST_RESOURCES says that it has a later one."""
    about = json.loads(kubectl("version", "-o", "json"))["serverVersion"]
    minor, go = int(about["minor"].rstrip("+")), int(about["goVersion"].split(".")[1])
    if minor < 24 and go >= 18 and not os.environ.get("LEPTONAI_TEST_RESOURCES"):
        said = f"Kubernetes {about['gitVersion']} built by {about['goVersion']} falls by them"
        pytest.skip(f"NO CUSTOM RESOURCES: {said}, unless LEPTONAI_TEST_RESOURCES=1 says that it was repaired")
    kubectl("apply", "-f", "-", stdin=to_yaml([definition()]))
    kubectl("wait", "--for=condition=Established", "crd/services.leptonai.dev", "--timeout=60s")


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"declared-{secrets.token_hex(4)}")
    yield made
    for name in made.kubectl("get", "lsvc", "-o", "name", check=False).split():
        made.kubectl("patch", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}', check=False)
    made.delete()


def resource(spec: dict[str, Any], name: str = "digits", **meta: Any) -> str:
    return json.dumps({"apiVersion": API, "kind": KIND, "metadata": {"name": name} | meta, "spec": spec})


def until(done: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return found


def test_the_api_server_takes_and_refuses_what_the_parser_does(space: Namespace) -> None:
    asked = {f"w{n}": fields for n, fields in enumerate(WRONG.values())}
    right = {"r0": OK, "r1": TWO, "r2": OK | {"timeout": 0.25, "drain": "1500ms", "balance": "maglev"},
             "r3": OK | {"balance": {"policy": "maglev", "hash_on": ["source"]}, "fallback": None, "rate_limit": None},
             "r4": OK | {"env": {"A": 1, "B": 1.5, "C": "x"}, "options": {"a": [1, {"b": None}]}}}  # fmt: skip
    for how in (("create",), ("apply", "--server-side")):
        items = [json.loads(resource(fields, name)) for name, fields in (asked | right).items()]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        said = space.kubectl(
            *how, "--dry-run=server", "--validate=false", "-f", "-", "-o", "name", stdin=text, check=False
        )
        taken = {line.rpartition("/")[2] for line in said.split()}
        assert set(right) <= taken, "what is right is taken"
        wrongly = {what for what, name in zip(WRONG, asked, strict=True) if name in taken}
        pruned = {what for what in WRONG if what.startswith("unknown field")} if how == ("create",) else set()
        assert wrongly <= DOOR_ONLY | pruned, "what is wrong is not"

    def misspelt() -> str:
        done = subprocess.run(
            ["kubectl", "-n", space.name, "apply", "--dry-run=server", "-f", "-"], capture_output=True, text=True,
            input=resource(OK | {"slo": {"latencyy": 1}}), check=False,
        )  # fmt: skip
        return done.stderr if done.returncode else ""

    # A definition is established before the fields are published by which kubectl checks.
    assert "latencyy" in until(misspelt, "kubectl refuses it")


class Platform:
    """A whole platform over the namespace, as `leptonai up --on kubernetes` starts it."""

    def __init__(self, space: Namespace, home: Path, template: str) -> None:
        self.space, self.home = space, home
        home.mkdir()
        settings = {"kubernetes": {"namespace": space.name, "image": template}, "gateway": {"port": 0}}
        (home / "settings.yaml").write_text(json.dumps(settings))
        self.run("up", "--on", "kubernetes")

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "leptonai.cli", "--home", str(self.home), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self, name: str = "digits") -> dict[str, Any]:
        found = self.space.kubectl("get", "lsvc", name, "-o", "json", check=False)
        return (json.loads(found).get("status") or {}) if found else {}

    def condition(self, kind: str, name: str = "digits") -> tuple[str, str]:
        found = [c for c in self.status(name).get("conditions", []) if c["type"] == kind]
        return (found[0]["reason"], found[0]["message"]) if found else ("", "")

    def synced(self, name: str = "digits") -> tuple[str, str]:
        return self.condition("Synced", name)

    def pods(self) -> list[str]:
        return self.space.kubectl("get", "pods", "-l", "leptonai.dev/service=digits", "-o", "name").split()


@pytest.fixture
def platform(space: Namespace, tmp_path: Path) -> Iterator[Platform]:
    made = Platform(space, tmp_path / "home", image()[0])
    yield made
    made.run("down")


def test_a_resource_is_a_service_from_apply_to_delete(space: Namespace, platform: Platform) -> None:
    digests = image()[1]
    spec = {"model": digests["a"], "idempotent": True, "replicas": 2, "drain": "1s"}
    space.kubectl("apply", "-f", "-", stdin=resource(spec))
    space.kubectl("wait", "--for=condition=Ready", "lsvc/digits", "--timeout=120s")
    row = space.kubectl("get", "lsvc", "digits", "--no-headers").split()
    assert row[:4] == ["digits", "2/2", "1", "Ready"] and row[4].endswith("/services/digits")

    space.kubectl("apply", "-f", "-", stdin=resource(spec | {"scale": {"min": 3, "max": 2}}))
    until(lambda: platform.synced()[0] == "Invalid", "refused")
    assert "scale.min: 3 is over scale.max 2" in platform.synced()[1] and platform.status()["state"] == "Ready"

    space.kubectl("apply", "-f", "-", stdin=resource(spec, "leptonai-gateway"))
    until(lambda: platform.synced("leptonai-gateway")[0] == "Refused", "the platform's own name is refused")
    assert "Service/leptonai-gateway, which is the address of" in platform.synced("leptonai-gateway")[1]
    space.kubectl("delete", "lsvc", "leptonai-gateway", "--timeout=60s")

    # A remedy takes the next revision back: that stands until the resource changes.
    space.kubectl("apply", "-f", "-", stdin=resource(spec | {"timeout": "20s"}))
    until(lambda: platform.status().get("revision") == 2, "the second revision")
    ops = Client(home=platform.home, token=(platform.home / "ops.token").read_text().strip())
    with ops:
        first = ops.revisions("digits")[0].spec
        assert first is not None
        back = SpecChange(spec=replace(first), base=2)
        assert ops.propose(back, "it answers errors", by="incident:7").status == "admitted"
    until(lambda: platform.synced()[0] == "RolledBack", "held")
    assert "revision 3 of incident:7 is in force instead: it answers errors" in platform.synced()[1]
    space.kubectl("label", "lsvc", "digits", "synchronised=again")
    platform.run("scale", "digits", "1")
    until(lambda: platform.status().get("replicas") == 1, "a dial is the platform's")
    assert platform.status()["revision"] == 3 and platform.synced()[0] == "RolledBack"
    space.kubectl("apply", "-f", "-", stdin=resource(spec | {"timeout": "10s"}))
    until(lambda: platform.synced()[0] == "Synced" and platform.status()["revision"] == 4, "it is heard again")

    # An image that is not there is told; the replicas that serve stay.
    space.kubectl("apply", "-f", "-", stdin=resource(spec | {"model": DIGEST}))
    until(lambda: platform.condition("Ready")[0] == "ImageMissing", "no image")
    assert platform.status()["state"] == "Degraded"
    until(lambda: platform.status().get("reason") == "BadConfig", "the cause of its incident")
    assert "cannot be loaded" in platform.status()["message"] and "Image" in platform.status()["message"]

    space.kubectl("delete", "lsvc", "digits", "--timeout=120s")
    assert platform.pods() == []
    assert "No service yet" in platform.run("ls")
