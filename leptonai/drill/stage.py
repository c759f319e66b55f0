"""Where drills play: a platform of its own in a folder of its own, one service, its users. All gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from leptonai.client import Client
from leptonai.drill import pods, traffic
from leptonai.drill.screen import Screen
from leptonai.drill.train import Trained, train
from leptonai.errors import PlatformError, SpecError
from leptonai.types import Batching, Key, Resources, Rollout, Scale, Slo, Spec, Variant

SERVICE: Key = "digits"
NEIGHBOUR: Key = "neighbour"
SETTINGS: dict[str, Any] = {
    "api": {"port": 0},
    "gateway": {"port": 0},
}  # any free ports: no running platform is in the way
PATIENCE = 60.0  # seconds for a process of the stage to do one thing
DRAIN = 3.0  # seconds
MEMORY = 700 << 20  # bytes of one replica of the wrapped service: twice what it takes
# Seconds. Drills come one after another: the default, half a minute, would be most of the time; and what comes back
# sooner than this is the same incident, so the next drill waits longer.
REOPEN = 3.0
QUIET = 5.0

DependencyMood = Literal["ok", "slow", "denied", "dead", "cold"]


def spec(model: Path) -> Spec:
    """The good service. Public fields only; times are short because the whole story is.

    ``slo.period``: burn windows scale with it (1 h of 30 days is 10 s of two hours), so a broken promise is noticed
    in seconds, as it would be within minutes over a month.
    """
    return Spec(
        name=SERVICE,
        variants=(Variant(model=str(model), idempotent=True),),
        slo=Slo(availability=0.99, latency=0.15, latency_objective=0.95, period=7200.0),
        scale=Scale(min=1, max=4, replicas=2),
        rollout=Rollout(verify_seconds=4.0, verify_requests=100),
        timeout=10.0,
        drain=DRAIN,
    )


@dataclass(frozen=True)
class Props:
    """What a stage with everything has besides: the files by which its dependency, its users and its GPUs are told."""

    folder: Path

    @property
    def mood(self) -> Path:
        return self.folder / "mood.json"

    @property
    def dependency(self) -> Path:
        return self.folder / "dependency.txt"

    @property
    def network(self) -> Path:
        return self.folder / "network.txt"

    @property
    def gpus(self) -> Path:
        return self.folder / "gpus.json"

    def ask(self, mood: traffic.Mood) -> None:
        """Users are in this mood within ``traffic.MOOD_EVERY`` seconds."""
        write(self.mood, msgspec.json.encode(mood))

    def depend(self, mood: DependencyMood) -> None:
        """The dependency is in this mood a moment later."""
        write(self.dependency, mood.encode())

    def wire(self, mood: str) -> None:
        """The network to the dependency is so a moment later: ``ok``, ``far SECONDS``, ``lossy SHARE``."""
        write(self.network, mood.encode())

    def card(self, **fault: Any) -> None:
        """What the one simulated GPU says of itself from now on; everything well, but for ``fault``."""
        well = {"busy": 0.4, "memory_used": 2e9, "memory_total": 8e9, "celsius": 61.0, "watts": 140.0}
        well |= {"ecc_errors": 0.0, "xid_errors": 0.0, "hot": False, "lost": False}
        write(self.gpus, msgspec.json.encode([{"number": 0, "name": "simulated", **well, **fault}]))


@dataclass
class Place:
    """Where a drill plays. Without ``props`` and ``trained`` it is a service that people use."""

    client: Client
    service: Key
    good: Spec  # what is to run, when all is well
    wanted: int = 2  # replicas, when all is well
    props: Props | None = None
    trained: Trained | None = None
    answers: traffic.Tail | None = None
    quiet: float = 2.0  # seconds of calm before the next fault


@dataclass(frozen=True)
class Stage:
    """A platform with the good service, and users who send it digits."""

    home: Path
    client: Client
    models: Path
    trained: Trained
    good: Spec  # as admitted: its model is named by content
    answers: traffic.Tail
    console: str
    environment: dict[str, str]  # for processes that talk to this platform and no other
    props: Props

    def place(self) -> Place:
        """Where drills play on this stage."""
        quiet = QUIET if "features" in self.good.variants[0].options else Place.quiet
        return Place(self.client, SERVICE, self.good, 2, self.props, self.trained, self.answers, quiet)

    def cli(self, *arguments: str) -> str:
        """What ``leptonai ARGUMENTS`` prints about this platform."""
        return run_cli(self.home, *arguments)


def write(path: Path, content: bytes) -> None:
    """All of it or nothing, for whoever reads."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


