"""What the Kubernetes platform decides, without a cluster: drift, order, owners, evictions, what pods mean."""

from __future__ import annotations

import copy
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from leptonai.errors import CapacityError, Conflict, Denied, LeptonError, PlatformError, SpecError
from leptonai.plan.render import Apis, Ground, names, render
from leptonai.platforms.kubernetes import pods
from leptonai.platforms.kubernetes.compare import drift
from leptonai.platforms.kubernetes.converge import foreign, moves, ours, theirs
from leptonai.platforms.kubernetes.evict import leaving, short
from leptonai.platforms.kubernetes.names import path, ref
from leptonai.platforms.kubernetes.refused import refusal
from leptonai.types import Batching, Dials, Resources, Rollout, Scale, Service, Slo, Spec, Variant, VariantDials

Json = dict[str, Any]

MODEL = "sha256:" + "ab" * 32
GROUND = Ground(
    Apis.of("1.20"), orders="leptonai-orders", own_gateway=True, prometheus="http://prometheus.monitoring:9090"
)
Owner = Literal["leptonai", "kubernetes", "keda"]


def wish(n: int = 2, model: str = MODEL, **spec: Any) -> Service:
    made = Spec(name="digits", variants=(Variant(model=model, resources=Resources(cpu=1.0, memory=1 << 28)),), **spec)
    return Service(spec=made, dials=Dials(variants={"main": VariantDials(replicas=n)}), revision=1)


def objects(service: Service) -> list[Json]:
    return render(service, GROUND).objects


def live(service: Service) -> dict[Any, Json]:
    """The cluster's copy: as wished, with what it adds by itself, and every Deployment rolled out."""
    made = {}
    for obj in json.loads(json.dumps(objects(service))):
        obj["metadata"] |= {"uid": f"uid-{obj['metadata']['name']}", "generation": 1, "resourceVersion": "7"}
        if obj["kind"] == "Deployment":
            n = obj["spec"].setdefault("replicas", 1)  # Kubernetes' own default
            container = obj["spec"]["template"]["spec"]["containers"][0]
            container["resources"]["limits"]["cpu"] = "1"  # of 1000m
            container["terminationMessagePath"] = "/dev/termination-log"
            obj["spec"]["revisionHistoryLimit"] = 10
            obj["status"] = {"observedGeneration": 1, "replicas": n, "updatedReplicas": n, "availableReplicas": n}
        if obj["kind"] == "Service":
            obj["spec"]["clusterIP"] = "10.96.0.7"
        made[ref(obj)] = obj
    return made


# --- drift -----------------------------------------------------------------------------------------------------------


def test_what_the_cluster_adds_is_no_drift() -> None:
    assert moves("digits", objects(wish()), live(wish()), ()) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "fields"),
    [
        ({"spec": {"replicas": 2}}, {"spec": {"replicas": 3}}, ["spec.replicas"]),
        ({"spec": {"cpu": "1000m"}}, {"spec": {"cpu": "1"}}, []),
        ({"spec": {"memory": "268435456"}}, {"spec": {"memory": "256Mi"}}, []),
        ({"spec": {"cpu": "1000m"}}, {"spec": {"cpu": "1001m"}}, ["spec.cpu"]),
        ({"spec": {"name": "main"}}, {"spec": {"name": "m"}}, ["spec.name"]),
        ({"spec": {"resources": {}, "flag": False}}, {"spec": {}}, []),
        ({"spec": {"ports": [{"port": 80}]}}, {"spec": {"ports": [{"port": 80, "nodePort": 3}]}}, []),
        ({"spec": {"ports": [{"port": 80}]}}, {"spec": {"ports": [{"port": 80}, {"port": 81}]}}, ["spec.ports"]),
        ({"spec": {"ports": [{"port": 80}]}}, {"spec": {"ports": [{"port": 81}]}}, ["spec.ports[0].port"]),
        ({"data": {"a": "x"}}, {}, ["data"]),
    ],
)
def test_drift_names_the_fields(mine: Json, theirs: Json, fields: list[str]) -> None:
    assert drift({"metadata": {}} | mine, {"metadata": {}} | theirs) == fields


