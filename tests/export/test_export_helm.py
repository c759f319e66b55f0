"""The Helm chart: its own values give the objects of `export kubernetes`; others what they say; wrong ones are refused.

Rendered by Helm itself where its library is (extra `conformance`), and by a reader of just the actions we write.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from render_stage import check, ground, service, services

from leptonai.errors import PlatformError, SpecError
from leptonai.export.helm import files
from leptonai.plan.render import render
from leptonai.types import Resources, Scale, Service, Variant

try:
    import helm_python
except ImportError:  # of the extra `conformance`
    helm_python = None

needs_helm = pytest.mark.skipif(helm_python is None, reason="no Helm library: the extra `conformance`")
OWN = re.compile(r"\(index \.Values\.lanes (\"[^\"]*\")\)\.([a-z.A-Z]+)")


def written(chart: dict[str, str], folder: Path) -> Path:
    for name, text in chart.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def evaluate(action: str, values: dict[str, Any], namespace: str) -> Any:
    """The value of one of the actions that the chart has. Any other is an error: none that we meant."""
    text = action.strip().removesuffix("| quote").strip()
    text = text.removeprefix("toJson ").strip()
    if text == ".Release.Namespace":
        return namespace
    if re.fullmatch(r'"(\{\{|\}\})"', text):
        return json.loads(text)
    if match := OWN.fullmatch(text):
        found = values["lanes"][json.loads(match[1])]
        for part in match[2].split("."):
            found = found[part]
        return found
    match = re.fullmatch(r"\.Values\.([a-zA-Z]+)", text)
    assert match, f"an action that is none of ours: {action}"
    return values[match[1]]


def own_render(chart: dict[str, str], namespace: str, **over: Any) -> list[dict[str, Any]]:
    values = yaml.safe_load(chart["values.yaml"]) | over
    made = []
    for name, text in chart.items():
        if not name.startswith("templates/") or not name.endswith(".yaml"):
            continue
        out, lines = [], iter(text.splitlines())
        for line in lines:
            if match := re.match(r"( *)\{\{- range \$name, \$value := (.*) \}\}", line):
                body = []
                while (line := next(lines)).strip() != "{{- end }}":
                    body.append(line)
                for key, value in sorted(evaluate(match[2], values, namespace).items()):
                    for part in body:
                        part = part.replace("{{ $name | quote }}", json.dumps(key)).replace("{{ $name }}", key)
                        out.append(part.replace("{{ $value | quote }}", json.dumps(value)))
                continue
            quoted = re.compile(r"\{\{ (?:\S.*?) \}\}")

            def put(found: re.Match[str]) -> str:
                value = evaluate(found[0][2:-2], values, namespace)
                plain = "quote" not in found[0] and "toJson" not in found[0]
                return str(value) if plain else json.dumps(value)

            out.append(quoted.sub(put, line))
        made += [d for d in yaml.safe_load_all("\n".join(out)) if d]
    return made


def plain(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a chart says in more words than the objects: empty lists and maps of a pod."""
    told = json.loads(json.dumps(objects))
    for made in told:
        if made["kind"] == "Deployment":
            pod = made["spec"]["template"]["spec"]
            for name in ("imagePullSecrets", "nodeSelector", "tolerations"):
                if not pod.get(name, True):
                    del pod[name]
            for container in pod["containers"]:
                if not container.get("resources", True):
                    del container["resources"]
    return sorted(told, key=lambda o: (o["kind"], o["metadata"]["name"]))


@settings(max_examples=40)
@given(services())
def test_with_its_own_values_it_is_what_export_kubernetes_writes(wish: Service) -> None:
    try:
        expected = render(wish, ground(traffic="istio", namespace="shop")).objects
    except (SpecError, PlatformError):
        return
    chart = files(wish, ground(traffic="istio")).files
    assert plain(own_render(chart, "shop")) == plain(expected)
    jsonschema.validate(yaml.safe_load(chart["values.yaml"]), json.loads(chart["values.schema.json"]))


