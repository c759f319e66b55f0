"""What the gateway's files say; test_gateway.py shows that a real Envoy does it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_stage import validate

from leptonai.plan import Snapshot, bootstrap, cluster_name, routes, updates
from leptonai.settings import Gateway
from leptonai.types import Dials, Policy, Replica, Retry, Service, Slo, Spec, Variant, VariantDials

GATEWAY = Gateway()


def service(
    name: str = "s", workspace: str = "default", balance: Any = "least_request", **dials: VariantDials
) -> Service:
    dials = dials or {"main": VariantDials()}
    variants = tuple(Variant(name=n, model=n, idempotent=True) for n in dials)
    spec = Spec(name=name, workspace=workspace, variants=variants, balance=balance)
    return Service(spec=spec, dials=Dials(variants=dials), revision=1)


def replica(id: str, state: Any = "ready", variant: str = "main", service: str = "s", **more: Any) -> Replica:
    address = f"unix:/run/{id}.sock"
    return Replica(id=id, service=service, variant=variant, digest="d", state=state, since=0.0, address=address, **more)


def files(services: list[Service], replicas: list[Replica], control: str = "") -> Snapshot:
    return routes(services, replicas, GATEWAY, folder="/etc/gateway", control=control)


def hosts(snapshot: Snapshot, cluster: str = "s@main") -> set[str]:
    [assignment] = snapshot[f"eds/{cluster}.json"]["resources"]
    return {h["endpoint"]["hostname"] for h in assignment["endpoints"][0]["lb_endpoints"]}


def table(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every route, whatever prefix of the path leads to it, with what its host says for all."""
    [host] = snapshot["rds.json"]["resources"][0]["virtual_hosts"]
    tree = host["matcher"]["matcher_tree"]["prefix_match_map"]["map"]
    for prefix, leaf in tree.items():
        for route in leaf["action"]["typed_config"]["routes"]:
            assert next(iter(route["match"].values())).startswith(prefix), "the tree leads to it"
    given = {k: host[k] for k in ("retry_policy",) if k in host}
    routes = [route for leaf in tree.values() for route in leaf["action"]["typed_config"]["routes"]]
    return [r | {"route": given | r["route"]} if "route" in r else r for r in routes]


def action(snapshot: Snapshot, path: str) -> dict[str, Any]:
    """Of requests for answers that come at once."""
    plain = (r for r in table(snapshot) if "headers" not in r["match"])
    return next(r["route"] for r in plain if path in r["match"].values())  # type: ignore[no-any-return]


def test_an_answer_that_comes_in_pieces_may_be_long_and_is_asked_for_once() -> None:
    variant = Variant(model="m", idempotent=True)
    made = files([Service(spec=Spec(name="s", variants=(variant,), timeout=7.0), dials=Dials(), revision=1)], [])
    routes = [r for r in table(made) if "headers" in r["match"] or r["match"].get("prefix") == "/services/s/v1/"]
    assert len(routes) == 4
    for route in routes:
        assert (route["route"]["timeout"], route["route"]["idle_timeout"]) == ("0s", "12s")
        assert "hedge_policy" not in route["route"] and "per_try_timeout" not in route["route"]["retry_policy"]


def test_what_most_services_want_of_repetition_is_said_once_and_holds_for_each_as_if_it_were_alone() -> None:
    def one(name: str, idempotent: bool, attempts: int | None = None) -> Service:
        spec = Spec(name=name, variants=(Variant(model="m", idempotent=idempotent),), retry=Retry(attempts=attempts))
        return Service(spec=spec, dials=Dials(), revision=1)

    services = [one("a", True), one("b", False), one("c", True), one("d", True, 1), one("e", False)]
    for some in (services, services[1:], services[1:2]):
        together = [r["route"] for r in table(files(some, [])) if "route" in r]
        alone = [r["route"] for s in some for r in table(files([s], [])) if "route" in r]
        assert sorted(together, key=str) == sorted(alone, key=str)
    rds = msgspec.json.encode(files(services, [])["rds.json"]).decode()
    # once for all, in the two routes of a and c that limit a try in time, and in the six of d
    assert rds.count("connect-failure,refused-stream,reset") == 1 + 2 * 2 + 6


