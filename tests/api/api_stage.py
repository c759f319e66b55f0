"""The API over the platform without processes, reached over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from leptonai.admit import Door, issue
from leptonai.admit.switch import Switch
from leptonai.api import create_app
from leptonai.api.wishes import Wishes
from leptonai.client import Client
from leptonai.errors import LeptonError
from leptonai.platforms.memory import MemoryPlatform, World
from leptonai.serve.reconcile import Reconciler
from leptonai.settings import Api, Settings
from leptonai.store import Artifacts, Store
from leptonai.types import Key, Role, Spec, SpecChange, Token, Variant


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        yield


@dataclass
class Clock:
    """The time of the API: the real one, shifted by ``offset`` seconds."""

    offset: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@dataclass
class Stage:
    """A whole control process but for the process: door, store, platform, API, and the reconcile loop."""

    url: str
    home: Path
    store: Store
    artifacts: Artifacts
    platform: MemoryPlatform
    door: Door
    app: Any
    now: Clock
    closed: list[LeptonError]  # why this copy takes no wish, while there is a reason
    secrets: dict[str, str] = field(default_factory=dict)

    def token(self, name: str, role: Role = "viewer", workspaces: tuple[str, ...] = ("*",), **more: Any) -> str:
        secret, token = issue(name, role, workspaces, now=self.now(), **more)
        self.store.put_token(token)
        self.app.state.world.callers.forget()
        self.secrets[name] = secret
        return secret

    def client(self, role: Role = "admin") -> Client:
        if role not in self.secrets:
            self.token(role, role)
        return Client(self.url, self.secrets[role], home=self.home)

    def http(self, role: Role | None = "admin", **headers: str) -> httpx.Client:
        if role is not None:
            if role not in self.secrets:
                self.token(role, role)
            headers["authorization"] = f"Bearer {self.secrets[role]}"
        return httpx.Client(base_url=self.url + "/api/v1", headers=headers, trust_env=False)

    def model(self, name: str = "model.py", text: str = "class Model: ...\n") -> Path:
        folder = self.home / f"model-{abs(hash((name, text)))}"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        return folder

    def service(self, name: str = "digits", workspace: str = "default", **spec: Any) -> Spec:
        """A service that the door admitted."""
        digest = self.artifacts.put_tree(self.model())
        made = Spec(name=name, workspace=workspace, variants=(Variant(model=digest),), **spec)
        actor = Token(name="ana", role="admin", secret_sha256="", created=0.0)
        base = self.store.head(made.key)
        self.door.propose(SpecChange(spec=made, base=base.number if base else 0), actor, "a test")
        return made


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One stage for a table of calls that must leave it as it is; ``digits`` is served."""
    with open_stage(tmp_path_factory.mktemp("shared")) as stage:
        stage.service()
        yield stage


@contextlib.contextmanager
def open_stage(tmp_path: Path) -> Iterator[Stage]:
    settings = Settings(api=Api(port=0, max_body=1 << 20, feedback_rate=1.0, feedback_burst=5.0))
    world = World()
    platform = MemoryPlatform(world, settings)
    store = Store(tmp_path / "store.db")
    artifacts = Artifacts(tmp_path / "artifacts")
    wishes = Wishes(store)
    clock = Clock()
    signals = tmp_path / "ops.sock"
    loop: list[asyncio.AbstractEventLoop] = []

    def on_change(key: Key) -> None:  # also from the thread of a test
        wishes.changed(key)
        loop[0].call_soon_threadsafe(reconciler.wake, key)

    def record(kind: str, subject: str, detail: dict[str, Any]) -> None:
        store.record(kind, subject, detail, actor="control", at=time.time())

    reconciler = Reconciler(platform, wishes.services, record, period=0.05)

    switch = Switch(tmp_path / "frozen")
    door = Door(store, settings, on_change=on_change, artifacts=artifacts, frozen=switch.said)
    closed: list[LeptonError] = []
    app = create_app(
        door,
        store,
        artifacts,
        platform,
        settings,
        wishes=wishes,
        switch=switch,
        clock=clock,
        secret=b"test",
        ops_socket=lambda: str(signals) if signals.exists() else None,
        vault=tmp_path / "logs-store" / "vault.json",
        closed=lambda: closed[0] if closed else None,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))

    async def main() -> None:
        loop.append(asyncio.get_running_loop())
        reconciling = asyncio.create_task(reconciler.run())
        await server.serve(sockets=[listener])
        await app.state.world.signals.close()
        reconciling.cancel()
        await asyncio.gather(reconciling, return_exceptions=True)
        while server.server_state.connections:  # noqa: ASYNC110 - closed by now, but the loop has not heard of it yet
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    stage = Stage(f"http://127.0.0.1:{port}", tmp_path, store, artifacts, platform, door, app, clock, closed)
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    yield stage
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()
    listener.close()
    store.close()
