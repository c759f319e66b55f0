"""Where the story plays: a platform of its own in a folder of its own, one service, its users. All gone afterwards."""

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

import msgspec
import numpy as np

from leptonai.client import Client
from leptonai.demo import traffic
from leptonai.demo.outcome import Injection, Kind
from leptonai.demo.screen import Screen
from leptonai.demo.train import Trained, train
from leptonai.errors import PlatformError, SpecError
from leptonai.types import Key, Rollout, Scale, Slo, Spec, Variant

SERVICE: Key = "digits"
SETTINGS = {"api": {"port": 0}, "gateway": {"port": 0}}  # any free ports: no running platform is in the way
PATIENCE = 60.0  # seconds for a process of the stage to do one thing


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
        drain=3.0,
    )


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

    def inject(self, kind: Kind, seed: int) -> Injection:
        """One thing is broken when this returns, by another process. PlatformError when it could not be."""
        command = [sys.executable, "-m", "leptonai.demo.faults", kind, "--service", SERVICE]
        command += ["--models", str(self.models), "--seed", str(seed)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0:
            raise PlatformError(f"could not inject {kind}: {done.stderr.strip()}", hint="the story cannot go on")
        return msgspec.json.decode(done.stdout, type=Injection)

    def cli(self, *arguments: str) -> str:
        """What ``leptonai ARGUMENTS`` prints about this platform."""
        return run_cli(self.home, *arguments)


@contextlib.contextmanager
def stage(folder: Path | None, seed: int, rate: float, screen: Screen) -> Iterator[Stage]:
    """A stage that is ready when the block begins; nothing of it is left when the block ends, however it ends.

    ``folder``: the home of the platform, new or empty, kept afterwards; None: a temporary one, removed.
    Raises SpecError for a folder that holds something: whatever runs there is not ours to take down.
    """
    with contextlib.ExitStack() as stack:
        home = empty(folder) if folder else Path(tempfile.mkdtemp(prefix="leptonai-demo-"))
        if folder is None:
            stack.callback(remove, home)
        props = Path(tempfile.mkdtemp(prefix="leptonai-demo-"))  # what the platform must not read
        stack.callback(remove, props)
        stack.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))

        screen.doing("training a digits classifier on 1,797 real images")
        began = time.monotonic()
        trained = train(props / "models", seed)
        screen.note(
            f"trained in {time.monotonic() - began:.1f} s: {trained.accuracy:.1%} of {len(trained.live.label)} "
            "held-out digits right; exported to ONNX with golden examples"
        )
        screen.doing("starting the platform: control, ops, Envoy")
        (home / "settings.yaml").write_bytes(msgspec.yaml.encode(SETTINGS))
        stack.callback(run_cli, home, "down")
        # From here on a second Ctrl-C does not cut the cleaning up short.
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)
        run_cli(home, "up")
        client = stack.enter_context(Client(*whereabouts(home)))
        console = client.session()
        screen.note(f"console: {console}")

        screen.doing("deploying digits.onnx with 2 replicas")
        view = client.deploy(
            spec(trained.good), why="first model", report=lambda progress: screen.doing(f"deploying {progress.text}")
        )
        screen.note(f"serving: {view.url}")
        secret = client.create_token("users", role="operator").secret
        log = stack.enter_context(users(props, view.url, client.url, secret, trained, rate, seed))
        token = client.create_token("ana", role="operator").secret
        yield Stage(
            home=home,
            client=client,
            models=props / "models",
            trained=trained,
            good=view.service.spec,
            answers=log,
            console=console,
            environment=environment(home) | {"LEPTONAI_HOST": client.url, "LEPTONAI_TOKEN": token},
        )
        screen.doing("taking everything down")


@contextlib.contextmanager
def users(
    folder: Path, url: str, control: str, token: str, trained: Trained, rate: float, seed: int
) -> Iterator[traffic.Tail]:
    """Traffic flows while the block runs; the value reads what became of it."""
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
    )
    config.write_bytes(msgspec.json.encode(plan))
    process = subprocess.Popen(
        [sys.executable, "-m", "leptonai.demo.traffic", str(config)],
        stdin=subprocess.PIPE,
        env={**os.environ, "LEPTONAI_TOKEN": token},
        start_new_session=True,  # Ctrl-C is for us, not for the users
    )
    try:
        yield traffic.Tail(log)
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(plan.timeout + 5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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


def run_cli(home: Path, *arguments: str) -> str:
    """``leptonai ARGUMENTS`` as a person would type it. PlatformError with what it complained of."""
    command = [sys.executable, "-c", "from leptonai.cli import main; main()", *arguments]
    done = subprocess.run(
        command, env=environment(home), capture_output=True, text=True, timeout=PATIENCE, start_new_session=True
    )
    if done.returncode != 0:
        raise PlatformError(f"leptonai {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def whereabouts(home: Path) -> tuple[str, str]:
    """``(URL, admin token)`` of the platform on ``home``, whatever the environment says."""
    where = msgspec.json.decode((home / "control.json").read_bytes())
    return str(where["url"]), (home / "token").read_text().strip()
