"""What a service is on Kubernetes: valid objects, legal names, selectors for ever, nothing claimed in vain."""

import itertools
import math
import re

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from render_stage import VERSIONS, by_kind, check, ground, model, possible, service, services, specs

from leptonai.errors import LeptonError, PlatformError, SpecError
from leptonai.plan.lanes import lanes
from leptonai.plan.render import Apis, render, to_yaml
from leptonai.plan.render.control import Seat, control
from leptonai.plan.render.names import lane_name
from leptonai.plan.render.weights import parts, weighed
from leptonai.types import (
    Auto,
    Balance,
    Canary,
    Dials,
    Fallback,
    Launch,
    Outlier,
    Resources,
    Retry,
    Scale,
    Service,
    Variant,
    VariantDials,
)

DNS = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
ORDER = [
    "ServiceAccount", "NetworkPolicy", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget",
    "HorizontalPodAutoscaler", "ScaledObject", "DestinationRule", "VirtualService", "HTTPRoute",
]  # fmt: skip
fewer = settings(max_examples=25, suppress_health_check=list(HealthCheck))
TRAFFIC = st.sampled_from(["service", "gateway", "istio"])


def canary(weight: float = 0.05, mirror: float = 0.0) -> Service:
    new, old = Variant(model=model("b")), Variant(model=model("a"))
    dials = Dials(variants={"main": VariantDials(replicas=4, epoch=2)})
    return service(
        variants=(new,), dials=dials, revision=5,
        canary=Canary(stable=(old,), revision=4, replicas=1, weight=weight, mirror=mirror),
    )  # fmt: skip


@fewer
@given(services(), st.sampled_from(VERSIONS), TRAFFIC)
def test_a_wish_that_cannot_be_is_refused_by_a_sentence(wish, version, traffic):
    try:
        render(wish, ground(version, traffic=traffic))
    except LeptonError as e:
        assert e.message and e.hint and e.exit_code in (2, 6)


@fewer
@given(possible())
def test_a_wish_is_made_of_valid_objects_in_the_order_to_apply_them(asked):
    wish, cluster = asked
    made = render(wish, cluster).objects
    for one in made:
        check(one, f"1.{cluster.apis.minor}")
        assert DNS.fullmatch(one["metadata"]["name"])
        assert all(LABEL.fullmatch(v) for v in one["metadata"]["labels"].values())
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "leptonai"
    places = [ORDER.index(o["kind"]) for o in made]
    assert places == sorted(places)
    identities = [(o["kind"], o["metadata"]["name"]) for o in made]
    assert len(set(identities)) == len(identities)


def test_no_service_stands_where_the_platform_has_its_own_address():
    """Every Service that the platform makes of itself is a name that no service may have, and only those."""
    seat = Seat("models")
    own = [o["metadata"]["name"] for o in by_kind(control(seat, {}, "leptonai", Apis.of("1.28")), "Service")]
    assert sorted(own) == ["leptonai-control", "leptonai-gateway"]
    for name, namespace in (*((name, "models") for name in own), ("kubernetes", "default")):
        with pytest.raises(SpecError, match=f"name: '{name}' would be called by Service/{name}") as refused:
            render(service(name=name), ground("1.28")._replace(namespace=namespace))
        assert refused.value.exit_code == 2 and refused.value.hint
        assert render(service(name=name, workspace="team"), ground("1.28")._replace(namespace=namespace)).objects
    assert render(service(name="kubernetes"), ground("1.28")._replace(namespace="models")).objects


