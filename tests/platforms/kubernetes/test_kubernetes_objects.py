"""Fields of ours in objects that others share: who owns which, as server-side apply has it, without a cluster."""

from __future__ import annotations

import asyncio
import copy
import itertools
from typing import Any, cast

import pytest
from msgspec.structs import replace

from leptonai.errors import Conflict
from leptonai.plan.render import Apis, Ground, names, render
from leptonai.platforms.kubernetes.cluster import MANAGER, Cluster, Of
from leptonai.platforms.kubernetes.fights import FIGHTS
from leptonai.platforms.kubernetes.mirror import Mirror
from leptonai.platforms.kubernetes.names import Ref, ref
from leptonai.platforms.kubernetes.objects import Objects
from leptonai.platforms.kubernetes.rights import kinds
from leptonai.types import Dials, Resources, Scale, Service, Spec, Variant, VariantDials

Json = dict[str, Any]
Path = tuple[str, ...]
APIS = Apis.of("1.28")
GROUND = Ground(APIS, orders="leptonai-orders", own_gateway=True, prometheus="http://prometheus:9090")


class ApiServer:
    """Server-side apply over fields, as kubernetes.io's page of that name tells it.

    A field that an applier leaves out goes when nobody else owns it, and a Deployment's replicas go back to 1. Another
    value than a field's other owners gave it is a conflict, unless forced; whoever sets a value last owns it.
    """

    namespace = "models"

    def __init__(self) -> None:
        self.objects: dict[Ref, Json] = {}
        self.said: dict[Ref, dict[str, dict[Path, Any]]] = {}  # by manager
        self.log: list[tuple[str, Ref]] = []
        self.seen: list[int] = []  # replicas, after each call
        self._versions = itertools.count(1)

    async def get(self, version: str, kind: str, name: str) -> Json | None:
        return copy.deepcopy(self.objects.get(Ref(kind, name)))

    async def delete(self, version: str, kind: str, name: str, *, uid: str = "", orphan: bool = False) -> bool:
        self.log.append(("delete", Ref(kind, name)))
        self.said.pop(Ref(kind, name), None)
        if kind == "ScaledObject":
            self.objects.pop(Ref("HorizontalPodAutoscaler", f"keda-hpa-{name}"), None)
        return self.objects.pop(Ref(kind, name), None) is not None

    async def apply(self, obj: Json, *, force: bool = False, manager: str = MANAGER) -> Json:
        at, wanted = ref(obj), dict(fields(obj))
        self.log.append((manager, at))
        said = self.said.setdefault(at, {})
        live = self.objects.get(at)
        owned = {p: m for m, theirs in said.items() if m != manager for p in theirs}
        conflicts = sorted({owned[p] for p, v in wanted.items() if p in owned and value(live, p) != v})
        if conflicts and not force:
            raise Conflict("cannot apply", code="conflict", managers=tuple(conflicts))
        gone = said.get(manager, {}).keys() - wanted.keys() - owned.keys()
        for p in gone:
            put(live, p, 1 if p == ("spec", "replicas") else None)
        return self._set(at, manager, wanted, {"apiVersion": obj["apiVersion"], "kind": obj["kind"]})

    def update(self, at: Ref, manager: str, path: Path, new: Any) -> None:
        """As an autoscaler does through the subresource: it owns what it changes."""
        if value(self.objects[at], path) != new:
            self._set(at, manager, {path: new}, {})

    def _set(self, at: Ref, manager: str, wanted: dict[Path, Any], new: Json) -> Json:
        live = self.objects.setdefault(at, {**new, "metadata": {"name": at.name, "namespace": self.namespace}})
        if at.kind == "Deployment":
            live.setdefault("spec", {}).setdefault("replicas", 1)
        for p, v in wanted.items():
            if value(live, p) != v:
                for theirs in self.said[at].values():
                    theirs.pop(p, None)
            put(live, p, v)
        kept = {} if new else self.said[at].get(manager, {})
        self.said[at][manager] = kept | wanted
        live["metadata"]["resourceVersion"] = str(next(self._versions))
        live["metadata"]["managedFields"] = [
            {"manager": m, "fieldsV1": nested(theirs)} for m, theirs in self.said[at].items() if theirs
        ]
        if at.kind == "Deployment":
            self.seen.append(live["spec"]["replicas"])
        if at.kind == "ScaledObject":
            self._keda(live)
        return copy.deepcopy(live)

    def _keda(self, scaled: Json) -> None:
        """As KEDA's controller answers one: with an autoscaler of its own, which has all labels of it."""
        at = Ref("HorizontalPodAutoscaler", f"keda-hpa-{scaled['metadata']['name']}")
        owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": scaled["metadata"]["name"]}
        meta = {"name": at.name, "namespace": self.namespace, "labels": dict(scaled["metadata"]["labels"])}
        meta |= {"ownerReferences": [owner | {"controller": True}], "resourceVersion": str(next(self._versions))}
        self.objects[at] = {"apiVersion": "autoscaling/v2", "kind": at.kind, "metadata": meta, "spec": {}}