@contextlib.contextmanager
def stage(
    folder: Path | None,
    seed: int,
    rate: float,
    screen: Screen,
    whole: bool = False,
    work: float = 0.0,
    load: str | None = None,
) -> Iterator[Stage]:
    """A stage that is ready when the block begins; nothing of it is left when the block ends, however it ends.

    ``folder``: the home of the platform, new or empty, kept afterwards; None: a temporary one, removed. ``whole``: the
    service is an application that calls another one, on a machine with a (simulated) GPU and with a neighbour; each
    call of its model takes ``work`` seconds of a processor besides.
    ``load``: replicas are pods of the cluster that KUBECONFIG names, and this command imports images into its nodes.
    Raises SpecError for a folder that holds something: whatever runs there is not ours to take down.
    """
    with contextlib.ExitStack() as stack:
        home = empty(folder) if folder else Path(tempfile.mkdtemp(prefix="leptonai-drill-"))
        if folder is None:
            stack.callback(remove, home)
        props = Props(Path(tempfile.mkdtemp(prefix="leptonai-drill-")))  # what the platform must not read
        stack.callback(remove, props.folder)
        stack.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))

        screen.doing("training a digits classifier on 1,797 real images")
        began = time.monotonic()
        trained = train(props.folder / "models", seed)
        screen.note(
            f"trained in {time.monotonic() - began:.1f} s: {trained.accuracy:.1%} of {len(trained.live.label)} "
            "held-out digits right; exported to ONNX with golden examples"
        )
        screen.doing("starting the platform: control, ops, Envoy")
        settings = SETTINGS
        if whole:
            props.card()
            settings = SETTINGS | {"ops": {"gpus": str(props.gpus), "reopen": REOPEN}}
        if load is not None:
            settings = SETTINGS | pods.settings(stack.enter_context(pods.namespace()))
            screen.doing("building images with the models, and loading them into the cluster")
            models = {"good": trained.good, "wrong": trained.wrong, "slow": trained.slow}
            pods.images(props.folder, models, load, lambda *a, patience: run_cli(home, *a, patience=patience))
        (home / "settings.yaml").write_bytes(msgspec.yaml.encode(settings))
        stack.callback(run_cli, home, "down", patience=PATIENCE + (pods.ending(DRAIN) if load is not None else 0.0))
        # From here on a second Ctrl-C does not cut the cleaning up short.
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)
        run_cli(home, "up")
        client = stack.enter_context(Client(*whereabouts(home)))
        console = client.session()
        screen.note(f"console: {console}")

        screen.doing("deploying digits with 2 replicas")
        secret = client.create_token("users", role="operator").secret
        wanted = spec(trained.good)
        if whole:
            port = stack.enter_context(dependency(props))
            wanted = application(trained.whole, port, client.url, secret, work)
        view = client.deploy(
            wanted, why="first model", report=lambda progress: screen.doing(f"deploying {progress.text}")
        )
        if whole:
            client.deploy(neighbour(trained.good), why="lives here too")
        screen.note(f"serving: {view.url}")
        log = stack.enter_context(users(props, view.url, client.url, secret, trained, rate, seed))
        token = client.create_token("ana", role="operator").secret
        yield Stage(
            home=home,
            client=client,
            models=props.folder / "models",
            trained=trained,
            good=view.service.spec,
            answers=log,
            console=console,
            environment=environment(home) | {"LEPTONAI_HOST": client.url, "LEPTONAI_TOKEN": token},
            props=props,
        )
        screen.doing("taking everything down")


def application(model: Path, port: int, control: str, token: str, work: float = 0.0) -> Spec:
    """The good service as an application: it calls what listens on ``port`` and tells of it as OpenTelemetry has it."""
    good = spec(model)
    traces = {
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{control}/v1/traces",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {token}",
    }
    variant = msgspec.structs.replace(
        good.variants[0],
        options={"features": f"http://127.0.0.1:{port}/features", "work": work},
        env=traces,
        resources=Resources(memory=MEMORY),
        batching=Batching(max_size=1),  # with the dependency's 40 ms: some 22 requests a second of one replica
    )
    slo = msgspec.structs.replace(good.slo, latency=0.3, period=3600.0)
    return msgspec.structs.replace(good, variants=(variant,), slo=slo)


