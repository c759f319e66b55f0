"""KubernetesPlatform: a service as objects of a cluster. ``plan.render`` says which, Kubernetes does the work."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from leptonai.errors import LeptonError, NotFound, PlatformError, StartError
from leptonai.plan.render import Apis, Ground, nameable, names
from leptonai.platforms.kubernetes import pods
from leptonai.platforms.kubernetes.around import Around
from leptonai.platforms.kubernetes.attend import Attendant, shared_secret
from leptonai.platforms.kubernetes.cluster import Cluster, Of
from leptonai.platforms.kubernetes.converge import theirs
from leptonai.platforms.kubernetes.ending import heard, left_running, removed
from leptonai.platforms.kubernetes.evict import leaving, short
from leptonai.platforms.kubernetes.gateways import Gateways
from leptonai.platforms.kubernetes.lead import Leader, led
from leptonai.platforms.kubernetes.mirror import Mirror, key_of
from leptonai.platforms.kubernetes.objects import Objects
from leptonai.platforms.kubernetes.rights import SECRET, kinds, usable
from leptonai.platforms.kubernetes.traffic import led_by
from leptonai.platforms.local.front import Front
from leptonai.platforms.local.logs import Log
from leptonai.platforms.local.rundir import make_runtime_folder, write_atomically
from leptonai.protocols import Record, unheard
from leptonai.settings import Settings
from leptonai.types import (
    Applied,
    Fault,
    Forget,
    Key,
    LogLine,
    Replica,
    Retire,
    Service,
    Spec,
    Step,
    Tune,
    Tuning,
    Variant,
)

Json = dict[str, Any]

_SUBSTITUTE_WITHIN = 3.0  # seconds for a Deployment to make a pod in the place of a released one; usually 0.1


class KubernetesPlatform:
    """The Platform of one namespace of a cluster. One at a time for each service: the caller holds a lock on that."""

    name = "kubernetes"

    def __init__(
        self,
        home: Path,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        record: Record = unheard,
        control: str = "",
        woken: Callable[[Key], None] = lambda key: None,
    ) -> None:
        """``control``, ``woken``: as of LocalPlatform. The gateway runs beside us and calls pods by their addresses,
        unless ``kubernetes.gateway_pods``."""
        self.home, self.settings = home.resolve(), settings
        self._clock, self._record = clock, record
        self._front: Front | Gateways = (
            Gateways(self.home, settings, woken)
            if settings.kubernetes.gateway_pods
            else Front(self.home, settings.gateway, record, self.observe, woken)
        )
        self._front.control = control
        self._cluster: Cluster | None = None
        self._objects: Objects | None = None
        self._around: Around | None = None
        self._mirrors: dict[str, Mirror] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._clean: dict[Key, Service] = {}  # what was found to need nothing, until something of it changes
        self._replicas: dict[str, Replica] = {}
        self._moved = asyncio.Event()  # some pod changed
        self._fallen: dict[str, Replica] = {}  # pods that vanished without being told to end
        self._attended: dict[str, Attendant] = {}
        self._secret = ""
        self._emptied = False  # nothing of our services is left in the namespace
        self.leader: Leader | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connected, every kind listed once; from here on what happens is followed. We lead, or stand by (``leader``).

        PlatformError without a cluster, Denied without the rights that are needed: each names what is missing. Conflict
        ``other_platform`` in a namespace where the wishes of another store hold.
        """
        wanted = self.settings.kubernetes
        cluster = self._cluster = Cluster(wanted.context, wanted.namespace)
        version, served = await cluster.version()
        apis = await usable(cluster, Apis.served(version, served))
        ground = Ground(
            apis, traffic=led_by(wanted, apis), image=wanted.image, namespace=cluster.namespace, gateway=wanted.gateway,
            callers=wanted.callers, orders=SECRET, own_gateway=True, prometheus=wanted.prometheus,
            wishes=wanted.gateway_pods,
        )  # fmt: skip
        self._objects = Objects(cluster, ground, self._mirrors, self._record, self._clock)
        followed = kinds(apis)
        own = f"app.kubernetes.io/managed-by={names.MANAGER},{names.OWN}/service"
        for kind, api in followed.items():
            self._mirrors[kind] = Mirror(cluster, Of(api, kind, own), wanted.resync, self._changed)
        self._mirrors["Pod"] = Mirror(cluster, Of("v1", "Pod", own), wanted.resync, self._pod_changed)
        around = self._around = Around(cluster, self._mirrors, wanted.resync, self._record, self._clock)
        await asyncio.gather(*(mirror.relist() for kind, mirror in self._mirrors.items() if kind != "Pod"))
        services = self._mirrors["Deployment"].objects
        self.leader = await led(cluster, self.home, self.settings, self._front.control, lambda: bool(services))
        self._go(self.leader.run())
        self._secret = await shared_secret(cluster)
        write_atomically(self.home / "orders", self._secret.encode())  # for ops, which records requests
        await self._mirrors["Pod"].relist()
        await around.start()
        for mirror in (*self._mirrors.values(), *around.mirrors):
            self._go(mirror.run())
        (self.home / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        if isinstance(self._front, Gateways):
            self._front.join(cluster, self._secret, self._mirrors["ConfigMap"])
        self._front.recall()
        await self._front.start(make_runtime_folder(self.home))
        self._go(self._front.push_when_changed())
        self._go(self._tick())
        self._record("platform.connected", "platform", {"server": cluster.server, "version": version})

    def route(self, services: list[Service]) -> None:
        """The gateway routes as these wishes say; nothing is done about them. For a copy that stands by."""
        for key in self._front.services.keys() - {s.key for s in services}:
            self._front.drop(key)
        for service in services:
            self._front.wish(service)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(a.end() for a in self._attended.values()))
        self._front.close()
        if self.leader:
            await self.leader.release(forget=self._emptied)
            await self.leader.close()
        if self._cluster:
            await self._cluster.close()

    async def shutdown(self, cut_off: LeptonError | None = None) -> None:
        """Nothing of ours runs on this machine, nor, unless another copy leads there, anything in the cluster.

        ``cut_off``: why the cluster could not be reached at all. PlatformError ``left_running``, once this machine is
        clean, when services were left there: which, and how they are removed later.
        """
        left = set(self._front.services)
        if self.leader is not None and self.leader.leads:
            try:
                await heard(removed(self.remove, left), lambda: self._mirrors["Pod"].trouble)
            except LeptonError as e:
                cut_off = e
            self._emptied = not self._mirrors["Deployment"].objects
        if not self._front.started:  # the start was refused, and an earlier platform's gateway may run still
            self._front.recall()
            left |= self._front.services.keys()
            with contextlib.suppress(StartError):
                await self._front.start(make_runtime_folder(self.home))
        await self._front.stop()
        await self.close()
        shutil.rmtree(make_runtime_folder(self.home), ignore_errors=True)
        if cut_off is not None and (left or isinstance(self._front, Gateways)):
            where = (self._cluster.namespace, self._cluster.server) if self._cluster else ("", "")
            raise left_running(sorted(left), *where, cut_off, [kind for kind in self._mirrors if kind != "Pod"])
        shutil.rmtree(self.home / "run", ignore_errors=True)

    # --- the wish ----------------------------------------------------------------------------------------------------

    def fits(self, spec: Spec) -> None:
        """SpecError for a service that no cluster could have, whatever it serves."""
        nameable(spec.key, self.settings.kubernetes.namespace or self._the_cluster.namespace)

    async def apply(self, service: Service) -> list[Step]:
        """Steps are ``Applied`` objects, ``Retire`` of evicted pods, ``Forget`` of those that are gone.

        Conflict for an object of somebody else's, and what the cluster refuses as it says it; objects that were
        applied before it stay, and the error says how many. Conflict ``not_leading`` while another copy leads.
        """
        key = service.key
        if self.leader is not None:
            self.leader.left()
        if self._clean.get(key) == service:
            return await self._tune(service)
        async with self._locks[key]:
            self._front.wish(service)
            self._clean[key] = service  # until something changes, perhaps by what we do now
            steps: list[Step] = []
            try:
                todo = self._the_objects.todo(service)
                for number, move in enumerate(todo):
                    try:
                        await self._the_objects.do(key, move)
                    except LeptonError as e:
                        if number:
                            e.message = f"{number} of {len(todo)} changes of {key} were made, then: {e.message}"
                            e.args = (e.message,)
                        raise
                    steps.append(Applied(object=str(move.ref), verb=move.verb, fields=move.fields))
                steps += await self._let_go(service)
                steps += await self._forget(key)
                steps += await self._tune(service)
            except BaseException:
                self._clean.pop(key, None)
                raise
            if steps:
                self._clean.pop(key, None)
            return steps

    async def remove(self, key: Key) -> None:
        async with self._locks[key]:
            self._clean.pop(key, None)
            await self._the_objects.remove(key)
            for pod in self._pods(key):
                if not pod["metadata"].get("deletionTimestamp"):
                    await self._the_cluster.delete("v1", "Pod", pod["metadata"]["name"], uid=pod["metadata"]["uid"])
            self._front.drop(key)  # not before: what the cluster refuses to give up serves on, and is known
            while self._pods(key):
                self._moved.clear()
                await self._moved.wait()
            for id in [r.id for r in self._fallen.values() if r.service == key]:
                del self._fallen[id]
        self._locks.pop(key, None)

    def observe(self) -> list[Replica]:
        now, stable = self._clock(), self.settings.local.stable_after
        seen = list(self._fallen.values())
        for name, replica in self._replicas.items():
            if replica.attempt and replica.state == "ready" and now - replica.since >= stable:
                replica = self._replicas[name] = pods.replica(self._mirrors["Pod"].objects[name], stable, now)
            attended = self._attended[name]
            orders = attended.orders
            if orders is not None and (orders.tuning, orders.cost) != (replica.tuning, replica.cost):
                replica = self._replicas[name] = replace(replica, tuning=orders.tuning, cost=orders.cost)
            seen.append(attended.as_it_answers(replica))
        if deployments := self._mirrors.get("Deployment"):
            seen += [r for d in deployments.objects.values() if (r := pods.refused(d)) is not None]
        return sorted(seen, key=lambda r: (r.service, r.variant, r.id))

    def held(self) -> dict[tuple[Key, str], int]:
        return self._front.held

    async def asked(self) -> dict[tuple[Key, str], tuple[int, int]] | None:
        return await self._front.asked()

    def room(self, variant: Variant) -> int | None:
        """On the nodes there are, where our account may see them; None: not known. The scheduler decides, and an
        autoscaler of nodes may make more."""
        return self._around.room(variant.resources) if self._around is not None else None

    def scaled(self, service: Service) -> dict[str, int]:
        """As their Deployments say: what an autoscaler wants, whether or not so many run yet."""
        return theirs(service, self._mirrors["Deployment"].objects) if self._mirrors else {}

    def logs(self, replica: str, since: float = 0.0, limit: int = 1000) -> list[LogLine]:
        if found := self._attended.get(replica):
            lines = [line for line in found.log.lines if line.at >= since]
            return lines[-limit:] if limit > 0 else []
        old = self.home / "logs" / "replicas" / f"{replica}.log"
        if "/" in replica or not old.is_file():
            raise NotFound(f"replica {replica!r} was never seen, or long ago", hint="leptonai status lists replicas")
        return Log(old, old.stat().st_mtime).lines(replica, since, limit)

    def url(self, key: Key) -> str:
        return self._front.url(key)

    def describe(self) -> dict[str, Any]:
        around, withheld = self._around, self._the_objects.ground.apis.withheld
        mirrors = [*self._mirrors.values(), *(around.mirrors if around else ())]
        trouble = "; ".join(sorted({m.trouble for m in mirrors if m.trouble}))
        return self._front.describe() | {
            "leader": self.leader.about() if self.leader else {},
            "isolation": {"active": True, "reason": "", "limits": "by the kubelet"},
            "cluster": {
                "server": self._the_cluster.server,
                "namespace": self._the_cluster.namespace,
                "version": f"1.{self._the_objects.ground.apis.minor}",
                "trouble": trouble,
                "blind": [*(around.blind if around else ()), *(f"{kind}s" for kind in withheld)],
                "calls": self._the_cluster.calls,
            },
        }

    # --- drills ------------------------------------------------------------------------------------------------------

    async def inject(self, fault: Fault) -> str:
        """``kill``: the pod is deleted without grace, as a node that dies takes it along. The replica does the others
        itself; ``stop``: it answers nothing."""
        pod, attended = self._mirrors["Pod"].objects.get(fault.replica), self._attended.get(fault.replica)
        if pod is None or attended is None or pod["metadata"].get("deletionTimestamp"):
            raise PlatformError(f"replica {fault.replica!r} does not run", hint="leptonai status lists replicas")
        id = f"{fault.kind}:{fault.replica}"
        if fault.kind == "kill":
            await self._the_cluster.delete("v1", "Pod", fault.replica, grace=0, uid=pod["metadata"]["uid"])
        elif fault.kind == "disk_full":
            raise PlatformError(
                "disk_full cannot be made in a pod: nobody may set its limits", hint="try stop, or kill"
            )
        elif attended.orders is None:
            raise PlatformError(f"replica {fault.replica!r} has no address yet", hint="wait until it is ready")
        else:
            await attended.orders.fault(fault.kind, fault.amount or 1.0, fault.heal_after)
        self._record("fault.injected", fault.replica, {"kind": fault.kind, "id": id})
        return id

    async def heal(self, fault_id: str) -> None:
        kind, _, name = fault_id.partition(":")
        attended = self._attended.get(name)
        if kind == "kill" or attended is None or attended.orders is None:
            raise NotFound(f"no fault {fault_id!r} is known here", hint="a pod that is gone is replaced, not healed")
        await attended.orders.fault(kind, 0.0, 0.0)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _let_go(self, service: Service) -> list[Step]:
        """Evicted pods: released from their Deployment, which makes another; ended once that serves."""
        steps: list[Step] = []
        here = self._pods(service.key)
        for pod in leaving(service, here, self.scaled(service)).release:
            name = pod["metadata"]["name"]
            patch = {"metadata": {"labels": {names.EVICTED: "yes"}}}
            self._mirrors["Pod"].told(await self._the_cluster.merge("v1", "Pod", name, patch))
            steps.append(Applied(object=f"Pod/{name}", verb="change", fields=(f"metadata.labels.{names.EVICTED}",)))
        if steps:  # who looks next is to see that another is on its way
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SUBSTITUTE_WITHIN):
                    while short(service, self._pods(service.key), self.scaled(service)):
                        self._moved.clear()
                        await self._moved.wait()
        for pod, grace in leaving(service, self._pods(service.key), self.scaled(service)).end:
            meta = pod["metadata"]
            await self._the_cluster.delete("v1", "Pod", meta["name"], uid=meta["uid"], grace=grace)
            steps.append(Retire(replica=meta["name"], reason="evicted"))
        return steps

    async def _forget(self, key: Key) -> list[Step]:
        """Pods that have ended for good: Kubernetes makes others, but keeps what is left of these."""
        steps: list[Step] = []
        for pod in self._pods(key):
            meta = pod["metadata"]
            ended = (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
            if ended and not meta.get("deletionTimestamp"):
                await self._the_cluster.delete("v1", "Pod", meta["name"], uid=meta["uid"])
                steps.append(Forget(replica=meta["name"]))
        for id in [r.id for r in self._fallen.values() if r.service == key]:
            del self._fallen[id]
            steps.append(Forget(replica=id))
        return steps

    async def _tune(self, service: Service) -> list[Step]:
        """Replicas that run as wished, and were told of other batching, are told anew."""
        wanted = {v.digest: Tuning.of(service.spec, v, service.dials.quarantine) for v in known(service)}
        steps: list[Step] = []
        for name in list(self._mirrors["Pod"].of(service.key)):
            replica, orders = self._replicas.get(name), self._attended[name].orders
            tuning = None if replica is None else wanted.get(replica.digest)
            if replica is None or replica.state != "ready" or orders is None or tuning is None:
                continue
            if orders.tuning not in (None, tuning) and await orders.tune(tuning):
                steps.append(Tune(replica=name, tuning=tuning))
        return steps

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _pods(self, key: Key) -> list[Json]:
        return list(self._mirrors["Pod"].of(key).values())

    def _changed(self, before: Json | None, after: Json | None) -> None:
        for obj in (before, after):
            if obj is not None:
                self._clean.pop(key_of(obj), None)

    def _pod_changed(self, before: Json | None, after: Json | None) -> None:
        self._changed(before, after)
        self._moved.set()
        now = self._clock()
        if after is None:
            assert before is not None
            name = str(before["metadata"]["name"])
            last = self._replicas.pop(name, None)
            if last is not None and last.reason == "killed":
                self._fallen[name] = last
            elif (
                last is not None
                and last.state != "stopping"
                and not last.gone
                and pods.taken(before, self._mirrors["Pod"].fresh)
            ):
                self._fallen[name] = replace(last, state="failed", reason="killed", detail="its pod is gone", since=now)
            if found := self._attended.pop(name, None):
                self._go(found.bury())
            self._front.changed()
            return
        name = str(after["metadata"]["name"])
        last, replica = self._replicas.get(name), pods.replica(after, self.settings.local.stable_after, now)
        if last is not None and last.state == "stopping" and replica.reason == "killed":
            replica = last  # the kubelet ends every pod so, when its grace is over
        self._replicas[name] = replica
        if replica.reason == "oom" and self._around is not None and (last is None or last.since != replica.since):
            self._around.ended(replica, str(after["spec"].get("nodeName") or ""))
        if pods.over(after):
            del self._replicas[name]
        if name not in self._attended:
            home, local = self.home, self.settings.local
            self._attended[name] = Attendant(self._the_cluster, name, home, self._secret, local)
        self._attended[name].saw(after, replica)
        self._front.changed()

    @property
    def cluster(self) -> Cluster:
        """For what is not about replicas. PlatformError before ``start``."""
        return self._the_cluster

    @property
    def _the_cluster(self) -> Cluster:
        if self._cluster is None:
            raise PlatformError("the Kubernetes platform has not been started", hint="leptonai up")
        return self._cluster

    @property
    def _the_objects(self) -> Objects:
        if self._objects is None:
            raise PlatformError("the Kubernetes platform has not been started", hint="leptonai up")
        return self._objects

    async def _tick(self) -> None:
        serving: set[str] = set()
        while True:
            await self._front.tick()
            now = {r.id for r in self.observe() if r.state == "ready"}
            if now != serving:  # by their own word, which no change of a pod tells
                serving = now
                self._front.changed()
            await asyncio.sleep(self.settings.local.probe_interval)

    def _go(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def known(service: Service) -> list[Variant]:
    """Every variant that replicas of the wish may run."""
    return [*service.spec.variants, *(service.canary.stable if service.canary else ())]
