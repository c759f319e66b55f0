"""The platform as a pod of the cluster that it runs its services on: killed, ended, and led from elsewhere, under load.

    KUBECONFIG=... python benchmarks/control_in_cluster.py --load 'cluster load' --volume /srv/leptonai

What `leptonai build --control` and `leptonai export control` write, in a namespace of its own; the home is a hostPath
volume below ``--volume``, on the one node, which must be this machine. Users ask twice: the Service of the lane, as
docs/kubernetes.md recommends, and the gateway in the platform's own pod, which goes with it. The last stage leads from
this machine, with a copy of the home: another holder, which must let the lease run out. Wanted: 0 failed requests by
the Service, no pod of the service replaced, events and telemetry kept. The exit code says whether it held.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from control_idle import cli
from on_kubernetes import CODE, Users, wait

from leptonai.client import Client
from leptonai.drill import pods
from leptonai.plan.render import gate
from leptonai.plan.render.control import NAME
from leptonai.plan.render.pod import UID
from leptonai.types import Resources, Scale, Spec, Variant

POD = f"{NAME}-0"
GATES = ",".join(f"{name}={value}" for name, value in gate.CHOSEN.items())
LOST = "gateway killed without a word (told only)"


def kubectl(space: str, *args: str, stdin: str | None = None) -> str:
    done = subprocess.run(["kubectl", "-n", space, *args], capture_output=True, text=True, input=stdin)
    if done.returncode:
        raise RuntimeError(f"kubectl {args}: {done.stderr}")
    return done.stdout


def address(space: str, service: str) -> str:
    return json.loads(kubectl(space, "get", "service", service, "-o", "json"))["spec"]["clusterIP"]


def gates(space: str) -> list[str]:
    """Names of the gateway's pods that are ready."""
    listed = kubectl(space, "get", "pods", "-l", GATES, "--no-headers").splitlines()
    return [line.split()[0] for line in listed if line.split()[1:3] == ["1/1", "Running"]]


def volume(space: str, folder: Path) -> str:
    folder.mkdir(parents=True)
    os.chown(folder, UID, UID)
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": space},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": str(folder)},
                "claimRef": {"namespace": space, "name": f"home-{POD}"},
            },
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", required=True, help="command that imports an OCI archive into the nodes")
    parser.add_argument("--volume", required=True, type=Path, help="a folder of the node, for the home")
    parser.add_argument("--archive", type=Path, help="what `leptonai build --control` has written already")
    parser.add_argument("--loaded", action="store_true", help="an earlier run has loaded both images")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second, of each kind of user")
    asked = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="leptonai-bench-") as name, pods.namespace() as space:
        folder = Path(name)
        model = folder / "one"
        model.mkdir()
        (model / "model.py").write_text(CODE)
        here = folder / "here"
        here.mkdir()
        archive = asked.archive or folder / "control.tar"
        if not asked.loaded:
            if not asked.archive:
                cli(here, "build", "--control", "-o", str(archive))
            pods.run([*asked.load.split(), str(archive)], "load the platform's image", "")
            pods.images(folder, {"one": model}, asked.load, lambda *a, patience: cli(here, *a))
        chosen = folder / "settings.yaml"
        chosen.write_bytes(msgspec.yaml.encode({"kubernetes": {"image": pods.settings(space)["kubernetes"]["image"]}}))
        kubectl(space, "apply", "-f", "-", stdin=volume(space, asked.volume / space))
        objects = cli(here, "export", "control", "--namespace", space, "--settings", str(chosen), "--cpu", "100m",
                      "--gateway-cpu", "100m")  # fmt: skip
        try:
            failed = measure(space, model, asked, objects, folder)
        finally:
            cli(folder / "copy", "down") if (folder / "copy").exists() else None
            subprocess.run(["kubectl", "-n", space, "delete", "statefulset", NAME, "--timeout=120s"], check=False)
            subprocess.run(["kubectl", "delete", "persistentvolume", space, "--wait=false"], check=False)
            shutil.rmtree(asked.volume / space, ignore_errors=True)
    return 1 if failed else 0


