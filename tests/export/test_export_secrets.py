"""No value that looks like a secret stands in anything that is exported; what does not look like one stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from render_stage import ground, service

from leptonai.export import helm, istio
from leptonai.export.withhold import withheld
from leptonai.ops.logs.privacy import secret
from leptonai.plan.render import render, to_yaml
from leptonai.types import Service, Variant

HIDDEN = {"API_TOKEN": "tok-plainly", "DB_PASSWORD": "pw-plainly", "STORE": "postgresql://ana:at-plainly@db/x"}
SHOWN = {"REGION": "eu-west-1", "MAX_TOKENS": "512", "TOKENIZER_PATH": "/models/t.json", "EMPTY_TOKEN": ""}


def wished(env: dict[str, str]) -> Service:
    return service(variants=(Variant(model="sha256:" + "a" * 64, env=env),))


def texts(wish: Service) -> dict[str, str]:
    """What each export of a service writes, as one text."""
    made = {
        "kubernetes": {"objects": to_yaml(withheld(wish, ground()).objects)},
        "helm": helm.files(wish, ground()).files,
        "istio": istio.files(wish, ground()).files,
    }
    return {kind: "\n".join(files.values()) for kind, files in made.items()}


@pytest.mark.parametrize("kind", ["helm", "istio", "kubernetes"])
def test_secrets_stay_and_all_else_goes(kind: str) -> None:
    text = texts(wished(HIDDEN | SHOWN))[kind]
    assert "plainly" not in text
    assert all(name in text for name in HIDDEN) and "eu-west-1" in text and "/models/t.json" in text


def test_the_container_takes_them_from_a_secret_that_a_note_says_how_to_make() -> None:
    made = withheld(wished(HIDDEN | SHOWN), ground(namespace="shop"))
    (deployment,) = [o for o in made.objects if o["kind"] == "Deployment"]
    entries: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    holder = f"{deployment['metadata']['name']}-env"
    referred = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in entries if "secretKeyRef" in e.get("valueFrom", {})}
    assert referred == {name: {"name": holder, "key": name} for name in HIDDEN}
    (said,) = [s for s in made.lost if "the values stay here" in s]
    assert f"kubectl create secret generic -n shop {holder} --from-literal=API_TOKEN=..." in said


def test_without_secrets_nothing_changes() -> None:
    wish = wished(SHOWN)
    assert withheld(wish, ground()) == render(wish, ground())
    assert list(yaml.safe_load_all(texts(wish)["kubernetes"])) == render(wish, ground()).objects


@pytest.mark.parametrize(("name", "value"), sorted((HIDDEN | {"KEY": "sk-" + "a1" * 12, "pwd": "x"}).items()))
def test_what_looks_like_a_secret(name: str, value: str) -> None:
    assert secret(name, value)


@pytest.mark.parametrize(("name", "value"), sorted(SHOWN.items()))
def test_what_does_not(name: str, value: str) -> None:
    assert not secret(name, value)
