"""The chart of the platform: its own values give the objects of `export control`; others what they say; wrong ones are
refused. Rendered by Helm itself, where its library is (extra `conformance`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from render_stage import VERSIONS, by_kind, check
from test_export_helm import helm_python, helm_render, needs_helm, written

from leptonai.cli.main import run
from leptonai.errors import SpecError
from leptonai.export.platform import files
from leptonai.plan.render import Apis
from leptonai.plan.render.control import Seat, control
from leptonai.platforms.kubernetes.rights import role
from leptonai.settings import Settings

Json = dict[str, Any]
GIVEN: Json = {"kubernetes": {"image": "r.io/{service}:{model}", "callers": ["web"]}, "store": {"keep": 86400.0}}
URL = "postgresql://ana@db:5432/leptonai?sslmode=require"


def chart(given: Json | None = None, version: str = "1.28", **seat: Any) -> dict[str, str]:
    return files(Seat(**seat), given or {}, "leptonai", Apis.of(version))


def rendered(folder: Path, values: Json | None = None, **how: Any) -> list[Json]:
    return helm_render(written(chart(**how), folder), "models", values)


def plain(objects: list[Json]) -> list[Json]:
    """Without what a chart says in more words, or as another text of the same meaning."""
    told: list[Json] = json.loads(json.dumps(objects))
    for made in told:
        if "data" in made:
            made["data"] = {name: yaml.safe_load(text) for name, text in made["data"].items()}
        template = made.get("spec", {}).get("template")
        if template:
            template["metadata"]["annotations"].pop("leptonai.dev/settings")
            for name in ("imagePullSecrets", "nodeSelector", "tolerations"):
                if not template["spec"].get(name, True):
                    del template["spec"][name]
    return sorted(told, key=lambda o: (o["kind"], o["metadata"]["name"]))


def expected(given: Json | None = None, version: str = "1.28", **right: bool) -> list[Json]:
    apis = Apis.of(version)
    return role(apis, "models", "leptonai", **right) + control(Seat("models"), given or {}, "leptonai", apis)


@needs_helm
@pytest.mark.parametrize("version", VERSIONS)
def test_with_its_own_values_it_is_what_export_control_writes(version: str, tmp_path: Path) -> None:
    for number, given in enumerate(({}, GIVEN, GIVEN | {"store": {"url": URL}})):
        found = rendered(tmp_path / str(number), given=given, version=version)
        assert plain(found) == plain(expected(given, version))
        for made in found:
            check(made, version)


@needs_helm
def test_helm_has_nothing_to_say_against_it(tmp_path: Path) -> None:
    folder = written(chart(GIVEN), tmp_path / "chart")
    said = helm_python.lint(str(folder), strict=True, namespace="models")
    assert not said["errors"] and [m["error"] for m in said["messages"]] == ["icon is recommended"]


@needs_helm
def test_what_a_site_says_is_in_the_objects(tmp_path: Path) -> None:
    own = yaml.safe_load(chart()["values.yaml"])
    resources = {"requests": {"cpu": 2}, "limits": {"memory": "4Gi"}}
    image = "registry.example/leptonai:v2"
    values = {
        "gateway": {"env": {"ON": "2"}},
        "control": own["control"]
        | {"image": image, "resources": resources, "replicas": 2, "env": {"NO": "1", "TZ": "UTC"}},
        "storage": {"size": "50Gi", "class": "fast"},
        "store": {"url": URL, "secret": "db", "key": "word"},
        "serviceAccount": {"name": "plant", "annotations": {"iam": "role/x"}},
        "rbac": {"nodes": True, "room": True},
        "settings": {
            "ops": {"shadow": True},
            "gateway": {"public": "https://ai.example"},
            "alerts": {"repeat_interval": 60},
        },
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pull"}],
        "podAnnotations": {"team": "vision"},
        "imagePullPolicy": "Always",
    }
    found = rendered(tmp_path / "chart", values)
    for made in found:
        for version in VERSIONS:
            if made["kind"] != "PodDisruptionBudget":  # of a version that changed
                check(made, version)
    (made,) = by_kind(found, "StatefulSet")
    spec, template = made["spec"], made["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (claim,) = spec["volumeClaimTemplates"]
    assert "updateStrategy" not in spec, "the standby is ready while it sees who leads: one after another"
    assert (spec["replicas"], container["image"], container["imagePullPolicy"]) == (2, image, "Always")
    assert container["resources"]["requests"] == {"cpu": 2, "memory": "2Gi"}, "Helm lays one over the other"
    assert container["resources"]["limits"] == {"memory": "4Gi"} and template["spec"]["serviceAccountName"] == "plant"
    secret = {"secretKeyRef": {"name": "db", "key": "word", "optional": True}}
    assert container["env"][0]["name"] == "LEPTONAI_ADDRESS"
    assert container["env"][1:] == [
        {"name": "PGPASSWORD", "valueFrom": secret},
        {"name": "NO", "value": "1"},
        {"name": "TZ", "value": "UTC"},
    ]
    (gateway,) = (o["spec"]["template"]["spec"]["containers"][0] for o in by_kind(found, "Deployment"))
    assert gateway["env"][1:] == [{"name": "ON", "value": "2"}], "and no boolean"
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"]["requests"] == {"storage": "50Gi"}
    assert template["spec"]["nodeSelector"] == {"disk": "fast"} and template["metadata"]["annotations"]["team"]
    (config,) = by_kind(found, "ConfigMap")
    read = msgspec.yaml.decode(config["data"]["settings.yaml"], type=Settings)
    assert (read.store.url, read.ops.shadow, read.gateway.public) == (URL, True, "https://ai.example")
    assert (read.kubernetes.enabled, read.kubernetes.namespace, read.gateway.host) == (True, "models", "0.0.0.0")
    assert {o["metadata"]["name"] for o in found if "Role" in o["kind"]} == {
        "plant",
        "plant-models",
        "leptonai-gateway",
    }
    (rules,) = (o["rules"] for o in by_kind(found, "ClusterRole"))
    assert [r["resources"] for r in rules] == [["nodes"], ["pods"]]
    accounts = [o for o in by_kind(found, "ServiceAccount") if o["metadata"]["name"] == "plant"]
    assert [a["metadata"]["annotations"] for a in accounts] == [{"iam": "role/x"}]
    for binding in (*by_kind(found, "RoleBinding"), *by_kind(found, "ClusterRoleBinding")):
        who = "leptonai-gateway" if binding["metadata"]["name"] == "leptonai-gateway" else "plant"
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": who, "namespace": "models"}]


@needs_helm
def test_the_scope_of_rights_is_the_site_s(tmp_path: Path) -> None:
    def kinds(number: int, **values: Json) -> set[str]:
        found = rendered(tmp_path / str(number), dict(values))
        return {o["kind"] for o in found} & {"ServiceAccount", "Role", "RoleBinding", "ClusterRole"}

    whole = {"ServiceAccount", "Role", "RoleBinding"}
    assert kinds(0) == whole
    assert kinds(1, rbac={"nodes": True}) == whole | {"ClusterRole"}
    assert kinds(2, rbac={"create": False, "nodes": True}, serviceAccount={"create": False}) == set()


@needs_helm
def test_other_settings_are_other_pods(tmp_path: Path) -> None:
    def mark(number: int, values: Json) -> str:
        (made,) = by_kind(rendered(tmp_path / str(number), values), "StatefulSet")
        return str(made["spec"]["template"]["metadata"]["annotations"]["leptonai.dev/settings"])

    first = mark(0, {})
    assert len(first) == 16 and mark(1, {}) == first
    assert len({first, mark(2, {"settings": {"ops": {"keep": 60}}}), mark(3, {"store": {"url": URL}})}) == 3


WRONG: list[Json] = [
    {"control": {"replicas": "one"}},
    {"control": {"replicas": 0}},
    {"control": {"replicas": 2}},  # of a store in a file
    {"control": {"replicas": 3}, "store": {"url": URL}},
    {"control": {"image": ""}},
    {"control": {"imagee": "x"}},
    {"control": {"resources": {"request": {"cpu": 1}}}},
    {"storage": {"size": 10}},
    {"storage": {"size": "much"}},
    {"storage": {"size": "1Gi", "clas": "fast"}},
    {"store": {"url": "postgresql://ana:s3cret@db/x"}},
    {"store": {"url": "postgresql://ana:s3cret/2@db/x"}},
    {"store": {"url": "postgresql://ana@db/x?sslmode=require&password=s3cret"}},
    {"store": {"url": "mysql://db/x"}},
    {"serviceAccount": {"name": "No Name"}},
    {"serviceAccount": {"create": "yes"}},
    {"rbac": {"nodes": 1}},
    {"settings": {"opps": {}}},
    {"settings": {"ops": {"shadow": "yes"}}},
    {"settings": {"ops": None}},
    {"settings": {"api": {"port": 1}}},
    {"settings": {"gateway": {"host": "127.0.0.1"}}},
    {"settings": {"kubernetes": {"namespace": "other"}}},
    {"settings": {"kubernetes": {"enabled": False}}},
    {"settings": {"store": {"url": URL}}},
    {"settings": []},
    {"imagePullPolicy": "Sometimes"},
    {"nodeSelector": {"disk": 5}},
    {"unheard": 1},
]
GOOD: list[Json] = [
    {"control": {"replicas": 2}, "store": {"url": URL}},
    {"store": {"url": "postgres:///leptonai?host=/run/postgresql"}},
    {"store": {"url": "postgresql://a@one:5432,two:5432/x"}},
    {"settings": {"ops": {"period": 2}, "store": {"keep": 60.5}, "gateway": {"public": "https://x"}}},
    {"storage": {"size": "1.5Ti", "class": "fast"}},
    {"global": {"anything": 1}},
]


def over(below: Json, above: Json) -> Json:
    """As Helm lays given values over a chart's own."""
    both = {k: over(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return below | above | both


@pytest.mark.parametrize("values", [*WRONG, *GOOD], ids=lambda v: json.dumps(v)[:60])
def test_the_schema_takes_what_can_be_and_nothing_else(values: Json) -> None:
    made = chart()
    schema = json.loads(made["values.schema.json"])
    validator = jsonschema.Draft7Validator(schema)
    validator.check_schema(schema)
    assert validator.is_valid(yaml.safe_load(made["values.yaml"]))
    assert validator.is_valid(over(yaml.safe_load(made["values.yaml"]), values)) == (values in GOOD)


@needs_helm
def test_helm_agrees_with_the_schema(tmp_path: Path) -> None:
    with helm_python.Chart.load(str(written(chart(), tmp_path / "chart"))) as one:
        for values in GOOD:
            one.validate_schema(one.merge_values(values))
        for values in WRONG:
            if values != {"settings": {"ops": None}}:  # which Helm takes for leaving it out
                with pytest.raises(helm_python.HelmError):
                    one.validate_schema(one.merge_values(values))


def test_settings_that_repeat_what_is_fixed_are_no_values() -> None:
    """As a home has them whose settings.yaml is given: the schema, which has no words for them, takes the chart's own
    values, and nothing else of them is lost."""
    own = {"api": {"host": "0.0.0.0", "port": 8310, "max_body": 9}, "gateway": {"port": 8320, "public": "https://x"}}
    fixed = {"enabled": True, "namespace": "models", "gateway_pods": True, "resync": 60.0}
    made = chart(own | {"kubernetes": fixed}, namespace="models")
    values = yaml.safe_load(made["values.yaml"])
    jsonschema.Draft7Validator(json.loads(made["values.schema.json"])).validate(values)
    left = {"api": {"max_body": 9}, "gateway": {"public": "https://x"}, "kubernetes": {"resync": 60.0}}
    assert values["settings"] == left


def test_what_cannot_be_is_refused_when_it_is_written() -> None:
    with pytest.raises(SpecError, match=r"store\.url holds a password"):
        chart({"store": {"url": "postgresql://ana:s3cret@db/x"}})
    with pytest.raises(SpecError, match="unknown field"):
        chart({"kubernetes": {"nmespace": "other"}})


def test_the_command_writes_it_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("ops: {shadow: true}\nstore: {url: 'postgresql://ana@db/x'}\n")
    out = tmp_path / "chart"
    how = ["--storage", "2Gi", "--memory", "4Gi", "--image", "r.io/control:v1", "--settings", str(settings)]
    assert run(["export", "control", "--helm", *how, "-o", str(out)]) == 0
    assert f"{out}/Chart.yaml" in capsys.readouterr().out.splitlines()
    values = yaml.safe_load((out / "values.yaml").read_text())
    assert values["storage"]["size"] == "2Gi" and values["control"]["image"] == "r.io/control:v1"
    assert values["settings"] == {"ops": {"shadow": True}, "store": {}}
    assert values["store"]["url"] == "postgresql://ana@db/x"
    assert run(["export", "control", "--helm"]) == 2
    assert "-o DIR" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(["export", "control", "--helm", "-o", str(tmp_path / "file" / "chart")]) == 2
    assert "cannot write" in capsys.readouterr().err
    wrong = {
        "--storage": "much",
        "--cpu": "-1",
        "--memory": "2 GB",
        "--image": "A b",
        "--namespace": "Shop",
        "--account": "a_b",
    }
    for option, value in (wrong | {"--storage-class": "Fast!", "--version": "1.19"}).items():
        for how in (["--helm", "-o", str(out)], []):
            assert run(["export", "control", *how, option, value]) in (2, 6), option
            said = capsys.readouterr().err
            assert value in said and "hint:" in said
