"""The platform itself on a cluster: objects that every version takes, settings that fit where it runs."""

from __future__ import annotations

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from render_stage import VERSIONS, by_kind, check, ground, service

from leptonai.cli.exports import export
from leptonai.cli.main import run
from leptonai.errors import SpecError
from leptonai.plan.render import Apis, render, wish
from leptonai.plan.render.control import Seat, control
from leptonai.plan.render.gate import PAGES
from leptonai.plan.render.pod import LEAVE
from leptonai.platforms.kubernetes.lead import ADDRESS
from leptonai.platforms.kubernetes.rights import role
from leptonai.platforms.local.handover import PATIENCE
from leptonai.settings import Settings

LATEST = Apis.of("1.28")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_as_kubernetes_has_it(version: str) -> None:
    for seat in (Seat("models", storage_class="fast"), Seat("models", gateways=0)):
        for made in control(seat, {}, "leptonai", Apis.of(version)):
            check(made, version)
            assert made["metadata"]["namespace"] == "models"


def test_settings_are_the_given_ones_and_those_of_the_place() -> None:
    given = {"store": {"url": "postgresql://db/leptonai"}, "kubernetes": {"image": "r.io/{service}:{model}"}}
    (config,) = by_kind(control(Seat("models"), given, "leptonai", LATEST), "ConfigMap")
    read = msgspec.yaml.decode(config["data"]["settings.yaml"], type=Settings)
    assert (read.store.url, read.kubernetes.image) == ("postgresql://db/leptonai", "r.io/{service}:{model}")
    assert (read.kubernetes.enabled, read.kubernetes.namespace) == (True, "models")
    assert (read.api.host, read.gateway.host) == ("0.0.0.0", "0.0.0.0")
    assert (read.kubernetes.gateway_pods, read.gateway.public) == (True, "http://leptonai-gateway.models")


