"""What befalls real pods and nodes reaches the audit log in the words of the cluster, as far as rights go."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_stage import KUBECONFIG, Namespace, image, kubectl, needs_cluster, token, until

from leptonai.plan.render import Apis, Ground, render, to_yaml
from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.platforms.kubernetes.rights import role
from leptonai.settings import Gateway, Kubernetes, Local, Settings
from leptonai.types import Dials, Fault, Resources, Service, Spec, Variant, VariantDials

pytestmark = [needs_cluster, pytest.mark.world, pytest.mark.timeout(300)]

Told = list[tuple[str, dict[str, Any]]]
NOWHERE = "localhost/none:1"


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"warned-{secrets.token_hex(4)}")
    yield made
    made.delete()


def wish(model: str = "sha256:" + "0" * 64, **resources: Any) -> Service:
    variant = Variant(model=model, resources=Resources(**resources))
    dials = Dials(variants={"main": VariantDials(replicas=1)})
    return Service(spec=Spec(name="digits", variants=(variant,)), dials=dials, revision=1)


def play(
    space: Namespace, home: Path, template: str, story: Callable[[KubernetesPlatform, Told], Awaitable[None]]
) -> None:
    told: Told = []
    settings = Settings(
        kubernetes=Kubernetes(namespace=space.name, image=template), local=Local(stable_after=1.0),
        gateway=Gateway(port=0),
    )  # fmt: skip

    def record(kind: str, subject: str, detail: dict[str, Any]) -> None:
        if kind.startswith("cluster."):
            assert subject == detail["service"]
            told.append((kind, detail))

    async def run() -> None:
        platform = KubernetesPlatform(home, settings, record=record)
        await platform.start()
        try:
            await story(platform, told)
        finally:
            await platform.shutdown()

    asyncio.run(run())


async def settle(platform: KubernetesPlatform, service: Service) -> None:
    for _ in range(600):
        if await platform.apply(service) == []:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never settles")


def heard(told: Told, reason: str) -> dict[str, Any] | None:
    return next((d for kind, d in told if kind == "cluster.warned" and d["reason"] == reason), None)


def test_a_missing_image_and_a_replica_without_room_are_told_in_the_cluster_s_words(
    space: Namespace, tmp_path: Path
) -> None:
    async def story(platform: KubernetesPlatform, told: Told) -> None:
        await settle(platform, wish())
        missing = await until(lambda: heard(told, "image_missing"))
        (pod,) = {r.id for r in platform.observe()}
        assert missing["replica"] == pod and missing["node"] and missing["service"] == "digits"
        assert "image" in missing["said"].lower()
        await settle(platform, wish(cpu=1000.0))
        crowded = await until(lambda: heard(told, "unschedulable"))
        assert "Insufficient cpu" in crowded["said"] and crowded["replica"] != pod
        assert platform.room(Variant(model="x", resources=Resources(cpu=1000.0))) == 0
        few, many = (platform.room(Variant(model="x", resources=Resources(memory=m))) for m in (1 << 30, 1 << 26))
        assert few is not None and many is not None and 0 < few < many, "the node's own memory, less what pods request"
        assert platform.describe()["cluster"]["blind"] == []

    play(space, tmp_path, NOWHERE, story)


def test_a_container_killed_for_want_of_memory_is_told_with_its_node(space: Namespace, tmp_path: Path) -> None:
    name, digests = image()

    async def story(platform: KubernetesPlatform, told: Told) -> None:
        service = wish(digests["a"], memory=200 << 20)
        await settle(platform, service)
        await until(lambda: any(r.state == "ready" for r in platform.observe()), 120.0)
        (replica,) = platform.observe()
        await platform.inject(Fault(kind="leak", replica=replica.id, amount=100e6, heal_after=60.0))
        killed = await until(lambda: heard(told, "oom"), 120.0)
        assert killed["replica"] == replica.id and killed["node"] and "OOMKilled" in killed["said"]

    play(space, tmp_path, name, story)


def test_a_node_that_is_cordoned_is_told_while_it_is(space: Namespace, tmp_path: Path) -> None:
    """Of a node made for this, which runs nothing: others use the real one."""
    name = f"made-{secrets.token_hex(4)}"
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}

    async def story(platform: KubernetesPlatform, told: Told) -> None:
        made = next(o for o in render(wish(), Ground(Apis.of("1.20"))).objects if o["kind"] == "Deployment")
        pod = {"apiVersion": "v1", "kind": "Pod"} | made["spec"]["template"]
        pod["metadata"]["name"] = "digits-1"
        pod["spec"] |= {"nodeName": name, "serviceAccountName": "default"}
        space.kubectl("create", "-f", "-", stdin=yaml.safe_dump(pod))
        await until(lambda: platform.observe())
        kubectl("cordon", name)
        cordoned = await until(lambda: heard(told, "cordoned"))
        assert cordoned["node"] == name and cordoned["replicas"] == ["digits-1"]
        kubectl("uncordon", name)
        await until(lambda: any(k == "cluster.cleared" and d["reason"] == "cordoned" for k, d in told))
        space.kubectl("delete", "pod", "digits-1", "--grace-period=0", "--force")

    kubectl("create", "-f", "-", stdin=yaml.safe_dump(node))
    try:
        play(space, tmp_path, NOWHERE, story)
    finally:
        kubectl("delete", "node", name)


def test_without_the_rights_everything_else_works_and_it_says_so(
    space: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = role(Apis.of("1.20"), space.name, "leptonai")
    rules = next(o for o in objects if o["kind"] == "Role")["rules"]
    rules[:] = [r for r in rules if r["resources"] != ["events"]]
    space.kubectl("apply", "-f", "-", stdin=to_yaml(objects))
    config = yaml.safe_load(Path(KUBECONFIG).read_text())
    config["users"][0]["user"] = {"token": token(space, "leptonai")}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    async def story(platform: KubernetesPlatform, told: Told) -> None:
        await settle(platform, wish())
        await until(lambda: any(r.reason == "image_missing" for r in platform.observe()))
        blind = platform.describe()["cluster"]["blind"]
        assert [b.split(" (")[0] for b in blind] == ["Events", "nodes", "pods of all namespaces"]
        assert platform.room(Variant(model="x")) is None and told == []

    play(space, tmp_path / "home", NOWHERE, story)