def test_only_ready_replicas_get_requests() -> None:
    world = [
        replica("a"),
        replica("b", "starting"),
        replica("c", "stopping"),
        replica("d", "failed", reason="hung"),
        replica("e", "failed", reason="exited"),
        replica("f", service="t"),
        replica("g", variant="gone"),
    ]
    assert hosts(files([service()], world)) == {"a"}


def test_paths_of_the_default_workspace_and_of_others() -> None:
    snapshot = files([service(), service(workspace="team")], [], control="127.0.0.1:80")
    paths = [next(iter(r["match"].values())) for r in table(snapshot)]
    assert paths == [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2",
        "/v2/",
        "/feedback",
        "/survey",
        "/v2/repository",
        "/v2/models/s",
        "/v2/models/s",
        "/services/s/-",
        "/services/s/",
        "/services/s/",
        "/services/s/v1/",
        "/services/s/",
        "/workspaces/team/v2/models/s",
        "/workspaces/team/v2/models/s",
        "/workspaces/team/services/s/-",
        "/workspaces/team/services/s/",
        "/workspaces/team/services/s/",
        "/workspaces/team/services/s/v1/",
        "/workspaces/team/services/s/",
    ]
    assert action(snapshot, "/workspaces/team/v2/models/s")["prefix_rewrite"] == "/v2/models/s"
    assert action(snapshot, "/workspaces/team/services/s/")["cluster"] == "team.s@main"
    assert cluster_name("team/s", "main") == "team.s@main"
    assert "/feedback" not in str(files([service()], []))


def test_weights_share_requests_among_variants_that_can_answer() -> None:
    both = service(main=VariantDials(weight=3.0), canary=VariantDials(weight=1.0))
    world = [replica("a"), replica("b", variant="canary")]
    parts = action(files([both], world), "/services/s/")["weighted_clusters"]["clusters"]
    assert parts == [{"name": "s@main", "weight": 7500}, {"name": "s@canary", "weight": 2500}]
    assert action(files([both], world[:1]), "/services/s/")["cluster"] == "s@main"
    assert action(files([both], world[1:]), "/services/s/")["cluster"] == "s@canary"
    assert "weighted_clusters" in action(files([both], []), "/services/s/")
    tiny = service(main=VariantDials(weight=1.0), canary=VariantDials(weight=1e-9))
    parts = action(files([tiny], world), "/services/s/")["weighted_clusters"]["clusters"]
    assert parts[1]["weight"] == 1, "a weight over nothing is never rounded to nothing"


def test_a_mirror_gets_copies_and_no_answers() -> None:
    shadowed = service(main=VariantDials(), shadow=VariantDials(weight=0.0, mirror=0.1))
    world = [replica("a"), replica("b", variant="shadow")]
    made = action(files([shadowed], world), "/services/s/")
    assert made["cluster"] == "s@main"
    [mirror] = made["request_mirror_policies"]
    assert mirror["cluster"] == "s@shadow"
    assert mirror["runtime_fraction"]["default_value"] == {"numerator": 100_000, "denominator": "MILLION"}
    assert "request_mirror_policies" not in action(files([shadowed], world[:1]), "/services/s/")


def test_only_idempotent_requests_are_repeated_after_they_may_have_run() -> None:
    def retry_on(*idempotent: bool | None) -> set[str]:
        variants = tuple(Variant(name=f"v{i}", model="m", idempotent=x) for i, x in enumerate(idempotent))
        made = Service(spec=Spec(name="s", variants=variants), dials=Dials(), revision=1)
        return set(action(files([made], []), "/services/s/")["retry_policy"]["retry_on"].split(","))

    never_ran = {"connect-failure", "refused-stream"}
    assert retry_on(True) == {*never_ran, "reset", "retriable-status-codes"}
    assert retry_on(False) == retry_on(None) == retry_on(True, False) == never_ran


@given(
    st.permutations([service("a"), service("b"), service("c", "team")]), st.permutations([replica(i) for i in "abc"])
)
def test_order_of_wishes_and_replicas_does_not_matter(services: list[Service], replicas: list[Replica]) -> None:
    got = files(services, [*replicas])
    wanted = files(sorted(services, key=lambda s: s.key), sorted(replicas, key=lambda r: r.id))
    assert got == wanted and list(got) == list(wanted)


