"""The platform itself on a cluster: objects that every version takes, settings that fit where it runs."""

from __future__ import annotations

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from render_stage import VERSIONS, by_kind, check

from leptonai.cli.exports import export
from leptonai.cli.main import run
from leptonai.errors import SpecError
from leptonai.plan.render import Apis
from leptonai.plan.render.control import Seat, control
from leptonai.platforms.kubernetes.rights import role
from leptonai.settings import Settings


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_as_kubernetes_has_it(version: str) -> None:
    for made in control(Seat("models", storage_class="fast"), {}, "leptonai"):
        check(made, version)
        assert made["metadata"]["namespace"] == "models"


def test_settings_are_the_given_ones_and_those_of_the_place() -> None:
    given = {"store": {"url": "postgresql://db/leptonai"}, "kubernetes": {"image": "r.io/{service}:{model}"}}
    (config,) = by_kind(control(Seat("models"), given, "leptonai"), "ConfigMap")
    read = msgspec.yaml.decode(config["data"]["settings.yaml"], type=Settings)
    assert (read.store.url, read.kubernetes.image) == ("postgresql://db/leptonai", "r.io/{service}:{model}")
    assert (read.kubernetes.enabled, read.kubernetes.namespace) == (True, "models")
    assert (read.api.host, read.gateway.host) == ("0.0.0.0", "0.0.0.0")


def test_the_password_of_a_database_comes_from_a_secret_and_stands_nowhere() -> None:
    def container(given: dict[str, object]) -> dict[str, object]:
        made = control(Seat(), given, "leptonai")
        for one in made:
            check(one, "1.28")
        return by_kind(made, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]

    (variable,) = container({"store": {"url": "postgresql://ana@db:5432/leptonai?sslmode=require"}})["env"]
    assert variable["name"] == "PGPASSWORD" and variable["valueFrom"]["secretKeyRef"]["name"] == "leptonai-store"
    assert "env" not in container({})
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
        (made,) = by_kind(control(Seat(), given, "leptonai"), "StatefulSet")
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
        control(Seat("models"), given, "leptonai")


def test_no_right_is_given_that_a_platform_does_not_need() -> None:
    """One pod, as nobody, that may write its volume and nothing else; its rights are those of `export rbac`."""
    (made,) = by_kind(control(Seat(), {}, "leptonai"), "StatefulSet")
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert made["spec"]["replicas"] == 1
    (rules,) = (o["rules"] for o in role(Apis.of("1.28"), "models", "leptonai") if o["kind"] == "Role")
    leases = {(tuple(r["verbs"]), tuple(r.get("resourceNames", ()))) for r in rules if r["resources"] == ["leases"]}
    assert leases == {(("get", "update", "delete"), ("leptonai",)), (("create",), ())}
    assert not [r for r in rules if "*" in (*r["verbs"], *r["resources"], *r["apiGroups"])]


def test_the_command_writes_all_of_it_and_says_what_is_wrong(tmp_path, capsys) -> None:
    out = tmp_path / "control.yaml"
    assert run(["export", "control", "--namespace", "models", "--storage", "2Gi", "-o", str(out)]) == 0
    kinds = [o["kind"] for o in yaml.safe_load_all(out.read_text())]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "StatefulSet"]
    wrong = tmp_path / "settings.yaml"
    for text, word in (("api: {port: 1}", "api.port"), ("- 1", "holds no settings"), ("a: [", "cannot read")):
        wrong.write_text(text)
        assert run(["export", "control", "--settings", str(wrong)]) == 2
        assert word in capsys.readouterr().err
    assert run(["build", "-o", str(tmp_path / "x.tar")]) == 2
    assert "--control" in capsys.readouterr().err
    assert "Example:" in CliRunner().invoke(export, ["control", "--help"]).output