def test_the_password_of_a_database_comes_from_a_secret_and_stands_nowhere() -> None:
    def container(given: dict[str, object]) -> dict[str, object]:
        made = control(Seat(), given, "leptonai", LATEST)
        for one in made:
            check(one, "1.28")
        return by_kind(made, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]

    (address, variable) = container({"store": {"url": "postgresql://ana@db:5432/leptonai?sslmode=require"}})["env"]
    assert variable["name"] == "PGPASSWORD" and variable["valueFrom"]["secretKeyRef"]["name"] == "leptonai-store"
    assert container({})["env"] == [address], "where other copies find this one"
    assert address == {"name": ADDRESS, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    for url in (
        "postgresql://ana:s3cret@db/x",
        "postgresql://ana@db/x?sslmode=require&password=s3cret",
        "postgresql://ana:s3cret/2@db/x",  # the library takes s3cret for a port
        "postgresql://ana:5432@s3cret@db/x",
    ):
        with pytest.raises(SpecError, match=r"store\.url holds a password") as failed:
            container({"store": {"url": url}})
        assert "s3cret" not in str(failed.value.body())


def test_other_settings_are_another_pod_and_equal_ones_the_same() -> None:
    def template(given: dict[str, object]) -> object:
        (made,) = by_kind(control(Seat(), given, "leptonai", LATEST), "StatefulSet")
        return made["spec"]["template"]

    assert template({}) == template({}) != template({"api": {"max_body": 1}})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"api": {"port": 1}}, "api.port is 1"),
        ({"kubernetes": {"namespace": "other"}}, "kubernetes.namespace is 'other'"),
        ({"kubernetes": {"nmespace": "other"}}, "unknown field"),
        ({"store": {"keep": "long"}}, "Expected"),
        ({"api": 8310}, "api is 8310, and must be a mapping"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        control(Seat("models"), given, "leptonai", LATEST)


def test_no_right_is_given_that_a_platform_does_not_need() -> None:
    """One pod, as nobody, that may write its volume and nothing else; its rights are those of `export rbac`."""
    (made,) = by_kind(control(Seat(), {}, "leptonai", LATEST), "StatefulSet")
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert made["spec"]["replicas"] == 1
    (rules,) = (o["rules"] for o in role(Apis.of("1.28"), "models", "leptonai") if o["kind"] == "Role")
    leases = {(tuple(r["verbs"]), tuple(r.get("resourceNames", ()))) for r in rules if r["resources"] == ["leases"]}
    assert leases == {(("get", "update", "delete"), ("leptonai",)), (("create",), ())}
    assert not [r for r in rules if "*" in (*r["verbs"], *r["resources"], *r["apiGroups"])]


def test_gateways_look_and_change_nothing_and_leave_last() -> None:
    """Two pods of the same image, spread, one at a time: what they may is to list and watch, and their pages are for
    control alone. A pod that ends has the time that Envoy's clients are waited for."""
    made = [o for o in control(Seat("models"), {}, "leptonai", LATEST) if o["metadata"]["name"] == "leptonai-gateway"]
    (role_,) = by_kind(made, "Role")
    assert {v for r in role_["rules"] for v in r["verbs"]} == {"list", "watch", "get"}
    assert [r.get("resourceNames") for r in role_["rules"] if "get" in r["verbs"]] == [["leptonai-control"]]
    (policy,) = by_kind(made, "NetworkPolicy")
    to_pages = next(r for r in policy["spec"]["ingress"] if r["ports"][0]["port"] == PAGES)
    assert to_pages["from"] == [{"podSelector": {"matchLabels": {"leptonai.dev/part": "control"}}}]
    (deployment,) = by_kind(made, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = deployment["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= LEAVE + PATIENCE and pod["topologySpreadConstraints"]
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert by_kind(made, "PodDisruptionBudget")[0]["spec"]["maxUnavailable"] == 1


def test_a_service_that_is_named_as_the_gateway_or_control_gets_none_of_their_traffic() -> None:
    """No selector of the platform's Services, policies and budgets takes a pod of a service, whatever its name; all
    take the platform's own."""
    made = control(Seat("models"), {}, "leptonai", LATEST)
    own = {
        o["metadata"]["name"]: o["spec"]["template"]["metadata"]["labels"]
        for kind in ("StatefulSet", "Deployment")
        for o in by_kind(made, kind)
    }
    asked = 0
    for one in made:
        spec, name = one.get("spec", {}), one["metadata"]["name"]
        asks = [f["podSelector"] for r in spec.get("ingress", ()) for f in r.get("from", ())]
        for chosen in (spec.get("selector"), spec.get("podSelector"), *asks):
            if chosen is None or one["kind"] == "StatefulSet":  # which counts what it made only
                continue
            asked += 1
            wanted = chosen.get("matchLabels", chosen)
            whose = "leptonai-control" if chosen in asks else name
            assert wanted.items() <= own[whose].items(), one["kind"]
            (deployment,) = by_kind(render(service(name=whose, workspace="team"), ground()).objects, "Deployment")
            theirs = deployment["spec"]["template"]["metadata"]["labels"]
            assert theirs["app.kubernetes.io/name"] == whose and not wanted.items() <= theirs.items(), one["kind"]
    assert asked == 6


def test_a_copy_of_a_wish_under_another_name_is_refused() -> None:
    made = wish.wish(service(name="digits"), "models")
    assert wish.read(made) == service(name="digits")
    made["metadata"]["name"] = "backup"
    with pytest.raises(SpecError, match="ConfigMap/backup is not where the wish for digits stands"):
        wish.read(made)


def test_where_the_gateway_is_says_what_a_probe_asks() -> None:
    """With gateways of its own, control is ready when its API answers, and nobody calls it for services."""
    for gateways, asked, ports in ((2, "/api/v1/healthz", ["api"]), (0, "/v2/health/live", ["gateway", "api"])):
        made = control(Seat(gateways=gateways), {}, "leptonai", LATEST)
        (service,) = [o for o in by_kind(made, "Service") if o["metadata"]["name"] == "leptonai-control"]
        assert [p["name"] for p in service["spec"]["ports"]] == ports
        container = by_kind(made, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]
        assert container["readinessProbe"]["httpGet"]["path"] == asked
        assert [p["name"] for p in container["ports"]] == ports


def test_the_command_writes_all_of_it_and_says_what_is_wrong(tmp_path, capsys) -> None:
    out = tmp_path / "control.yaml"
    assert run(["export", "control", "--namespace", "models", "--storage", "2Gi", "-o", str(out)]) == 0
    kinds = [o["kind"] for o in yaml.safe_load_all(out.read_text())]
    own = ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "StatefulSet"]
    gates = ["ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment"]
    assert kinds == own + gates
    assert run(["export", "control", "--gateways", "0", "-o", str(out)]) == 0
    assert [o["kind"] for o in yaml.safe_load_all(out.read_text())] == own
    assert run(["export", "control", "--gateways", "-1"]) == 2
    assert "gateways is -1" in capsys.readouterr().err
    wrong = tmp_path / "settings.yaml"
    for text, word in (("api: {port: 1}", "api.port"), ("- 1", "holds no settings"), ("a: [", "cannot read")):
        wrong.write_text(text)
        assert run(["export", "control", "--settings", str(wrong)]) == 2
        assert word in capsys.readouterr().err
    assert run(["build", "-o", str(tmp_path / "x.tar")]) == 2
    assert "--control" in capsys.readouterr().err
    assert "Example:" in CliRunner().invoke(export, ["control", "--help"]).output