@fewer
@given(possible())
def test_what_is_named_is_there(asked):
    """Every ServiceAccount, ConfigMap, Deployment and Service that an object names is among the objects."""
    made = render(*asked).objects
    there = {(o["kind"], o["metadata"]["name"]) for o in made}
    for deployment in by_kind(made, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert ("ServiceAccount", pod["serviceAccountName"]) in there
        assert ("ConfigMap", pod["volumes"][2]["configMap"]["name"]) in there
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for scaler in (*by_kind(made, "HorizontalPodAutoscaler"), *by_kind(made, "ScaledObject")):
        assert ("Deployment", scaler["spec"]["scaleTargetRef"]["name"]) in there
    for route in by_kind(made, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert all(("Service", b["name"]) in there for b in rule["backendRefs"])
            assert sum(b["weight"] for b in rule["backendRefs"]) == 10_000
    for mesh in by_kind(made, "VirtualService"):
        routes = mesh["spec"]["http"][0]["route"]
        assert all(("Service", r["destination"]["host"].split(".")[0]) in there for r in routes)
        assert sum(r["weight"] for r in routes) == 100


@fewer
@given(possible("digits"), possible("digits"))
def test_no_change_of_a_wish_changes_the_selector_of_a_deployment(before, after):
    """Whatever becomes of the spec: a Deployment of one name has one selector."""
    (old, cluster), (new, _) = before, after
    renamed = tuple(
        msgspec.structs.replace(v, name=o.name, resources=Resources(cpu=1.0))
        for v, o in zip(new.spec.variants, old.spec.variants, strict=False)
    )
    spec = msgspec.structs.replace(new.spec, workspace=old.spec.workspace, variants=renamed)
    changed = msgspec.structs.replace(new, spec=spec, dials=Dials(), canary=None)
    cluster = cluster._replace(traffic="gateway", apis=Apis.of("1.28"))
    met = 0
    selectors: dict[str, object] = {}
    for wish in (old, changed):
        for one in by_kind(render(wish, cluster).objects, "Deployment"):
            met += one["metadata"]["name"] in selectors
            known = selectors.setdefault(one["metadata"]["name"], one["spec"]["selector"])
            assert known == one["spec"]["selector"]
    assert met


@fewer
@given(possible())
def test_equal_wishes_give_equal_bytes_that_read_back_as_they_were(asked):
    wish, cluster = asked
    again = msgspec.json.decode(msgspec.json.encode(wish), type=Service)
    made = render(wish, cluster).objects
    text = to_yaml(made)
    assert text == to_yaml(render(again, cluster).objects)
    assert list(yaml.safe_load_all(text)) == made


@pytest.mark.parametrize(
    "text", ["1e3", "0o7", "012", "y", "On", "null", "~", "1_000", "0x1f", "2001-01-01", "", "1:30"]
)
def test_what_another_reader_could_take_for_a_number_is_quoted(text):
    assert to_yaml([{"a": text}]) == f'---\na: "{text}"\n'


def test_a_break_is_seen():
    """The schemas are strict: an unknown field and a wrong type are refused."""
    (made,) = by_kind(render(service(), ground()).objects, "Deployment")
    made["spec"]["template"]["spec"]["surprise"] = 1
    for version in VERSIONS[1:]:
        with pytest.raises(jsonschema.ValidationError, match="surprise"):
            check(made, version)


@fewer
@given(specs(), specs())
def test_names_of_different_lanes_differ(one, other):
    found = {(s.key, v.name) for s in (one, other) for v in s.variants}
    assert len({lane_name(*pair) for pair in found}) == len(found)


def test_dashes_do_not_make_two_lanes_one():
    pairs = [
        ("a-b", "main"),
        ("a", "b-main"),
        ("a/b", "main"),
        ("a-b-main", "x"),
        ("a" * 40, "b" * 40),
        ("a" * 40, "c"),
    ]
    names = [lane_name(*pair) for pair in pairs]
    assert len(set(names)) == len(names) and max(map(len, names)) <= 46


@pytest.mark.parametrize("drain", [0.0, 0.2, 30.0, 3600.0])
def test_a_pod_has_time_to_leave_and_to_drain(drain):
    (made,) = by_kind(render(service(drain=drain), ground()).objects, "Deployment")
    pod = made["spec"]["template"]["spec"]
    said = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    leave = int(re.search(r"sleep\((\d+)\)", said)[1])
    assert leave > 0 and pod["terminationGracePeriodSeconds"] >= leave + math.ceil(drain)


def test_a_pod_has_no_right_it_does_not_need():
    made = render(service(), ground()).objects
    (deployment,) = by_kind(made, "Deployment")
    (account,) = by_kind(made, "ServiceAccount")
    pod = deployment["spec"]["template"]["spec"]
    own = pod["containers"][0]["securityContext"]
    assert account["automountServiceAccountToken"] is pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert own["privileged"] is own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all("hostPath" not in v for v in pod["volumes"])


def template(wish: Service) -> object:
    return by_kind(render(wish, ground()).objects, "Deployment")[0]["spec"]["template"]


def test_what_restarts_pods_and_what_does_not():
    base = service()
    assert template(msgspec.structs.replace(base, revision=7)) == template(base)  # another bound of the scale, say
    dialled = Dials(variants={"main": VariantDials(replicas=9)})
    assert template(msgspec.structs.replace(base, dials=dialled)) == template(base)
    restart = Dials(variants={"main": VariantDials(epoch=1)})
    assert template(msgspec.structs.replace(base, dials=restart)) != template(base)
    assert template(service(variants=(Variant(model=model("b")),))) != template(base)
    assert template(service(timeout=9.0)) != template(base)  # the runtime reads it when it starts


def test_the_container_sees_the_variant_s_environment_as_it_was_written():
    """Kubernetes reads $$ as $ and $(NAME) as a variable; nothing of ours can be overridden."""
    env = {"PRICE": "5$ $(HOME) $$", "LEPTONAI_REPLICA": "forged"}
    (made,) = by_kind(render(service(variants=(Variant(model=model(), env=env),)), ground()).objects, "Deployment")
    found = {e["name"]: e for e in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert found["PRICE"]["value"] == "5$$ $$(HOME) $$$$"
    assert found["LEPTONAI_REPLICA"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_the_orders_of_a_replica_are_a_launch():
    made = by_kind(render(service(), ground()).objects, "ConfigMap")[0]
    launch = msgspec.json.decode(made["data"]["launch.json"], type=Launch)
    assert (launch.replica, launch.socket, launch.artifact) == ("", "0.0.0.0:8080", "/models/" + "a" * 64)


def test_replicas_belong_to_their_owner():
    ours = by_kind(render(service(), ground()).objects, "Deployment")[0]
    assert ours["spec"]["replicas"] == 1
    scale = Scale(min=2, max=5, replicas=2, owner="kubernetes", auto=Auto(hold=60.0))
    wish = service(scale=scale, resources=Resources(cpu=1.5))
    for version, api in (("1.20", "autoscaling/v2beta2"), ("1.23", "autoscaling/v2"), ("1.28", "autoscaling/v2")):
        made = render(wish, ground(version)).objects
        (scaler,) = by_kind(made, "HorizontalPodAutoscaler")
        assert "replicas" not in by_kind(made, "Deployment")[0]["spec"]
        assert scaler["apiVersion"] == api
        assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 5)
        assert scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 60
    with pytest.raises(SpecError, match=r"no resources\.cpu"):
        render(service(scale=scale), ground())


@pytest.mark.parametrize(
    ("version", "api"), [("1.20", "policy/v1beta1"), ("v1.21.3", "policy/v1"), ("1.31+", "policy/v1")]
)
def test_versions_of_apis(version, api):
    assert Apis.of(version).version("PodDisruptionBudget") == api


def test_discovery_decides_over_the_number_of_the_version():
    apis = Apis.served("1.30", {"policy/v1", "networking.istio.io/v1", "networking.istio.io/v1beta1"})
    assert apis.version("VirtualService") == "networking.istio.io/v1"
    with pytest.raises(PlatformError, match="serves no HTTPRoute"):
        render(service(), ground()._replace(apis=apis, traffic="gateway"))
    with pytest.raises(PlatformError, match="serves no PodDisruptionBudget"):
        render(service(), ground()._replace(apis=Apis.served("1.30", set())))


@pytest.mark.parametrize("version", ["1.19", "2.0", "", "1.x", "latest"])
def test_no_cluster_of_that_version(version):
    with pytest.raises((PlatformError, SpecError)):
        Apis.of(version)


def test_a_canary_is_a_lane_of_its_own():
    made = render(canary(), ground(traffic="istio")).objects
    old, new = by_kind(made, "Deployment")
    assert old["spec"]["replicas"] == 4 and new["spec"]["replicas"] == 1
    assert old["spec"]["selector"] != new["spec"]["selector"]
    assert [d["metadata"]["annotations"]["leptonai.dev/revision"] for d in (old, new)] == ["4", "5"]
    (mesh,) = by_kind(made, "VirtualService")
    assert [r["weight"] for r in mesh["spec"]["http"][0]["route"]] == [95, 5]
    route = by_kind(render(canary(0.0001), ground(traffic="gateway")).objects, "HTTPRoute")[0]
    assert [b["weight"] for b in route["spec"]["rules"][0]["backendRefs"]] == [9999, 1]
    with pytest.raises(SpecError, match="whole parts of 100"):
        render(canary(0.001), ground(traffic="istio"))


def test_the_old_version_alone_answers_behind_a_plain_service_until_it_is_asked_to_share():
    front = by_kind(render(canary(0.0), ground()).objects, "Service")[-1]
    assert front["metadata"]["name"] == "digits" and front["spec"]["selector"]["leptonai.dev/lane"] == "main"
    front = by_kind(render(canary(1.0), ground()).objects, "Service")[-1]
    assert front["spec"]["selector"]["leptonai.dev/lane"] == "main-new"
    for wish in (canary(0.5), canary(0.0, mirror=1.0)):
        with pytest.raises(PlatformError, match="plain Service cannot"):
            render(wish, ground())


def test_copies():
    mesh = by_kind(render(canary(0.0, 0.125), ground(traffic="istio")).objects, "VirtualService")[0]
    assert mesh["spec"]["http"][0]["mirrorPercentage"] == {"value": 12.5}
    route = by_kind(render(canary(0.0, 0.125), ground(traffic="gateway")).objects, "HTTPRoute")[0]
    copied = route["spec"]["rules"][0]["filters"][0]["requestMirror"]
    assert copied["fraction"] == {"numerator": 125_000, "denominator": 1_000_000}
    with pytest.raises(PlatformError, match="all requests or none"):
        render(canary(0.0, 0.5), ground("1.20", traffic="gateway"))


def test_the_paths_are_those_of_our_own_gateway():
    rules = by_kind(render(service(workspace="team"), ground(traffic="gateway")).objects, "HTTPRoute")[0]["spec"][
        "rules"
    ]
    assert [r["matches"][0]["path"]["value"] for r in rules] == [
        "/workspaces/team/v2/models/digits", "/workspaces/team/services/digits",
    ]  # fmt: skip
    assert rules[0]["filters"][-1]["urlRewrite"]["path"]["replacePrefixMatch"] == "/v2/models/digits"
    with pytest.raises(PlatformError, match="may not rewrite"):
        render(service(workspace="team"), ground("1.20", traffic="gateway"))
    with pytest.raises(SpecError, match="name of a Gateway"):
        render(service(), ground(traffic="gateway", gateway=""))


def test_balance_ejection_and_repetition_in_a_mesh():
    wish = service(
        variants=(Variant(model=model(), idempotent=True),),
        balance=Balance(policy="maglev", hash_on=("cookie:c",)), outlier=Outlier(errors=3, max_share=0.25),
        retry=Retry(attempts=2), timeout=1.5,
    )  # fmt: skip
    made = render(wish, ground(traffic="istio")).objects
    policy = by_kind(made, "DestinationRule")[0]["spec"]["trafficPolicy"]
    assert policy["loadBalancer"] == {"consistentHash": {"httpCookie": {"name": "c", "ttl": "0s"}, "maglev": {}}}
    assert policy["outlierDetection"]["consecutive5xxErrors"] == 3
    assert policy["outlierDetection"]["maxEjectionPercent"] == 25
    rule = by_kind(made, "VirtualService")[0]["spec"]["http"][0]
    assert rule["timeout"] == "1.5s"
    assert rule["retries"] == {"attempts": 2, "retryOn": "connect-failure,refused-stream,reset,503"}
    with pytest.raises(PlatformError, match="maglev"):
        render(wish, ground("1.20", traffic="istio"))
    careful = by_kind(render(service(), ground(traffic="istio")).objects, "VirtualService")[0]["spec"]["http"][0]
    assert careful["retries"]["retryOn"] == "connect-failure,refused-stream"


def test_who_may_call():
    policy = by_kind(render(service(), ground(callers=("web", "infra"))).objects, "NetworkPolicy")[0]["spec"]
    named = [s["namespaceSelector"]["matchLabels"] for s in policy["ingress"][0]["from"][1:]]
    assert named == [{"kubernetes.io/metadata.name": n} for n in ("infra", "web")]
    with pytest.raises(PlatformError, match=r"needs Kubernetes 1\.21"):
        render(service(), ground("1.20", callers=("web",)))
    with pytest.raises(SpecError, match="no name of a namespace"):
        render(service(), ground(callers=("Web!",)))


@pytest.mark.parametrize(
    ("template", "said"), [("a/{b}:1", "no field {b}"), ("A B", "no name of an image"), ("x:{model}}", "no name of")]
)
def test_images_that_cannot_be(template, said):
    with pytest.raises(SpecError, match=re.escape(said)):
        render(service(), ground(image=template))


def test_a_model_without_a_digest_and_a_wish_without_weight():
    with pytest.raises(SpecError, match="no artifact"):
        render(service(variants=(Variant(model="/srv/m.onnx"),)), ground())
    with pytest.raises(SpecError, match="weight above 0"):
        render(service(dials=Dials(variants={"main": VariantDials(weight=0.0)})), ground())


def test_what_does_not_hold_is_told():
    assert render(service(), ground()).lost == []
    told = render(service(fallback=Fallback(), outlier=Outlier(), scale=Scale(idle=60.0)), ground()).lost
    assert [t.split(":")[0] for t in told] == ["fallback", "scale.idle", "outlier"]
    assert [t.split(":")[0] for t in render(service(outlier=Outlier()), ground(traffic="istio")).lost] == []


@given(st.lists(st.floats(0.02, 1.0), min_size=1, max_size=3), st.sampled_from([100, 10_000]))
def test_parts_add_up_and_none_is_off_by_one(weights, total):
    variants = tuple(Variant(name=f"v{i}", model=model()) for i in range(len(weights)))
    dials = Dials(variants={v.name: VariantDials(weight=w) for v, w in zip(variants, weights, strict=True)})
    wish = service(variants=variants, dials=dials)
    found = (
        [part for _, part in parts(weighed(lanes(wish), wish.key), total)] if min(weights) / sum(weights) > 0.01 else []
    )
    if found:
        assert sum(found) == total
        assert all(abs(p - total * w / sum(weights)) < 1 for p, w in itertools.zip_longest(found, weights))