def test_labels_of_others_are_theirs_and_ours_are_ours() -> None:
    mine = {"metadata": {"labels": {"a": "1"}}}
    assert drift(mine, {"metadata": {"labels": {"a": "1", "b": "2"}}}) == []
    assert drift(mine, {"metadata": {"labels": {"b": "2"}}}) == ["metadata.labels.a"]


@given(st.sampled_from(range(len(objects(wish())))), st.data())
def test_any_field_of_ours_that_somebody_changes_is_set_back(at: int, data: st.DataObject) -> None:
    """Whatever leaf of whatever object is changed: exactly that object is applied again, naming that leaf."""
    here = live(wish())
    obj = here[ref(objects(wish())[at])]
    leaves = list(
        _leaves({k: v for k, v in objects(wish())[at].items() if k not in ("apiVersion", "kind", "metadata")})
    )
    if not leaves:
        return
    where = data.draw(st.sampled_from(leaves))
    inside: Any = obj
    for step in where[:-1]:
        inside = inside[step]
    inside[where[-1]] = "somebody's"
    found = moves("digits", objects(wish()), here, ())
    assert [(m.verb, m.ref) for m in found] == [("change", ref(obj))]
    assert len(found[0].fields) == 1


def _leaves(value: Any, at: tuple[Any, ...] = ()) -> Any:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*at, key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*at, number))
    elif value not in ({}, [], "", None, False, 0):
        yield at


# --- order and pruning -----------------------------------------------------------------------------------------------


def test_a_fresh_service_is_made_in_the_order_of_its_rendering() -> None:
    found = moves("digits", objects(wish()), {}, ())
    assert [m.verb for m in found] == ["create"] * len(objects(wish()))
    assert [m.ref for m in found] == [ref(o) for o in objects(wish())]


def test_an_old_config_goes_once_no_pod_reads_it() -> None:
    other = "sha256:" + "cd" * 32
    here = live(wish(model=other))
    old = next(at for at in live(wish()) if at.kind == "ConfigMap")
    here[old] = live(wish())[old]
    assert moves("digits", objects(wish(model=other)), here, {old.name}) == []
    assert [(m.verb, m.ref) for m in moves("digits", objects(wish(model=other)), here, ())] == [("delete", old)]
    deployment = next(o for at, o in here.items() if at.kind == "Deployment")
    deployment["status"]["updatedReplicas"] = 1
    assert moves("digits", objects(wish(model=other)), here, ()) == [], "it is being rolled"


def test_nothing_is_left_of_what_nobody_wishes() -> None:
    found = moves("digits", [], live(wish()), ())
    assert {m.verb for m in found} == {"delete"} and {m.ref for m in found} == set(live(wish()))
    kinds = [m.ref.kind for m in found]
    assert kinds.index("Deployment") < kinds.index("Service") < kinds.index("ConfigMap")


def test_a_rejected_version_goes_at_once_another_old_lane_when_the_rest_serves() -> None:
    here = live(wish())
    deployment = next(at for at in here if at.kind == "Deployment")
    stray = copy.deepcopy(here[deployment])
    stray["metadata"]["name"] = "digits-main-new-00000000"
    stray["metadata"]["labels"] |= {f"{names.OWN}/digest": "bad", f"{names.OWN}/lane": "main-new"}
    here[ref(stray)] = stray
    here[deployment]["status"]["availableReplicas"] = 1
    assert moves("digits", objects(wish()), here, ()) == []
    assert [m.ref for m in moves("digits", objects(wish()), here, (), ("bad",))] == [ref(stray)]
    here[deployment]["status"]["availableReplicas"] = 2
    assert [m.ref for m in moves("digits", objects(wish()), here, ())] == [ref(stray)]


