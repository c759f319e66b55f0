"""A lane that KEDA scales: what KEDA takes, and what its question to Prometheus answers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from render_stage import by_kind, ground, service

from leptonai.errors import PlatformError, SpecError
from leptonai.plan.edge import standby
from leptonai.plan.lanes import lanes
from leptonai.plan.render import Apis, render
from leptonai.plan.render.keda import demand
from leptonai.types import Auto, Canary, Dials, Resources, Scale, Service, Variant, VariantDials

Json = dict[str, Any]

# What the definition of ScaledObject says of the fields that we write (KEDA 2.8 to 2.18, keda.sh/v1alpha1); KEDA's
# admission besides refuses min over max. Whatever is not here is not written.
TAKEN: dict[str, Any] = {
    "scaleTargetRef": {"apiVersion": str, "kind": str, "name": str},
    "pollingInterval": (int, 1),
    "cooldownPeriod": (int, 0),
    "minReplicaCount": (int, 0),
    "maxReplicaCount": (int, 1),
    "advanced": {
        "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": (int, 0)}}}
    },
}
REQUIRED = {"scaleTargetRef", "triggers"}
PROMETHEUS = {"serverAddress", "metricName", "query", "threshold", "ignoreNullValues"}


def keda(**scale: Any) -> Scale:
    return Scale(owner="keda", **scale)


def scaled(wish: Service, front: bool = True, **more: Any) -> Json:
    (made,) = by_kind(render(wish, ground(own_gateway=front, **more)).objects, "ScaledObject")
    return made


def taken(value: Any, as_: Any) -> None:
    if isinstance(as_, dict):
        assert value.keys() <= as_.keys()
        for name, inner in value.items():
            taken(inner, as_[name])
    elif isinstance(as_, tuple):
        kind, least = as_
        assert type(value) is kind and least <= value < 2**31
    else:
        assert type(value) is as_


AUTOS = st.none() | st.builds(
    Auto,
    target=st.none() | st.floats(0.001, 100_000),
    concurrency=st.floats(0.01, 100_000),
    window=st.floats(2.0, 3600.0),
    hold=st.none() | st.floats(0.0, 86400.0),
)


@settings(max_examples=100)
@given(st.integers(0, 9), st.integers(1, 9), AUTOS, st.none() | st.floats(1.0, 1e6), st.booleans())
def test_whatever_is_wished_keda_takes_it(low: int, more: int, auto: Auto | None, idle: float | None, front: bool):
    wish = service(scale=keda(min=low, max=low + more, replicas=low, auto=auto, idle=idle))
    made = scaled(wish, front)
    assert (made["apiVersion"], made["metadata"]["name"]) == (
        "keda.sh/v1alpha1",
        made["spec"]["scaleTargetRef"]["name"],
    )
    spec = dict(made["spec"])
    assert spec.keys() >= REQUIRED
    (trigger,) = spec.pop("triggers")
    taken(spec, TAKEN)
    assert spec["minReplicaCount"] <= spec["maxReplicaCount"]
    assert trigger.keys() == {"type", "metadata"} and trigger["type"] == "prometheus"
    assert trigger["metadata"].keys() == PROMETHEUS and all(type(v) is str for v in trigger["metadata"].values())
    assert round(float(trigger["metadata"]["threshold"]) * 1000) > 0, "KEDA counts in thousandths"


def test_the_bounds_and_the_target_are_those_of_the_spec() -> None:
    auto = Auto(target=2.5, hold=60.0, window=90.2)
    spec = scaled(service(scale=keda(min=2, max=9, replicas=2, auto=auto)))["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 9)
    assert "cooldownPeriod" not in spec, "it is about zero alone"
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behaviour == {"scaleDown": {"stabilizationWindowSeconds": 60}}
    asked = spec["triggers"][0]["metadata"]
    assert asked["threshold"] == "2.5" and "[91s]" in asked["query"]
    assert asked["serverAddress"] == "http://prometheus.monitoring:9090"
    plain = scaled(service(scale=keda(max=9)))["spec"]["triggers"][0]["metadata"]
    assert plain["threshold"] == "0.7" and "[60s]" in plain["query"]
    wide = scaled(service(scale=keda(auto=Auto(concurrency=4.0))))["spec"]["triggers"][0]["metadata"]
    assert wide["threshold"] == "2.8"


def test_to_zero_only_where_our_gateway_sees_who_waits() -> None:
    wish = service(scale=keda(min=0, max=4, idle=600.0))
    spec = scaled(wish)["spec"]
    assert (spec["minReplicaCount"], spec["cooldownPeriod"], spec["pollingInterval"]) == (0, 600, 5)
    alone = render(wish, ground())
    (made,) = by_kind(alone.objects, "ScaledObject")
    assert made["spec"]["minReplicaCount"] == 1 and "cooldownPeriod" not in made["spec"]
    assert "held" not in made["spec"]["triggers"][0]["metadata"]["query"]
    assert any(said.startswith("scale.min: KEDA keeps one replica") for said in alone.lost)


def test_what_a_request_at_zero_is_to_wake_is_held() -> None:
    asleep = Dials(variants={"main": VariantDials(replicas=0)})
    waits = [
        standby(
            service(scale=keda(min=low, replicas=low), dials=asleep), Variant(model="sha256:" + "a" * 64)
        ).hold.max_wait
        for low in (0, 1)
    ]
    assert waits == [10.0, 0.0]


def test_replicas_are_left_to_keda_but_for_a_canary_s_new_version() -> None:
    new, old = Variant(model="sha256:" + "b" * 64), Variant(model="sha256:" + "a" * 64)
    wish = service(
        variants=(new,), scale=keda(min=1, max=4), revision=5, dials=Dials(variants={"main": VariantDials(replicas=3)}),
        canary=Canary(stable=(old,), revision=4, replicas=1, weight=0.0),
    )  # fmt: skip
    made = render(wish, ground()).objects
    first, second = by_kind(made, "Deployment")
    assert "replicas" not in first["spec"] and second["spec"]["replicas"] == 1
    (only,) = by_kind(made, "ScaledObject")
    assert only["spec"]["scaleTargetRef"]["name"] == first["metadata"]["name"]
    assert not by_kind(made, "HorizontalPodAutoscaler")


@pytest.mark.parametrize(("weight", "counted"), [(0.0, '"main"'), (0.5, '~"main|main-new"'), (1.0, '~"main|main-new"')])
def test_what_a_canary_takes_over_lets_no_replica_of_the_old_version_go(weight: float, counted: str) -> None:
    """It would be missing when the canary is taken back, or promoted. Copies are no requests of users."""
    new, old = Variant(model="sha256:" + "b" * 64), Variant(model="sha256:" + "a" * 64)
    mirror = 0.5 if weight == 0 else 0.0
    canary = Canary(stable=(old,), revision=4, replicas=4, weight=weight, mirror=mirror)
    wish = service(variants=(new,), scale=keda(max=9), revision=5, canary=canary)
    query = scaled(wish)["spec"]["triggers"][0]["metadata"]["query"]
    assert query.count(f"lane={counted}") == query.count("lane=") > 0
    new = Variant(model=new.model, resources=Resources(cpu=1.0))
    wish = service(
        variants=(new,),
        scale=Scale(owner="kubernetes", max=9),
        revision=5,
        canary=replace(canary, stable=(replace(old, resources=new.resources),)),
    )
    (made,) = by_kind(render(wish, ground(own_gateway=True)).objects, "HorizontalPodAutoscaler")
    said = made["spec"]["behavior"]["scaleDown"]["selectPolicy"]
    assert said == ("Disabled" if weight else "Max"), "said in any case, or the other would stay in the cluster"


@pytest.mark.parametrize(
    "address", ["", "prometheus:9090", "ftp://prometheus", "http://", "http://a b", "http://p/?x=1"]
)
def test_without_the_address_of_a_prometheus_it_is_refused(address: str) -> None:
    with pytest.raises(SpecError, match="asks a Prometheus for the requests of digits") as told:
        render(service(scale=keda()), ground(prometheus=address))
    assert "kubernetes.prometheus" in told.value.hint and "--prometheus" in told.value.hint
    render(service(scale=Scale(owner="leptonai")), ground(prometheus=address))


def test_a_cluster_without_keda_says_so() -> None:
    apis = Apis.served("1.30", {"policy/v1", "autoscaling/v2"})
    with pytest.raises(PlatformError, match=r"serves no ScaledObject of keda\.sh/v1alpha1") as told:
        render(service(scale=keda()), ground()._replace(apis=apis))
    assert "install KEDA" in told.value.hint
    served = Apis.served("1.30", {"policy/v1", "keda.sh/v1alpha1"})
    assert served.version("ScaledObject") == "keda.sh/v1alpha1"


# --- the question ----------------------------------------------------------------------------------------------------

OWN = 'workspace="default",service="digits"'
ENDED = "stale"


def pod(name: str, seconds: str, inside: str) -> list[Json]:
    labels = f'{OWN},lane="main",replica="{name}"'
    return [
        {"series": f"leptonai_request_seconds_sum{{{labels}}}", "values": seconds},
        {"series": f"leptonai_in_flight{{{labels}}}", "values": inside},
    ]


def platform(ready: str, held: str) -> list[Json]:
    return [
        {"series": f'leptonai_ready_replicas{{{OWN},lane="main"}}', "values": ready},
        {"series": f'leptonai_ready_replicas{{{OWN},lane="other"}}', "values": "7x40"},
        {"series": f'leptonai_held_requests{{{OWN},variant="main"}}', "values": held},
        {"series": f'leptonai_held_requests{{{OWN},variant="other"}}', "values": "9x40"},
    ]


OTHERS = [
    {"series": 'leptonai_in_flight{workspace="team",service="digits",lane="main",replica="x"}', "values": "50x40"}
]
# At 5 minutes, scraped each 15 s: what there is, what the answer is; None: there is none, and nothing is done.
CASES: dict[str, tuple[list[Json], float | None]] = {
    "two replicas at work": (
        [*pod("a", "0+30x40", "2x40"), *pod("b", "0+15x40", "1x40"), *platform("2x40", "0x40")], 3.0,
    ),
    "what hangs counts, though nothing is answered": (
        [*pod("a", "7x40", "6x40"), *platform("1x40", "0x40")], 6.0,
    ),
    "nobody asks": ([*pod("a", "7x40", "0x40"), *platform("1x40", "0x40")], 0.0),
    "at zero nobody waits": (platform("0x40", "0x40"), 0.0),
    "at zero three wait": (platform("0x40", "3x40"), 3.0),
    "some wait beside those that are worked on": (
        [*pod("a", "0+30x40", "2x40"), *platform("1x40", "4x40")], 6.0,
    ),
    "ready replicas that are not scraped": (platform("2x40", "0x40"), None),
    "the platform is away": (pod("a", "0+30x40", "2x40"), 2.0),
    "nothing is known at all": ([], None),
    # Half a minute ago one pod took the other's place: two at once were never inside, nor are they counted.
    "a pod in the place of another": (
        [*pod("a", f"0+30x18 {ENDED}", f"2x18 {ENDED}"), *pod("b", "_x19 0+30x20", "_x19 2x20"),
         *platform("1x40", "0x40")], 2.0,
    ),
}  # fmt: skip


@pytest.mark.world
@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: tests/setup.sh")
def test_what_a_prometheus_answers(tmp_path: Path) -> None:
    wish = service(scale=keda(min=0, max=4))
    text = demand(wish, lanes(wish)[0], True)
    (tmp_path / "none.yml").write_text("groups: []\n")
    tests: list[Json] = []
    for name, (series, expected) in CASES.items():
        samples = [] if expected is None else [{"labels": "{}", "value": expected}]
        asked = {"expr": f"round({text}, 0.1)", "eval_time": "5m", "exp_samples": samples}
        tests.append({"interval": "15s", "name": name, "input_series": series + OTHERS, "promql_expr_test": [asked]})
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": ["none.yml"], "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
