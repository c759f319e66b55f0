"""Clusters that no route names any more: how long they stay, and who answers in their name."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from plan_stage import validate

from leptonai.edge import endpoints
from leptonai.plan import Snapshot, bootstrap, linger, routes, updates
from leptonai.plan.linger import LINGER
from leptonai.settings import Gateway
from leptonai.types import Canary, Dials, Replica, Rollout, Service, Spec, Variant, VariantDials


def service(names: str, key: str = "s", canary: bool = False, **dials: VariantDials) -> Service:
    variants = tuple(Variant(name=n, model=n + ("2" if canary else ""), idempotent=True) for n in names)
    spec = Spec(name=key, variants=variants, rollout=Rollout(strategy="canary"))
    before = tuple(Variant(name=n, model=n, idempotent=True) for n in names)
    return Service(
        spec=spec,
        dials=Dials(variants={n: VariantDials(replicas=1) for n in names} | dials),
        revision=1,
        canary=Canary(stable=before, revision=1, weight=0.5, replicas=1) if canary else None,
    )


def replica(variant: str, digest: str, key: str = "s") -> Replica:
    name = f"{key}-{variant}-{digest[-4:]}"
    return Replica(
        id=name, service=key, variant=variant, digest=digest, state="ready", since=0.0, address=f"unix:/run/{name}"
    )


def files(*services: Service, watches: int | None = None) -> Snapshot:
    """With one ready replica of each variant of each service, and an edge."""
    replicas = [replica(v.name, v.digest, s.key) for s in services for v in s.spec.variants]
    return routes(services, replicas, Gateway(), folder="/x", control="127.0.0.1:1", edge="/e", watches=watches)


def names(snapshot: Snapshot) -> set[str]:
    return {c["name"] for c in snapshot["cds.json"]["resources"]} - {"control"}


def hosts(snapshot: Snapshot, cluster: str) -> list[str]:
    [load] = snapshot[f"eds/{cluster}.json"]["resources"]
    assert load["cluster_name"] == cluster
    return [h["endpoint"]["hostname"] for locality in load["endpoints"] for h in locality["lb_endpoints"]]


def test_a_promoted_version_answers_under_the_name_it_had_on_probation() -> None:
    during, after = files(service("m", canary=True)), files(service("m"))
    assert names(during) == {"s@m", "s@m-new"} and names(after) == {"s@m"}
    made, left = linger(during, after, {}, 100.0)
    assert left == {"s@m-new": 100.0 + LINGER} and names(made) == {"s@m", "s@m-new"}
    assert hosts(made, "s@m-new") == hosts(after, "s@m") and "edge" in hosts(made, "s@m-new")
    assert endpoints.read(msgspec.json.encode(made["eds/s@m-new.json"])) is None, "the edge listens once"
    assert linger(made, after, left, 100.0 + LINGER) == (after, {})
    assert linger(made, after, left, 99.0 + LINGER) == (made, left), "it is counted from when it left"
    back, left = linger(made, during, left, 101.0)
    assert (back, left) == (during, {}), "the next probation has the name for itself"


def test_who_leaves_with_the_service_does_not_stay() -> None:
    assert linger(files(service("m"), service("m", "t")), files(service("m")), {}, 0.0) == (files(service("m")), {})
    assert linger({}, files(service("m")), {}, 0.0) == (files(service("m")), {})


def test_hosts_follow_while_it_stays() -> None:
    """A replica that is replaced meanwhile is not asked under the old name either."""
    before, left = linger(files(service("ab")), files(service("a")), {}, 0.0)
    newer = routes([service("a")], [replica("a", "sha256:else")], Gateway(), folder="/x", edge="/e")
    after, again = linger(before, newer, left, 1.0)
    assert hosts(after, "s@b") == hosts(newer, "s@a") != hosts(before, "s@b") and again == left


def test_only_who_answers_users_answers_in_the_name_of_who_has_left() -> None:
    """Neither one that has copies alone, nor one without a replica; and copies are nobody's to answer."""
    one, none = VariantDials(replicas=1), VariantDials(replicas=0)
    shadow = VariantDials(replicas=1, weight=0.0, mirror=0.5)
    before = files(service("abz", z=shadow))
    made, _ = linger(before, files(service("az", z=shadow)), {}, 0.0)
    assert hosts(made, "s@b") == [replica("a", service("a").spec.variants[0].digest).id, "edge"]
    ready = [replica("a", service("a").spec.variants[0].digest)]
    for z in (one, none):
        newer = routes([service("az", z=z)], ready, Gateway(), folder="/x", edge="/e")
        assert hosts(linger(before, newer, {}, 0.0)[0], "s@b") == [ready[0].id, "edge"]
    made, left = linger(before, files(service("ab")), {}, 0.0)
    assert (made, left) == (files(service("ab")), {}), "z had nothing but copies"