def helm_render(folder: Path, namespace: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    chart = helm_python.Chart.load(str(folder))
    made = chart.render(values, name="release", namespace=namespace)
    chart.close()
    return [d for name, text in made.items() if name.endswith(".yaml") for d in yaml.safe_load_all(text) if d]


TRICKY = {"PATTERN": "{{ .Values.secret }}", "PRICE": "$5 }} {{", "WORDS": 'a "b" \\ c\nyes'}


@needs_helm
def test_helm_itself_renders_it_so(tmp_path: Path) -> None:
    tricky = Variant(model="sha256:" + "a" * 64, env=TRICKY, options={"prompt": "{{ include }}"})
    wish = service(variants=(tricky,), scale=Scale(min=1, max=5, replicas=2))
    folder = written(files(wish, ground()).files, tmp_path / "chart")
    expected = render(wish, ground(namespace="123")).objects
    found = helm_render(folder, "123")
    assert plain(found) == plain(expected)
    for made in found:
        check(made, "1.28")
    said = helm_python.lint(str(folder), strict=True, namespace="shop")
    assert not said["errors"] and [m["error"] for m in said["messages"]] == ["icon is recommended"]


@needs_helm
@pytest.mark.parametrize(
    "wrong",
    [
        {"lanes": {"main": {"replicas": "three"}}},
        {"lanes": {"main": {"replicas": -1}}},
        {"lanes": {"main": {"image": ""}}},
        {"lanes": {"main": {"imagee": "x"}}},
        {"lanes": {"other": {"image": "x"}}},
        {"imagePullPolicy": "Sometimes"},
        {"nodeSelector": {"disk": 5}},
        {"unheard": 1},
    ],
)
def test_helm_refuses_values_of_the_wrong_type(wrong: dict[str, Any], tmp_path: Path) -> None:
    folder = written(files(service(), ground()).files, tmp_path / "chart")
    with pytest.raises(helm_python.HelmError):
        chart = helm_python.Chart.load(str(folder))
        chart.validate_schema(chart.merge_values(wrong))


def over() -> dict[str, Any]:
    values = yaml.safe_load(files(service(), ground()).files["values.yaml"])
    main = values["lanes"]["main"] | {"image": "registry.example/digits:v2", "replicas": 7, "env": {"LEVEL": "warn"}}
    main["resources"] = {"requests": {"cpu": "250m"}, "limits": {"memory": "1Gi"}}
    return {
        "lanes": {"main": main},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pull"}],
        "podAnnotations": {"team": "vision"},
        "imagePullPolicy": "Always",
    }


@pytest.mark.parametrize("engine", ["own", pytest.param("helm", marks=needs_helm)])
def test_what_a_site_says_is_in_the_objects(engine: str, tmp_path: Path) -> None:
    chart = files(service(), ground()).files
    if engine == "own":
        found = own_render(chart, "shop", **over())
    else:
        found = helm_render(written(chart, tmp_path / "chart"), "shop", over())
    (deployment,) = [o for o in found if o["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["replicas"] == 7 and container["image"] == "registry.example/digits:v2"
    assert container["env"][-1] == {"name": "LEVEL", "value": "warn"}
    assert container["resources"] == over()["lanes"]["main"]["resources"]
    assert pod["nodeSelector"] == {"disk": "fast"} and pod["imagePullSecrets"] == [{"name": "pull"}]
    assert deployment["spec"]["template"]["metadata"]["annotations"]["team"] == "vision"
    for made in found:
        check(made, "1.28")


@pytest.mark.parametrize("engine", ["own", pytest.param("helm", marks=needs_helm)])
def test_a_service_scaled_by_keda_has_bounds_and_a_prometheus_to_ask(engine: str, tmp_path: Path) -> None:
    wish = service(scale=Scale(owner="keda", min=2, max=9, replicas=2))
    chart = files(wish, ground()).files
    main = yaml.safe_load(chart["values.yaml"])["lanes"]["main"]
    assert main["autoscaling"] == {"min": 2, "max": 9, "prometheus": "http://prometheus.monitoring:9090"}
    own = main | {"autoscaling": {"min": 3, "max": 5, "prometheus": "https://thanos.shop:10902/api"}}
    schema = json.loads(chart["values.schema.json"])
    jsonschema.validate({"lanes": {"main": own}}, schema)
    for wrong in ({"min": 0}, {"max": "9"}, {"prometheus": "thanos:9090"}, {"prometheus": 9090}, {"target": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"lanes": {"main": own | {"autoscaling": own["autoscaling"] | wrong}}}, schema)
    values = {"lanes": {"main": own}}
    if engine == "own":
        found = own_render(chart, "shop", **values)
    else:
        found = helm_render(written(chart, tmp_path / "chart"), "shop", values)
    (made,) = [o["spec"] for o in found if o["kind"] == "ScaledObject"]
    (expected,) = [o["spec"] for o in render(wish, ground()).objects if o["kind"] == "ScaledObject"]
    assert (made["minReplicaCount"], made["maxReplicaCount"]) == (3, 5)
    asked = made["triggers"][0]["metadata"]
    assert asked == expected["triggers"][0]["metadata"] | {"serverAddress": "https://thanos.shop:10902/api"}


def test_a_service_scaled_by_kubernetes_has_bounds_and_no_replicas() -> None:
    chart = files(
        service(scale=Scale(owner="kubernetes", min=2, max=9, replicas=2), resources=Resources(cpu=0.5)), ground()
    ).files
    main = yaml.safe_load(chart["values.yaml"])["lanes"]["main"]
    assert main["autoscaling"] == {"min": 2, "max": 9} and "replicas" not in main