@pytest.mark.parametrize(("before", "after"), [("kubernetes", "keda"), ("keda", "kubernetes"), ("keda", "leptonai")])
def test_who_set_the_replicas_lets_go_before_another_does(before: Owner, after: Owner) -> None:
    """KEDA refuses a Deployment that another autoscaler has, and we would fight one over replicas."""
    there, wished = owned(before), owned(after)
    scaler = next(at for at in live(there) if at.kind in ("HorizontalPodAutoscaler", "ScaledObject"))
    here = live(there)
    next(o for at, o in here.items() if at.kind == "Deployment")["status"]["availableReplicas"] = 0  # whatever it does
    first, *rest = moves("digits", objects(wished), here, ())
    assert (first.verb, first.ref) == ("delete", scaler)
    assert "delete" not in [m.verb for m in rest]
    assert [m.ref.kind for m in rest if m.verb == "create"] == {
        "keda": ["ScaledObject"], "kubernetes": ["HorizontalPodAutoscaler"], "leptonai": [],
    }[after]  # fmt: skip
    if after != "leptonai":
        assert "Deployment" not in [m.ref.kind for m in rest], "replicas that somebody else sets are no drift"


def test_replicas_that_another_sets_are_left_as_they_are() -> None:
    service = owned("keda")
    here = live(service)
    next(o for at, o in here.items() if at.kind == "Deployment")["spec"]["replicas"] = 7
    assert moves("digits", objects(service), here, ()) == []


@pytest.mark.parametrize(("owner", "expected"), [("leptonai", {}), ("kubernetes", {"main": 7}), ("keda", {"main": 7})])
def test_how_many_an_owner_wants_is_what_its_deployment_says(owner: Owner, expected: dict[str, int]) -> None:
    deployments = {at.name: o for at, o in live(owned(owner)).items() if at.kind == "Deployment"}
    assert theirs(owned(owner), {}) == {}, "it is not there yet"
    (deployment,) = deployments.values()
    deployment["spec"]["replicas"] = 7
    assert theirs(owned(owner), deployments) == expected


def owned(owner: Owner) -> Service:
    return wish(scale=Scale(owner=owner, min=1, max=9, replicas=2))


def test_other_batching_makes_no_other_pods() -> None:
    """What a running replica can be told is no reason to replace it; the model is."""
    other = wish(slo=Slo(latency=0.7), timeout=9.0)
    variant = replace(other.spec.variants[0], batching=Batching(max_size=3))
    other = replace(other, spec=replace(other.spec, variants=(variant,)))
    assert [(m.verb, m.ref.kind) for m in moves("digits", objects(other), live(wish()), ())] == [
        ("change", "ConfigMap")
    ]
    changed = moves("digits", objects(wish(model="sha256:" + "cd" * 32)), live(wish()), ())
    assert ("change", "Deployment") in [(m.verb, m.ref.kind) for m in changed]


# --- owners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "whose"),
    [
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {"meta.helm.sh/release-name": "shop"}},
         "Helm release shop, Helm"),
        ({"ownerReferences": [{"kind": "Rollout", "name": "digits"}]}, "Rollout digits"),
        ({"managedFields": [{"manager": "kubectl-client-side-apply"}]}, "kubectl-client-side-apply"),
        ({"labels": {"app.kubernetes.io/managed-by": "leptonai", "leptonai.dev/workspace": "a",
                     "leptonai.dev/service": "b"}}, "leptonai's service a/b"),
        ({}, "somebody else"),
    ],
)  # fmt: skip
def test_an_object_of_somebody_else_is_refused_and_says_whose(meta: Json, whose: str) -> None:
    obj = {"kind": "Service", "metadata": {"name": "digits"} | meta}
    assert not ours("digits", obj)
    error = foreign("digits", obj, "shop")
    assert error.code == "foreign_owner" and error.detail["owner"] == whose
    assert "Service/digits" in error.message and whose in error.message and error.hint