def test_envoy_takes_those_without_a_file_of_their_own(tmp_path: Path) -> None:
    """Their hosts stand in cds.json, whether they had replicas when they left or not, and whether the heir has."""
    before = files(service("abm", canary=True), watches=0)
    asleep = routes([service("ab")], [], Gateway(), folder="/x", edge="/e", watches=0)
    for old in (before, asleep):
        for replicas in ([], [replica("a", "sha256:else")]):
            heir = routes([service("a")], replicas, Gateway(), folder="/x", edge="/e", watches=0)
            made, _ = linger(old, heir, {}, 0.0)
            assert names(made) == names(old)
            config = bootstrap(Gateway(), folder="/x", admin="127.0.0.1:0")
            del config["dynamic_resources"]
            clusters = [{k: v for k, v in c.items() if k != "@type"} for c in made["cds.json"]["resources"]]
            config["static_resources"] = {"clusters": clusters}
            said = validate(tmp_path, config)
            assert not said, said


def test_no_more_files_are_watched_than_may_be(tmp_path: Path) -> None:
    """Envoy aborts when the kernel gives it no inotify instance, however often versions are renamed within a minute."""
    disk: Snapshot = {}
    until: dict[str, float] = {}
    for name in "abcdef":
        wished = files(service(name), service(name, "t"), watches=3)
        disk, until = linger(disk, wished, until, 0.0, watches=3)
        kinds = [c["type"] for c in disk["cds.json"]["resources"] if c["name"] != "control"]
        assert kinds.count("EDS") <= 3
    assert len(names(disk)) == 12
    config = bootstrap(Gateway(), folder="/x", admin="127.0.0.1:0")
    del config["dynamic_resources"]
    clusters = [{k: v for k, v in c.items() if k != "@type"} for c in disk["cds.json"]["resources"]]
    config["static_resources"] = {"clusters": [c for c in clusters if c["type"] == "STATIC"]}
    said = validate(tmp_path, config)
    assert not said, said


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "ab", "m", "abm"]), st.booleans(), st.floats(0, 2 * LINGER))))
def test_what_a_route_named_within_the_last_minute_is_there_and_nothing_else(
    history: list[tuple[str, bool, float]],
) -> None:
    """While the service is: at each step clusters are those wished, and those that left less than LINGER ago."""
    disk: Snapshot = {}
    until: dict[str, float] = {}
    named: dict[str, float] = {}
    now = 0.0
    for variants, canary, passed in history:
        now += passed
        wished = files(service(variants, canary=canary))
        for name in names(disk) if disk else ():
            if name not in names(wished) and name not in named:
                named[name] = now
        named = {n: t for n, t in named.items() if n not in names(wished)}
        made, until = linger(disk, wished, until, now)
        assert names(made) == names(wished) | {n for n, t in named.items() if t + LINGER > now}
        named = {n: t for n, t in named.items() if n in names(made)}
        for name in names(made) - names(wished):
            assert set(hosts(made, name)) <= {h for n in names(wished) for h in hosts(made, n)}
        for name, content in updates(disk, made):
            disk[name] = content or {}
        disk = made