def fields(obj: Any, at: Path = ()) -> Any:
    if isinstance(obj, dict) and obj:
        for name, inner in obj.items():
            if at or name not in ("apiVersion", "kind"):
                yield from fields(inner, (*at, name))
    elif at not in (("metadata", "name"), ("metadata", "namespace")):
        yield at, obj


def value(obj: Json | None, at: Path) -> Any:
    found: Any = obj
    for name in at:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def put(obj: Json | None, at: Path, new: Any) -> None:
    inner: Any = obj
    for name in at[:-1]:
        inner = inner.setdefault(name, {})
    inner[at[-1]] = new


def nested(paths: dict[Path, Any]) -> Json:
    made: Json = {}
    for p in paths:
        inner = made
        for name in p:
            inner = inner.setdefault(f"f:{name}", {})
    return made


class World:
    def __init__(self) -> None:
        self.api = ApiServer()
        cluster = cast(Cluster, self.api)
        followed = kinds(APIS) | {"Pod": "v1"}
        self.mirrors = {
            kind: Mirror(cluster, Of(version, kind), 600.0, lambda before, after: None)
            for kind, version in followed.items()
        }
        self.events: list[tuple[str, str, Json]] = []
        self.objects = Objects(cluster, GROUND, self.mirrors, lambda *e: self.events.append(e), lambda: 0.0)

    def watch(self) -> None:
        for kind, mirror in self.mirrors.items():
            for name in [name for name in mirror.objects if Ref(kind, name) not in self.api.objects]:
                mirror.forget(name)
        for at, obj in self.api.objects.items():
            self.mirrors[at.kind].told(copy.deepcopy(obj))

    def settle(self, service: Service) -> None:
        async def run() -> None:
            while todo := self.objects.todo(service):
                for move in todo:
                    await self.objects.do(service.key, move)
                    self.watch()
                if todo == self.objects.todo(service):
                    raise AssertionError("it never settles")

        self.watch()
        asyncio.run(run())

    @property
    def deployment(self) -> Ref:
        return Ref("Deployment", names.lane_name("digits", "main"))

    @property
    def replicas(self) -> int:
        return int(self.api.objects[self.deployment]["spec"]["replicas"])


def wish(owner: Any, n: int = 4, model: str = "a") -> Service:
    variant = Variant(model="sha256:" + model * 64, resources=Resources(cpu=1.0))
    spec = Spec(name="digits", variants=(variant,), scale=Scale(owner=owner, min=1, max=9, replicas=1))
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=n)}), revision=1)


@pytest.mark.parametrize("owner", ["kubernetes", "keda"])
@pytest.mark.parametrize("scaled", [4, 6])
def test_who_takes_the_replicas_over_finds_as_many_as_there_were(owner: str, scaled: int) -> None:
    """Never one less: not when it is given away, and not when the next version is deployed."""
    world = World()
    world.settle(wish("leptonai"))
    assert world.replicas == 4
    del world.api.seen[:]
    world.settle(wish(owner))
    world.api.update(world.deployment, "autoscaler", ("spec", "replicas"), scaled)
    world.settle(wish(owner, model="b"))
    assert world.replicas == scaled and min(world.api.seen) >= 4
    world.api.update(world.deployment, "autoscaler", ("spec", "replicas"), 2)
    world.settle(wish(owner, model="c"))
    assert world.replicas == 2, "fewer by the autoscaler's own word"
    assert not [e for e in world.events if e[0] == "drift.corrected"], "nobody fought"


