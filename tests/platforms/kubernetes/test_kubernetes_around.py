"""What the cluster warns of, how many replicas fit, and which pods were taken from us: pure, without a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_stage import until

from leptonai.plan.render import Apis
from leptonai.platforms.kubernetes import pods
from leptonai.platforms.kubernetes.around import AGAIN, FRESH, Around
from leptonai.platforms.kubernetes.attend import Attendant
from leptonai.platforms.kubernetes.cluster import Of
from leptonai.platforms.kubernetes.mirror import Mirror
from leptonai.platforms.kubernetes.rights import role
from leptonai.platforms.kubernetes.room import room, slim
from leptonai.platforms.kubernetes.warned import maker, of_event, of_node
from leptonai.settings import Local
from leptonai.types import Replica, Resources

Json = dict[str, Any]

AT = "2026-11-21T17:00:00Z"
MINUTE = "2026-11-21T17:01:00.123456Z"


def event(reason: str, message: str, **more: Any) -> Json:
    about = {
        "metadata": {"name": "x", "creationTimestamp": AT},
        "type": "Warning",
        "reason": reason,
        "message": message,
    }
    return about | {"lastTimestamp": AT, "count": 3} | more


@pytest.mark.parametrize(
    ("reason", "message", "slug"),
    [
        ("FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu.", "unschedulable"),
        ("Failed", 'Failed to pull image "x:1": not found', "image_missing"),
        ("Failed", "Error: ErrImagePull", "image_missing"),
        ("BackOff", 'Back-off pulling image "x:1"', "image_missing"),
        ("ErrImageNeverPull", "Container image is not present with pull policy of Never", "image_missing"),
        ("BackOff", "Back-off restarting failed container", "crash_loop"),
        ("Evicted", "The node was low on resource: memory.", "evicted"),
        ("NodeNotReady", "Node is not ready", "node_not_ready"),
        ("Unhealthy", "Readiness probe failed", "unhealthy"),
        ("FailedCreate", "exceeded quota", "not_made"),
        ("SomethingNew", "nobody knows", "other"),
    ],
)
def test_what_an_event_means(reason: str, message: str, slug: str) -> None:
    found = of_event(event(reason, message))
    assert found is not None and (found.reason, found.times, found.at) == (slug, 3, pods.unix(AT))
    assert found.said == f"{reason}: {message}"
    assert of_event(event(reason, message, type="Normal")) is None
    assert of_event(event("Unhealthy", "Startup probe failed: connection refused")) is None, (
        "each pod's, while it starts"
    )


def test_newer_clusters_count_events_in_a_series() -> None:
    told = {"lastTimestamp": None, "count": None, "series": {"count": 9, "lastObservedTime": MINUTE}}
    found = of_event(event("Unhealthy", "x", **told))
    assert found is not None and found.times == 9 and found.at == pytest.approx(pods.unix(AT) + 60.123456)


@pytest.mark.parametrize(
    ("conditions", "spec", "troubles"),
    [
        ({"Ready": "True", "MemoryPressure": "False"}, {}, set()),
        ({"Ready": "Unknown"}, {}, {"node_not_ready"}),
        ({"Ready": "False", "DiskPressure": "True"}, {}, {"node_not_ready", "disk_pressure"}),
        ({"Ready": "True", "MemoryPressure": "Unknown"}, {}, set()),
        ({"Ready": "True", "PIDPressure": "True", "MemoryPressure": "True"}, {}, {"pid_pressure", "memory_pressure"}),
        ({"Ready": "True"}, {"unschedulable": True}, {"cordoned"}),
    ],
)
def test_what_is_wrong_with_a_node(conditions: dict[str, str], spec: Json, troubles: set[str]) -> None:
    told = [{"type": k, "status": v, "lastTransitionTime": AT, "message": "so"} for k, v in conditions.items()]
    assert of_node({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": told}}).keys() == troubles


def test_a_node_that_is_gone_is_told() -> None:
    assert of_node(None).keys() == {"node_gone"}


@pytest.mark.parametrize(
    ("kind", "name", "deployment"),
    [
        ("Pod", "a-b-main-12345678-68c45848bc-mqgf2", "a-b-main-12345678"),
        ("ReplicaSet", "a-b-main-12345678-68c45848bc", "a-b-main-12345678"),
        ("Deployment", "a-b-main-12345678", "a-b-main-12345678"),
        ("Service", "a", None),
    ],
)
def test_who_makes_what_an_event_is_about(kind: str, name: str, deployment: str | None) -> None:
    assert maker(kind, name) == deployment


def test_each_thing_is_told_once_and_who_is_told_to_end_is_not_told_to_be_unready() -> None:
    cluster: Any = None  # nobody is asked
    mirrors = {kind: Mirror(cluster, Of("v1", kind), 1.0, lambda before, after: None) for kind in ("Pod", "Deployment")}
    labels = {"leptonai.dev/service": "digits"}
    for name, more in (("a", {}), ("b", {"deletionTimestamp": AT})):
        mirrors["Pod"].told({"metadata": {"name": name, "labels": labels} | more, "spec": {"nodeName": "n1"}})
    mirrors["Deployment"].told({"metadata": {"name": "digits-main-1", "labels": labels}})
    told: list[Json] = []
    now = pods.unix(AT)
    around = Around(cluster, mirrors, 1.0, lambda kind, subject, detail: told.append(detail), lambda: now)

    def happens(kind: str, name: str, reason: str, message: str = "x") -> None:
        around._event(None, event(reason, message, involvedObject={"kind": kind, "name": name}))

    happens("Pod", "a", "Unhealthy")
    happens("Pod", "a", "Unhealthy")
    happens("Pod", "b", "Unhealthy")
    happens("Pod", "b", "Evicted")
    happens("Pod", "gone", "Evicted")
    happens("ReplicaSet", "digits-main-1-abc", "FailedCreate", "exceeded quota")
    found = [(d["service"], d["reason"], d.get("replica"), d.get("node")) for d in told]
    assert found == [
        ("digits", "unhealthy", "a", "n1"), ("digits", "evicted", "b", "n1"), ("digits", "not_made", None, None)
    ]  # fmt: skip
    now += AGAIN - 1.0
    happens("Pod", "a", "FailedScheduling")
    assert len(told) == 4, "another reason is another thing"
    now += FRESH
    happens("Pod", "a", "FailedMount")
    assert len(told) == 4, "what was said long ago is no news"


# --- room ------------------------------------------------------------------------------------------------------------


def node(name: str, ready: str = "True", taints: tuple[str, ...] = (), **allocatable: str) -> Json:
    return {
        "metadata": {"name": name},
        "spec": {"taints": [{"effect": effect} for effect in taints]},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"} | allocatable,
        },
    }


def pod(on: str | None, cpu: str = "0", memory: str = "0", phase: str = "Running", first: str = "0") -> Json:
    return {
        "metadata": {"name": "p", "namespace": "a"},
        "spec": {
            "nodeName": on,
            "containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}, {}],
            "initContainers": [{"resources": {"requests": {"cpu": first}}}],
        },
        "status": {"phase": phase},
    }


ONE = Resources(cpu=1.0, memory=1 << 30)


@pytest.mark.parametrize(
    ("wanted", "nodes", "here", "fits"),
    [
        (ONE, [node("n")], [], 4),
        (ONE, [node("n"), node("m", memory="2Gi")], [], 6),
        (ONE, [node("n")], [pod("n", cpu="2500m")], 1),
        (ONE, [node("n")], [pod("n", cpu="4")], 0),
        (ONE, [node("n")], [pod("n", cpu="5")], 0),
        (ONE, [node("n")], [pod("n", cpu="4", phase="Succeeded"), pod(None, cpu="4")], 4),
        (ONE, [node("n")], [pod("n", cpu="1", first="3")], 1),
        (ONE, [node("n", ready="Unknown")], [], 0),
        (ONE, [node("n", taints=("NoSchedule",))], [], 0),
        (ONE, [node("n", taints=("PreferNoSchedule",))], [], 4),
        (Resources(), [node("n")], [pod("n")] * 7, 3),
        (Resources(gpu=1), [node("n"), node("g", **{"nvidia.com/gpu": "2"})], [], 2),
        (ONE, [], [], 0),
    ],
)
def test_how_many_more_fit(wanted: Resources, nodes: list[Json], here: list[Json], fits: int) -> None:
    assert room(wanted, nodes, here) == fits
    assert room(wanted, nodes, [slim(p) for p in here]) == fits, "what is kept of others' pods is enough"


@given(st.lists(st.tuples(st.sampled_from("nm"), st.integers(0, 4000)), max_size=12), st.integers(1, 4000))
def test_who_comes_takes_room_and_never_makes_any(here: list[tuple[str, int]], ask: int) -> None:
    """With one pod more there is never more room, and as many as are said to fit do fit, one after another."""
    nodes, wanted = [node("n", pods="9999"), node("m", pods="9999")], Resources(cpu=ask / 1000)
    placed = [pod(on, cpu=f"{cpu}m") for on, cpu in here]
    fits = room(wanted, nodes, placed)
    for more in range(1, len(placed) + 1):
        assert room(wanted, nodes, placed[:-more]) >= fits
    free = {n: 4000 - sum(cpu for on, cpu in here if on == n) for n in "nm"}
    assert fits == sum(max(0, f) // ask for f in free.values())


# --- what was taken --------------------------------------------------------------------------------------------------


def told(state: Json, last: Json | None = None, told_to_end: bool = True, on: str = "n1", template: str = "t1") -> Json:
    meta = {"name": "x", "labels": {"pod-template-hash": template}}
    return {
        "metadata": meta | ({"deletionTimestamp": AT} if told_to_end else {}),
        "spec": {"nodeName": on},
        "status": {"containerStatuses": [{"state": state, "lastState": last or {}}]},
    }


LOST = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}


@pytest.mark.parametrize(
    ("pod", "over"),
    [
        (told({"running": {}}), False),
        (told({"terminated": {}}), True),
        (told({"terminated": {}}, told_to_end=False), False),
        # As a kubelet of 1.20 says of a container that it has removed before it told of its end.
        (told({"waiting": {"reason": "ContainerCreating"}}, LOST), True),
        (told({"waiting": {"reason": "ContainerCreating"}}), False),
        (told({"waiting": {"reason": "CrashLoopBackOff"}}, LOST, told_to_end=False), False),
    ],
)
def test_when_nothing_of_a_pod_runs_any_more(pod: Json, over: bool) -> None:
    assert pods.over(pod) == over


def test_a_pod_is_taken_unless_it_was_told_to_end_while_nobody_watched_or_never_had_a_node() -> None:
    running = told({"running": {}}, told_to_end=False)
    assert pods.taken(running, None), "somebody watched and it was not told to end"
    assert not pods.taken(told({}, told_to_end=False, on=""), None), "waiting for a node: it goes at once"
    assert not pods.taken(running, []), "nothing has come for it: there were to be fewer"
    assert not pods.taken(running, [told({}, template="t2")]), "another version has come for it"
    assert pods.taken(running, [told({}, template="t1")]), "its like has come for it"


def test_a_pod_that_answers_is_ready_whatever_a_kubelet_says_that_was_started_again(tmp_path: Path) -> None:
    """Only one that was ready, in the same container, and only while it answers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            status = b"200 OK" if b"/-/ready" in head else b"404 Not Found"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\n{}")

    async def story() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

        def replica(state: Any, reason: str = "") -> Replica:
            return Replica(
                id="x",
                service="digits",
                variant="main",
                digest="d",
                state=state,
                reason=reason,
                since=1.0,
                address=address,
            )

        def pod(container: str) -> Json:
            return {"status": {"containerStatuses": [{"containerID": container, "state": {}}]}}

        hung, ready = replica("failed", "hung"), replica("ready")
        cluster: Any = None  # nobody is asked: its log would be, once the container has begun
        attended = Attendant(cluster, "x", tmp_path, "secret", Local())
        try:
            attended.saw(pod("a"), hung)
            await until(lambda: attended.orders and attended.orders.answers)
            assert attended.as_it_answers(hung) is hung, "it was never ready"
            attended.saw(pod("a"), ready)
            attended.saw(pod("a"), hung)
            assert attended.as_it_answers(hung) is ready
            killed = replica("failed", "killed")
            assert attended.as_it_answers(killed) is killed
            attended.saw(pod("b"), hung)
            assert attended.as_it_answers(hung) is hung, "another container"
            attended.saw(pod("b"), ready)
            server.close()
            await attended.end()
            await until(lambda: attended.orders and not attended.orders.answers)
            assert attended.as_it_answers(hung) is hung, "it answers no more"
        finally:
            await attended.end()
            server.close()

    asyncio.run(story())


# --- rights ----------------------------------------------------------------------------------------------------------


def test_rights_of_the_whole_cluster_are_only_asked_for() -> None:
    """Nothing of the whole cluster unless wished; then to look at nodes, and at others' pods only for the room."""
    assert {o["kind"] for o in role(Apis.of("1.20"), "a", "me")} == {"ServiceAccount", "Role", "RoleBinding"}

    def rules(**wished: bool) -> list[tuple[str, tuple[str, ...]]]:
        made = next(o for o in role(Apis.of("1.20"), "a", "me", **wished) if o["kind"] == "ClusterRole")
        return [(r["resources"][0], tuple(r["verbs"])) for r in made["rules"]]

    assert rules(nodes=True) == [("nodes", ("list", "watch"))]
    assert rules(room=True) == [("nodes", ("list", "watch")), ("pods", ("list", "watch"))]