def test_ours_is_what_carries_all_of_our_labels() -> None:
    assert all(ours("digits", obj) for obj in objects(wish()))
    assert not any(ours("team/digits", obj) for obj in objects(wish()))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "kind", "code", "said"),
    [
        (401, "Unauthorized", Denied, "unauthorized", "expired"),
        (403, 'deployments.apps "x" is forbidden: User "system:serviceaccount:a:b" cannot patch resource "deployments"'
         ' in API group "apps" in the namespace "a"', Denied, "rbac", "may not patch deployments.apps"),
        (403, 'pods "x" is forbidden: exceeded quota: small, requested: pods=1', CapacityError, "quota", "quota"),
        (403, 'admission webhook "no.latest" denied the request', Denied, "refused", "no.latest"),
        (409, 'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas', Conflict,
         "conflict", "kubectl"),
        (422, "spec.selector: Invalid value: {}: field is immutable", SpecError, "immutable", "immutable"),
        (422, "spec.replicas: Invalid value: -1", SpecError, "invalid", "-1"),
        (500, "etcdserver: request timed out", PlatformError, "api_server", "etcdserver"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_missing(
    status: int, message: str, kind: type[LeptonError], code: str, said: str
) -> None:
    error = refusal(status, {"message": message}, "apply Deployment/x", "https://c:6443")
    assert type(error) is kind and error.code == code and error.hint
    assert said in error.message + error.hint
    if code == "conflict":
        assert error.detail["managers"] == ("kubectl",)


def test_paths_are_those_of_the_api() -> None:
    assert path("v1", "Pod", "a", "x") == "/api/v1/namespaces/a/pods/x"
    assert (
        path("networking.k8s.io/v1", "NetworkPolicy", "a") == "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies"
    )


# --- pods ------------------------------------------------------------------------------------------------------------

BORN, BEGUN, LATER = "2026-11-21T17:00:00Z", "2026-11-21T17:00:02Z", "2026-11-21T17:01:00Z"
NOW = pods.unix(LATER) + 100.0


def pod(state: Json | None = None, *, ready: str = "False", changed: str = BORN, **status: Any) -> Json:
    container = {"state": state, "restartCount": status.pop("restarts", 0), "lastState": status.pop("last", {})}
    container["started"] = status.pop("started", False)
    meta = _template()
    return {
        "metadata": {"name": "digits-1", "creationTimestamp": BORN, **copy.deepcopy(meta), **status.pop("meta", {})},
        "status": {
            "phase": status.pop("phase", "Running"),
            "podIP": "10.244.0.9",
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": changed}],
            "containerStatuses": [container] if state is not None else [],
            **status,
        },
    }


def _template() -> Json:
    return next(o for o in objects(wish()) if o["kind"] == "Deployment")["spec"]["template"]["metadata"]


RUNNING = {"running": {"startedAt": BEGUN}}
SAID = "2026-11-21T17:00:00 error no weights\n"
TERMINATED = {
    "exitCode": 8,
    "reason": "Error",
    "finishedAt": LATER,
    "message": "a\n2026-11-21T17:00:00 error no weights\n",
}


@pytest.mark.parametrize(
    ("seen", "state", "reason", "detail"),
    [
        (pod(RUNNING, ready="True", started=True, changed=LATER), "ready", "", ""),
        (pod(RUNNING), "starting", "loading", ""),
        (pod(RUNNING, started=True, changed=BORN), "starting", "loading", ""),
        (pod(RUNNING, started=True, changed=LATER), "failed", "hung", "readiness"),
        (pod({"waiting": {"reason": "ContainerCreating"}}), "starting", "creating", ""),
        (pod({"waiting": {"reason": "ErrImageNeverPull", "message": "no x"}}), "failed", "image_missing", "no x"),
        (pod({"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}), "failed", "start_failed",
         "no secret"),
        (pod({"waiting": {"reason": "CrashLoopBackOff"}}, last={"terminated": TERMINATED}), "failed", "load_failed",
         "no weights"),
        (pod({"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": LATER}}), "failed", "oom", "mem"),
        (pod({"terminated": {"exitCode": 137, "reason": "Error", "finishedAt": LATER}}), "failed", "killed", "nal 9"),
        (pod({"terminated": {"exitCode": 3, "reason": "Error", "finishedAt": LATER}}), "failed", "exited", "code 3"),
        (pod(RUNNING, ready="True", meta={"deletionTimestamp": LATER}), "stopping", "replaced", ""),
        (pod(RUNNING, ready="True", meta={"deletionTimestamp": LATER, "deletionGracePeriodSeconds": 0}), "failed",
         "killed", "without grace"),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), "failed", "evicted", "low on memory"),
        (pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes fit"}]),
         "starting", "unschedulable", "0/1 nodes fit"),
    ],
)  # fmt: skip
def test_what_a_pod_is_as_a_replica(seen: Json, state: str, reason: str, detail: str) -> None:
    found = pods.replica(seen, 10.0, NOW)
    assert (found.state, found.reason) == (state, reason) and detail in found.detail
    assert found.service == "digits" and found.variant == "main" and found.since > 0
    assert found.digest == wish().spec.variants[0].digest and found.address == "10.244.0.9:8080"


def test_a_pod_whose_container_has_ended_is_over_once_it_was_told_to_end() -> None:
    ended = {"terminated": {"exitCode": 0, "finishedAt": LATER}}
    told = {"deletionTimestamp": LATER}
    assert pods.over(pod(ended, meta=told))
    assert pods.over(pod(ended, meta=told | {"deletionGracePeriodSeconds": 0})), "the kubelet's last word, no kill"
    assert not pods.over(pod(ended)) and not pods.over(pod(RUNNING, meta=told)) and not pods.over(pod(meta=told))


def test_restarts_are_attempts_until_it_has_been_ready_for_a_while() -> None:
    seen = pod(RUNNING, ready="True", started=True, changed=LATER, restarts=3)
    assert pods.replica(seen, 10.0, pods.unix(LATER) + 9.0).attempt == 3
    assert pods.replica(seen, 10.0, pods.unix(LATER) + 10.0).attempt == 0


def test_a_quota_that_keeps_pods_from_being_made_is_seen_as_a_failed_replica() -> None:
    deployment = next(o for o in live(wish()).values() if o["kind"] == "Deployment")
    assert pods.refused(deployment) is None
    deployment["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": LATER, "message": "exceeded quota: small"}
    ]
    found = pods.refused(deployment)
    assert found is not None and (found.state, found.reason) == ("failed", "quota") and "small" in found.detail


