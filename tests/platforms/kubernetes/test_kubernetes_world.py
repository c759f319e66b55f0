"""What only a cluster can do to us: others' objects, drift, quotas, missing images and rights, a silent API server."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_stage import KUBECONFIG, Namespace, image, needs_cluster, token, until
from msgspec.structs import replace

from leptonai.errors import Conflict, Denied, LeptonError, PlatformError
from leptonai.plan.render import Apis, to_yaml
from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.platforms.kubernetes.rights import role
from leptonai.settings import Gateway, Kubernetes, Local, Settings
from leptonai.types import Dials, Resources, Service, Spec, Variant, VariantDials

pytestmark = [needs_cluster, pytest.mark.world, pytest.mark.timeout(600)]

NONE = "sha256:" + "0" * 64


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"world-{secrets.token_hex(4)}")
    yield made
    made.delete()


def wish(n: int = 1, model: str = NONE, name: str = "digits", **variant: Any) -> Service:
    spec = Spec(name=name, variants=(Variant(model=model, **variant),), drain=1.0)
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=n)}), revision=1)


class Stage:
    """A started platform over one namespace; ``events``: what it recorded."""

    def __init__(self, space: Namespace, home: Path, image: str = "localhost/none:1") -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        settings = Settings(
            kubernetes=Kubernetes(namespace=space.name, image=image), local=Local(stable_after=1.0),
            gateway=Gateway(port=0),
        )  # fmt: skip
        self.space = space
        self.platform = KubernetesPlatform(
            home, settings, record=lambda kind, subject, detail: self.events.append((kind, subject, detail))
        )

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await self.platform.start()
            try:
                await story()
            finally:
                await self.platform.shutdown()

        asyncio.run(run())

    async def settle(self, service: Service) -> None:
        """Apply until there is nothing left to do."""

        async def once() -> bool:
            return await self.platform.apply(service) == []

        for _ in range(300):
            if await once():
                return
            await asyncio.sleep(0.1)
        raise AssertionError("it never settles")

    def of(self, kind: str) -> list[Any]:
        return list(self.space.json("get", kind, "-l", "leptonai.dev/service")["items"])


def test_what_somebody_changes_by_hand_is_set_back_and_what_is_deleted_comes_back(
    space: Namespace, tmp_path: Path
) -> None:
    stage = Stage(space, tmp_path)

    async def story() -> None:
        service = wish(0)
        await stage.settle(service)
        assert await stage.platform.apply(service) == []
        name = stage.of("deployment")[0]["metadata"]["name"]
        space.kubectl("patch", "deployment", name, "-p", '{"spec": {"replicas": 3}}')
        space.kubectl("label", "deployment", name, "team=shop")
        space.kubectl("delete", "service", "digits")
        await until(lambda: not stage.platform._clean)
        await stage.settle(service)
        deployment = stage.of("deployment")[0]
        assert deployment["spec"]["replicas"] == 0, "ours"
        assert deployment["metadata"]["labels"]["team"] == "shop", "not ours"
        assert {s["metadata"]["name"] for s in stage.of("service")} >= {"digits"}
        corrected = [e for e in stage.events if e[0] == "drift.corrected"]
        assert [(e[1], e[2]["fields"]) for e in corrected] == [(f"Deployment/{name}", ["spec.replicas"])]
        assert "kubectl" in corrected[0][2]["by"]

    stage.play(story)


def test_what_is_no_longer_wished_goes_and_nothing_is_left_after_removal(space: Namespace, tmp_path: Path) -> None:
    stage = Stage(space, tmp_path)

    async def story() -> None:
        await stage.settle(wish(0))
        first = {c["metadata"]["name"] for c in stage.of("configmap")}
        await stage.settle(wish(0, model="sha256:" + "1" * 64))

        def gone() -> bool:
            return not first & {c["metadata"]["name"] for c in stage.of("configmap")}

        for _ in range(100):
            await stage.settle(wish(0, model="sha256:" + "1" * 64))
            if gone():
                break
            await asyncio.sleep(0.1)
        assert gone() and len(stage.of("configmap")) == 1
        space.kubectl("create", "configmap", "mine")
        await stage.platform.remove("digits")
        await stage.platform.remove("digits")
        kinds = "deployment,service,configmap,networkpolicy,serviceaccount,poddisruptionbudget,pod"
        assert stage.of(kinds) == []
        assert space.kubectl("get", "configmap", "mine", "-o", "name").strip() == "configmap/mine"

    stage.play(story)


def test_an_object_of_somebody_else_is_left_alone_and_told(space: Namespace, tmp_path: Path) -> None:
    stage = Stage(space, tmp_path)
    space.kubectl("create", "service", "clusterip", "digits", "--tcp=80")
    space.kubectl("label", "service", "digits", "app.kubernetes.io/managed-by=Helm", "--overwrite")

    async def story() -> None:
        with pytest.raises(Conflict, match=r"Service/digits in namespace .* belongs to Helm") as told:
            await stage.platform.apply(wish(0))
        assert "changes of digits were made, then" in told.value.message, "says what is half done"
        mine = space.json("get", "service", "digits")
        assert mine["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        space.kubectl("delete", "service", "digits")
        await stage.settle(wish(0))

    stage.play(story)


def test_who_sets_our_fields_again_and_again_is_named_at_last(space: Namespace, tmp_path: Path) -> None:
    stage = Stage(space, tmp_path)

    async def story() -> None:
        service = wish(0)
        await stage.settle(service)
        name = stage.of("deployment")[0]["metadata"]["name"]
        with pytest.raises(Conflict, match="in turn: spec") as told:
            for number in range(12):
                space.kubectl("patch", "deployment", name, "-p", json.dumps({"spec": {"replicas": number % 2 + 1}}))
                await until(lambda: not stage.platform._clean)
                await stage.platform.apply(service)
        assert "kubectl" in told.value.message and "scale.owner" in told.value.hint

    stage.play(story)


def test_a_field_that_cannot_be_changed_is_made_anew_while_its_pods_stay(space: Namespace, tmp_path: Path) -> None:
    name, digests = image()
    stage = Stage(space, tmp_path, name)

    async def story() -> None:
        service = wish(1, model=digests["a"])
        ready = await _ready(stage, service, 1)
        deployment = stage.of("deployment")[0]
        plain = {k: v for k, v in deployment.items() if k != "status"}
        plain["metadata"] = {k: deployment["metadata"][k] for k in ("name", "labels", "annotations")}
        plain["spec"]["selector"]["matchLabels"] = {"leptonai.dev/service": "digits"}
        space.kubectl("delete", "deployment", plain["metadata"]["name"], "--cascade=orphan")
        space.kubectl("create", "-f", "-", stdin=json.dumps(plain))
        await until(lambda: not stage.platform._clean)
        await stage.settle(service)
        selector = stage.of("deployment")[0]["spec"]["selector"]["matchLabels"]
        assert selector["leptonai.dev/lane"] == "main"
        assert [e[1] for e in stage.events if e[0] == "object.replaced"] == [f"Deployment/{plain['metadata']['name']}"]
        after = await _ready(stage, service, 1)
        assert ready == after, "its pods are adopted"

    stage.play(story)


async def _ready(stage: Stage, service: Service, n: int) -> list[str]:
    for _ in range(600):
        steps = await stage.platform.apply(service)
        seen = stage.platform.observe()
        if not steps and len(seen) == n and all(r.state == "ready" for r in seen):
            return [r.id for r in seen]
        await asyncio.sleep(0.1)
    raise AssertionError(f"not ready: {stage.platform.observe()}")


@pytest.mark.parametrize("what", ["image", "quota", "room"])
def test_what_keeps_a_replica_from_running_is_its_reason(space: Namespace, tmp_path: Path, what: str) -> None:
    stage = Stage(space, tmp_path)
    resources = Resources()
    if what == "quota":
        space.kubectl("create", "quota", "small", "--hard=pods=0")
    if what == "room":
        resources = Resources(cpu=1000.0)
    expected = {"image": "image_missing", "quota": "quota", "room": "unschedulable"}[what]
    word = {"image": "localhost/none:1", "quota": "exceeded quota: small", "room": "Insufficient cpu"}[what]

    async def story() -> None:
        service = wish(1, resources=resources)
        await stage.settle(service)

        def told() -> bool:
            return any(r.reason == expected and word in r.detail for r in stage.platform.observe())

        await until(told)

    stage.play(story)


def test_no_cluster_bad_credentials_and_missing_rights_say_so(
    space: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(Path(KUBECONFIG).read_text())

    def starts_with(changed: dict[str, Any]) -> LeptonError:
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(changed))
        monkeypatch.setenv("KUBECONFIG", str(file))
        stage = Stage(space, tmp_path / "home")

        async def run() -> None:
            try:
                await stage.platform.start()
            finally:
                await stage.platform.close()

        with pytest.raises(LeptonError) as told:
            asyncio.run(run())
        assert told.value.hint
        return told.value

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(PlatformError, match="no cluster is configured"):
        asyncio.run(Stage(space, tmp_path / "home").platform.start())
    nobody = json.loads(json.dumps(config))
    nobody["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    assert starts_with(nobody).code == "unreachable"
    expired = json.loads(json.dumps(config))
    expired["users"][0]["user"] = {"token": "expired"}
    assert starts_with(expired).code == "unauthorized"
    space.kubectl("create", "serviceaccount", "poor")
    space.kubectl("create", "role", "reader", "--verb=get,list,watch", "--resource=pods,configmaps,services")
    space.kubectl("create", "rolebinding", "poor", "--role=reader", f"--serviceaccount={space.name}:poor")
    held = token(space, "poor")
    poor = json.loads(json.dumps(config))
    poor["users"][0]["user"] = {"token": held}
    told = starts_with(poor)
    assert isinstance(told, Denied) and told.code == "rbac"
    assert "may not get serviceaccounts" in told.message and "patch deployments.apps" in told.detail["missing"]


def test_the_exported_rights_are_all_that_a_platform_needs(
    space: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, digests = image()
    space.kubectl("apply", "-f", "-", stdin=to_yaml(role(Apis.of("1.20"), space.name, "leptonai")))
    config = yaml.safe_load(Path(KUBECONFIG).read_text())
    config["users"][0]["user"] = {"token": token(space, "leptonai")}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    stage = Stage(space, tmp_path / "home", name)

    async def story() -> None:
        service = wish(1, model=digests["a"])
        (pod,) = await _ready(stage, service, 1)
        await until(lambda: stage.platform.logs(pod))
        evicted = replace(service, dials=replace(service.dials, evict=(pod,)))
        assert await _ready(stage, evicted, 1) != [pod]
        await stage.platform.remove("digits")
        assert stage.of("deployment,configmap,service,pod") == []

    stage.play(story)


def test_while_the_api_server_is_silent_nothing_is_forgotten_and_then_all_is_caught_up(
    space: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, digests = image()

    async def run() -> None:
        async with Wire() as wire:
            file = tmp_path / "kubeconfig"
            config = yaml.safe_load(Path(KUBECONFIG).read_text())
            wire.to(config["clusters"][0]["cluster"]["server"])
            config["clusters"][0]["cluster"] |= {"server": wire.url, "insecure-skip-tls-verify": True}
            file.write_text(yaml.safe_dump(config))
            monkeypatch.setenv("KUBECONFIG", str(file))
            stage = Stage(space, tmp_path / "home", name)
            await stage.platform.start()
            try:
                service = wish(1, model=digests["a"])
                before = await _ready(stage, service, 1)
                wire.cut()
                more = replace(service, dials=Dials(variants={"main": VariantDials(replicas=2)}))
                with pytest.raises(PlatformError) as told:
                    await stage.platform.apply(more)
                assert told.value.code == "unreachable" and told.value.retry
                assert [r.id for r in stage.platform.observe()] == before, "what was seen stays"
                await until(lambda: stage.platform.describe()["cluster"]["trouble"])
                wire.mend()
                assert before[0] in await _again(stage, more, 2)
                await until(lambda: not stage.platform.describe()["cluster"]["trouble"])
            finally:
                wire.mend()
                await stage.platform.shutdown()

    asyncio.run(run())


async def _again(stage: Stage, service: Service, n: int) -> list[str]:
    for _ in range(300):
        try:
            return await _ready(stage, service, n)
        except PlatformError:
            await asyncio.sleep(0.1)
    raise AssertionError("it does not come back")


class Wire:
    """A TCP line to the API server that can be cut."""

    def __init__(self) -> None:
        self._open = True
        self._target = ("", 0)
        self._writers: set[asyncio.StreamWriter] = set()

    def to(self, server: str) -> None:
        host, _, port = server.removeprefix("https://").rpartition(":")
        self._target = (host, int(port))

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    def cut(self) -> None:
        self._open = False
        for writer in list(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        self._open = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))
        self._writers -= {writer, back}


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()