def neighbour(model: Path) -> Spec:
    """Another service on the same machine."""
    return Spec(name=NEIGHBOUR, variants=(Variant(model=str(model), idempotent=True),), scale=Scale(replicas=1))


@contextlib.contextmanager
def dependency(props: Props) -> Iterator[int]:
    """The port on which a service to be called is reached while the block runs, over a network of ours."""
    port, relayed = props.folder / "port", props.folder / "relayed"
    props.depend("ok")
    props.wire("ok")
    with program("leptonai.drill.dependency", str(port), str(props.dependency)):
        target = _told(port, "the dependency of the drilled service")
        with program("leptonai.drill.relay", str(relayed), str(target), str(props.network)):
            yield _told(relayed, "the network to the dependency")


def _told(port: Path, what: str) -> int:
    """The port that a program has written down. PlatformError when it does not within PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not port.exists():
        if time.monotonic() > deadline:
            raise PlatformError(f"{what} does not start")
        time.sleep(0.05)
    return int(port.read_text())


@contextlib.contextmanager
def program(
    module: str, *arguments: str, patience: float = 10.0, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """``python -m MODULE`` runs while the block does; it ends when its standard input does, at the latest killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C is for us, not for them
    )
    try:
        yield process
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def users(
    props: Props, url: str, control: str, token: str, trained: Trained, rate: float, seed: int
) -> Iterator[traffic.Tail]:
    """Traffic flows while the block runs; the value reads what became of it."""
    folder = props.folder
    images, log, config = folder / "live.npz", folder / "answers.jsonl", folder / "traffic.json"
    np.savez(images, image=trained.live.image, label=trained.live.label)
    gateway = url.partition("/services/")[0]
    plan = traffic.Plan(
        url=f"{gateway}/v2/models/{SERVICE}/infer",
        feedback=f"{gateway}/feedback",
        images=str(images),
        log=str(log),
        service=SERVICE,
        rate=rate,
        seed=seed,
        mood=str(props.mood),
    )
    config.write_bytes(msgspec.json.encode(plan))
    with program("leptonai.drill.traffic", str(config), patience=plan.timeout + 5.0, LEPTONAI_TOKEN=token):
        yield traffic.Tail(log)


def empty(folder: Path) -> Path:
    """``folder``, which now exists and is empty."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = next(folder.iterdir(), None)
    except OSError as e:
        raise SpecError(f"--home {folder}: {e.strerror}", hint="name a folder that can be made") from e
    if held is not None:
        raise SpecError(f"--home {folder} holds {held.name} already", hint="name a new or an empty folder")
    return folder


def remove(folder: Path) -> None:
    """Nothing of ``folder`` is left, its read-only artifacts neither. PlatformError when it cannot be removed."""
    try:
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o700)
        shutil.rmtree(folder)
    except OSError as e:
        raise PlatformError(f"{folder} cannot be removed: {e}", hint="remove it by hand") from e


def environment(home: Path) -> dict[str, str]:
    """Ours, without anything that points to another platform."""
    return {k: v for k, v in os.environ.items() if not k.startswith("LEPTONAI_")} | {"LEPTONAI_HOME": str(home)}


def run_cli(home: Path, *arguments: str, patience: float = PATIENCE) -> str:
    """``leptonai ARGUMENTS`` as a person would type it. PlatformError with what it complained of, or when it takes more
    than ``patience`` seconds."""
    command = [sys.executable, "-c", "from leptonai.cli import main; main()", *arguments]
    try:
        done = subprocess.run(
            command, env=environment(home), capture_output=True, text=True, timeout=patience, start_new_session=True
        )
    except subprocess.TimeoutExpired as e:
        raise PlatformError(f"leptonai {' '.join(arguments)}: not done within {patience:g} s") from e
    if done.returncode != 0:
        raise PlatformError(f"leptonai {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def whereabouts(home: Path) -> tuple[str, str]:
    """``(URL, admin token)`` of the platform on ``home``, whatever the environment says."""
    where = msgspec.json.decode((home / "control.json").read_bytes())
    return str(where["url"]), (home / "token").read_text().strip()