def measure(space: str, model: Path, asked: argparse.Namespace, objects: str, folder: Path) -> bool:
    took: dict[str, float] = {}
    began = time.monotonic()
    kubectl(space, "apply", "-f", "-", stdin=objects)
    token = folder / "token"

    def admitted() -> bool:
        said = kubectl(space, "exec", POD, "--", "python", "-m", "leptonai.cli", "token", "create", "bench",
                       "--role", "admin", "--json")  # fmt: skip
        token.write_text(json.loads(said)["secret"])
        return True

    wait(lambda: " 1/1 " in kubectl(space, "get", "pod", POD, "--no-headers"), "the platform's pod is ready")
    took["applied until ready"] = time.monotonic() - began
    wait(admitted, "it makes a token")
    control = address(space, NAME)
    client = Client(f"http://{control}:8310", token.read_text(), home=folder / "here")
    # Its share of the processor: what asks for none stands behind a platform that starts, and fails its probes.
    variant = Variant(model=str(model), idempotent=True, resources=Resources(cpu=0.5))
    spec = Spec(name="greeter", variants=(variant,), scale=Scale(replicas=2), drain=3.0)
    client.deploy(spec, why="first")
    wait(lambda: sum(r.state == "ready" for r in client.replicas("greeter")) == 2, "two replicas are ready")
    replicas = {r.id for r in client.replicas("greeter")}
    lane = Users(f"http://{address(space, 'greeter')}/predict", asked.rate)
    wait(lambda: len(gates(space)) == 2, "two gateways are ready")
    gateway = Users(f"http://{address(space, gate.NAME)}/services/greeter/predict", asked.rate)
    for users in (lane, gateway):
        users.start()
    time.sleep(15.0)
    end = time.time()
    counted = ("ready_count", end - 10.0, end - 3.0, {"service": "greeter"})
    events = {e.seq for e in client.events(limit=1000)}
    holder = client.platform()["leader"]["holder"]

    def uid() -> str:
        return str(json.loads(kubectl(space, "get", "pod", POD, "-o", "json"))["metadata"]["uid"])

    def stage(name: str, act: Callable[[], object], done: Callable[[], object]) -> None:
        lane.stage = gateway.stage = name
        act()
        took[name] = wait(done, name)
        time.sleep(5.0)

    def back(before: str) -> Callable[[], bool]:
        def done() -> bool:
            return uid() != before and client.platform()["leader"]["leads"] is True

        return done

    wrong = []

    def kept(where: Client) -> None:
        seen = {r.id for r in where.replicas("greeter")}
        if seen != replicas:
            wrong.append(f"pods were replaced: {replicas ^ seen}")
        if not events <= {e.seq for e in where.events(after=min(events) - 1, limit=100000)}:
            wrong.append("events are missing")
        if not any(s.at for s in where.signals(*counted)):
            wrong.append("telemetry of before is missing")

    before = uid()
    stage("control pod killed", lambda: kubectl(space, "delete", "pod", POD, "--grace-period=0", "--force"),
          back(before))  # fmt: skip
    kept(client)
    before = uid()
    stage("control pod deleted", lambda: kubectl(space, "delete", "pod", POD, "--wait=false"), back(before))
    kept(client)

    def replaced(gone: str) -> Callable[[], bool]:
        return lambda: len(gates(space)) == 2 and gone not in kubectl(space, "get", "pods", "--no-headers")

    first = gates(space)[0]
    stage("gateway pod deleted", lambda: kubectl(space, "delete", "pod", first, "--wait=false"), replaced(first))
    stage("gateway rolled", lambda: kubectl(space, "rollout", "restart", "deployment", gate.NAME),
          lambda: kubectl(space, "rollout", "status", "deployment", gate.NAME, "--timeout=200s")
          and kubectl(space, "get", "pods", "-l", GATES, "--no-headers").count("\n") == 2)  # fmt: skip
    copy = folder / "copy"

    def elsewhere() -> None:
        kubectl(space, "scale", "statefulset", NAME, "--replicas=0")
        kubectl(space, "delete", "pod", POD, "--grace-period=0", "--force")
        wait(lambda: POD not in kubectl(space, "get", "pods", "--no-headers"), "its pod is gone")
        volatile = shutil.ignore_patterns("control.json", "ops.json", "run", "envoy", "settings.yaml", ".*")
        shutil.copytree(asked.volume / space, copy, ignore=volatile)
        read = msgspec.yaml.decode((folder / "settings.yaml").read_bytes())
        read["kubernetes"] |= {"enabled": True, "namespace": space, "gateway_pods": True}
        (copy / "settings.yaml").write_bytes(msgspec.yaml.encode(read | {"api": {"port": 0}, "gateway": {"port": 0}}))
        cli(copy, "up")

    def led() -> bool:
        with Client(home=copy) as there:
            leader = there.platform()["leader"]
        return bool(leader["leads"]) and leader["holder"] != holder

    name, began = "leader change, no word from the first", time.monotonic()
    try:
        stage(name, elsewhere, led)
        took[name] = time.monotonic() - began - 5.0
        with Client(home=copy) as there:
            kept(there)
    except subprocess.CalledProcessError as e:
        wrong.append(f"nobody led from elsewhere: {e.stderr}")
    last = gates(space)[0]
    kill = ("delete", "pod", last, "--grace-period=0", "--force")
    stage(LOST, lambda: kubectl(space, *kill), lambda: len(gates(space)) == 2)
    for users in (lane, gateway):
        users.done.set()
        users.join()
    print("| stage | seconds | by | requests | failed | slowest, s |\n|---|---|---|---|---|---|")
    bad = bool(wrong)
    for by, users in (("Service", lane), ("gateway", gateway)):
        for name in dict.fromkeys(s for s, _ in users.counts):
            sent = sum(n for (s, _), n in users.counts.items() if s == name)
            lost = {o: n for (s, o), n in users.counts.items() if s == name and o != "answered"}
            bad |= name != LOST and bool(lost)
            what = ", ".join(f"{n} {o}" for o, n in lost.items()) or "0"
            shown = took.get(name, 0.0)
            print(f"| {name or 'before'} | {shown:.1f} | {by} | {sent} | {what} | {users.slowest[name]:.2f} |")
    print(f"applied until ready: {took['applied until ready']:.1f} s")
    print("; ".join(wrong) or "no pod replaced; events and telemetry of before are there")
    client.close()
    return bad


if __name__ == "__main__":
    sys.exit(main())