# --- evictions -------------------------------------------------------------------------------------------------------


def members(*ready: bool, evicted: tuple[int, ...] = ()) -> list[Json]:
    made = []
    for number, yes in enumerate(ready):
        one = pod(RUNNING, ready="True" if yes else "False", started=True)
        one["metadata"]["name"] = f"digits-{number}"
        one["metadata"]["labels"][names.EVICTED] = "yes" if number in evicted else "no"
        made.append(one)
    return made


def test_an_evicted_pod_serves_until_enough_others_do() -> None:
    service = wish(2)
    asked = replace(service, dials=replace(service.dials, evict=("digits-0",)))
    first = leaving(asked, members(True, True))
    assert [p["metadata"]["name"] for p in first.release] == ["digits-0"] and first.end == []
    assert leaving(service, members(True, True, False, evicted=(0,))).end == []
    done = leaving(service, members(True, True, True, evicted=(0,))).end
    assert [(p["metadata"]["name"], grace) for p, grace in done] == [("digits-0", None)]


def test_of_pods_whose_number_an_autoscaler_sets_none_ends_before_so_many_others_serve() -> None:
    """The dial of such a service stays at what it began with."""
    service, pods = wish(1), members(True, True, True, False, evicted=(0,))
    assert [p["metadata"]["name"] for p, _ in leaving(service, pods, {"main": 2}).end] == ["digits-0"]
    assert leaving(service, pods, {"main": 3}).end == []
    assert short(service, pods, {"main": 4}) and not short(service, pods, {"main": 3})


def test_an_evicted_pod_that_does_not_answer_goes_at_once() -> None:
    done = leaving(wish(2), members(False, True, evicted=(0,))).end
    assert [(p["metadata"]["name"], grace) for p, grace in done] == [("digits-0", 1)]


def test_a_start_timeout_is_the_startup_probe() -> None:
    made = next(o for o in objects(wish(rollout=Rollout(start_timeout=7.0))) if o["kind"] == "Deployment")
    assert made["spec"]["template"]["spec"]["containers"][0]["startupProbe"]["failureThreshold"] == 7