def test_only_idempotent_requests_are_asked_twice_and_only_when_far_over_what_is_promised() -> None:
    def patience(idempotent: bool, latency: float, timeout: float = 30.0) -> str | None:
        variant = Variant(model="m", idempotent=idempotent)
        spec = Spec(name="s", variants=(variant,), slo=Slo(latency=latency), timeout=timeout)
        made = action(files([Service(spec=spec, dials=Dials(), revision=1)], []), "/services/s/")
        assert ("hedge_policy" in made) == ("per_try_timeout" in made["retry_policy"])
        return made["retry_policy"].get("per_try_timeout")  # type: ignore[no-any-return]

    assert patience(True, 0.25) == "2s"
    assert patience(True, 1.5) == "6s"
    assert patience(True, 10.0) is None
    assert patience(True, 0.25, timeout=1.0) is None
    assert patience(False, 0.25) is None


names = st.sets(st.sampled_from("abcd"))


@given(names, names)
def test_at_no_step_of_an_update_does_a_route_name_a_missing_cluster(before: set[str], after: set[str]) -> None:
    old = files([service(n) for n in before], []) if before else {}
    new = files([service(n, a=VariantDials(), b=VariantDials()) for n in after], [])
    disk = copy.deepcopy(old)
    for name, content in updates(old, new):
        if content is None:
            del disk[name]
        else:
            disk[name] = content
        resources = disk.get("cds.json", {}).get("resources", [])
        clusters = {c["name"] for c in resources}
        for c in resources:
            assert c["type"] == "STATIC" or f"eds/{c['name']}.json" in disk
        if "rds.json" in disk:
            for route in table(disk):
                made = route.get("route", {})
                parts = made.get("weighted_clusters", {"clusters": [{"name": made.get("cluster")}]})["clusters"]
                assert {p["name"] for p in parts} - {None} <= clusters
    assert disk == new
    assert updates(new, new) == []


BALANCES: list[Policy] = ["least_request", "round_robin", "random", "ring_hash", "maglev"]


def test_envoy_accepts_every_kind_of_file(tmp_path: Path) -> None:
    services = [service(f"s{i}", "team" if i % 2 else "default", b) for i, b in enumerate(BALANCES)]
    services.append(service("both", main=VariantDials(weight=0.3), canary=VariantDials(mirror=0.5)))
    services.append(service("none", main=VariantDials(weight=0.0)))
    world = [replica("a", service="both"), replica("b", service="both", variant="canary")]
    for control in ("", "127.0.0.1:80", "unix:/run/control.sock"):
        assert validate(tmp_path, static(files(services, world, control))) == ""
    for name in ("cds.json", "lds.json"):
        (tmp_path / name).write_text('{"resources": []}')
    assert validate(tmp_path, bootstrap(GATEWAY, folder=str(tmp_path), admin="127.0.0.1:0")) == ""
    broken = static(files(services, world))
    broken["static_resources"]["clusters"][0]["lb_policy"] = "LUCK"
    assert "LUCK" in validate(tmp_path, broken), "the check can fail"


def static(snapshot: Snapshot) -> dict[str, Any]:
    """The same as one static configuration: validation reads no files that a configuration points to."""
    snapshot = copy.deepcopy(snapshot)
    clusters = snapshot["cds.json"]["resources"]
    for cluster in clusters:
        if cluster.pop("eds_cluster_config", None):
            [assignment] = snapshot[f"eds/{cluster['name']}.json"]["resources"]
            cluster |= {"type": "STATIC", "load_assignment": assignment}
            del assignment["@type"]
    [listener] = snapshot["lds.json"]["resources"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    manager["access_log"][0]["typed_config"]["path"] = "/dev/null"  # it opens this one when it validates
    [manager["route_config"]] = snapshot["rds.json"]["resources"]
    for resource in (*clusters, listener, manager["route_config"]):
        del resource["@type"]
    config = bootstrap(GATEWAY, folder="/x", admin="127.0.0.1:0")
    del config["dynamic_resources"]
    return {**config, "static_resources": {"clusters": clusters, "listeners": [listener]}}


@pytest.mark.parametrize("control", ["127.0.0.1:8310", "unix:/run/control.sock"])
def test_feedback_goes_to_control(control: str) -> None:
    made = action(files([], [], control), "/feedback")
    assert (made["cluster"], made["prefix_rewrite"]) == ("control", "/api/v1/feedback")