@pytest.mark.parametrize("owner", ["kubernetes", "keda"])
def test_who_takes_over_a_service_at_zero_finds_one_replica(owner: str) -> None:
    """At zero Kubernetes' autoscaler is switched off, and nothing would ever start one again."""
    world = World()
    world.settle(wish("leptonai", 0))
    assert world.replicas == 0
    world.settle(wish(owner))
    assert world.replicas == 1


def test_replicas_that_nobody_set_since_are_taken_back_without_a_fight() -> None:
    world = World()
    for n in range(2 * FIGHTS):
        world.settle(wish("leptonai", 4 + n % 2, model="ba"[n % 2]))
        world.settle(wish("kubernetes", model="ab"[n % 2]))
    assert "leptonai-handover" in {what for what, _ in world.api.log}
    world.settle(wish("leptonai", 3))
    assert world.replicas == 3
    assert not [e for e in world.events if e[0] == "drift.corrected"], "we let go of them ourselves"


def test_the_autoscaler_that_keda_makes_is_keda_s() -> None:
    """It carries our labels, and goes with the ScaledObject: deleted by us it would come back for ever."""
    world = World()
    world.settle(wish("keda"))
    made = Ref("HorizontalPodAutoscaler", f"keda-hpa-{names.lane_name('digits', 'main')}")
    assert made.name in world.mirrors[made.kind].of("digits"), "our labels select it"
    assert ("delete", made) not in world.api.log and world.objects.todo(wish("keda")) == []
    asyncio.run(world.objects.remove("digits"))
    assert ("delete", made) not in world.api.log and world.api.objects == {}


def test_replicas_taken_back_are_ours_at_once() -> None:
    world = World()
    world.settle(wish("keda"))
    world.api.update(world.deployment, "keda", ("spec", "replicas"), 6)
    world.settle(wish("leptonai", 3))
    assert world.replicas == 3
    assert {at.kind for at in world.api.objects} & {"ScaledObject", "HorizontalPodAutoscaler"} == set()
    corrected = [(subject, detail["by"]) for kind, subject, detail in world.events if kind == "drift.corrected"]
    assert corrected == [(str(world.deployment), "keda")]


def test_one_autoscaler_is_gone_before_the_other_comes() -> None:
    world = World()
    for owner in ("kubernetes", "keda", "kubernetes"):
        world.settle(wish(owner))
        kinds_there = [
            at.kind
            for at in world.api.objects
            if at.kind in ("ScaledObject", "HorizontalPodAutoscaler") and not at.name.startswith("keda-hpa-")
        ]
        assert kinds_there == [{"keda": "ScaledObject", "kubernetes": "HorizontalPodAutoscaler"}[owner]]
    calls = [(what, at.kind) for what, at in world.api.log if at.kind in ("ScaledObject", "HorizontalPodAutoscaler")]
    assert calls == [
        (MANAGER, "HorizontalPodAutoscaler"),
        ("delete", "HorizontalPodAutoscaler"), (MANAGER, "ScaledObject"),
        ("delete", "ScaledObject"), (MANAGER, "HorizontalPodAutoscaler"),
    ]  # fmt: skip


def test_everything_goes_with_the_service() -> None:
    world = World()
    service = wish("keda")
    world.settle(service)
    keda_s = Ref("HorizontalPodAutoscaler", f"keda-hpa-{names.lane_name('digits', 'main')}")
    assert {ref(o) for o in render(service, GROUND).objects} | {keda_s} == world.api.objects.keys()
    asyncio.run(world.objects.remove("digits"))
    assert world.api.objects == {}


def test_an_object_of_somebody_else_is_left_as_it_is() -> None:
    world = World()
    theirs = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"}
    at = Ref("ScaledObject", names.lane_name("digits", "main"))
    world.api.objects[at] = theirs | {"metadata": {"name": at.name, "labels": {"app.kubernetes.io/managed-by": "Helm"}}}
    with pytest.raises(Conflict, match="belongs to Helm"):
        world.settle(replace(wish("keda"), revision=2))
    assert "spec" not in world.api.objects[at]
