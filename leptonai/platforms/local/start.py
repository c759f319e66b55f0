"""Starting one replica: folder, walls, limits, process; in an order that leaves no process unrecorded."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from leptonai.errors import StartError
from leptonai.platforms.local import cgroup, isolate
from leptonai.platforms.local.process import Process, boot_id
from leptonai.platforms.local.rundir import Record, RunDir, socket_path
from leptonai.types import Launch, Service, Start, Variant, parse_key


class Artifacts(Protocol):
    """What is needed of ``leptonai.store.Artifacts``."""

    def path(self, digest: str) -> Path: ...

    def verify(self, digest: str) -> None: ...


class Ground(NamedTuple):
    """Where replicas are started."""

    home: Path
    runtime: Path  # the short folder for sockets
    label: str  # tells this home's control groups from others'
    isolated: bool
    max_body: int  # bytes of one request: what the gateway lets through, a replica reads


def new_record(ground: Ground, service: Service, variant: Variant, step: Start, uid: int | None, now: float) -> Record:
    """The record of a replica that is about to be started; its socket's folder exists."""
    _, name = parse_key(service.key)
    identity = f"{name}-{variant.name}-{secrets.token_hex(4)}"
    return Record(
        id=identity,
        service=service.key,
        variant=variant.name,
        digest=step.digest,
        epoch=step.epoch,
        attempt=step.attempt,
        started=now,
        socket=str(socket_path(ground.runtime, identity, uid)),
        drain=service.spec.drain,
        resources=variant.resources,
        uid=uid,
    )


def prepare(folder: RunDir, record: Record, service: Service, variant: Variant, artifact: Path) -> None:
    """The run directory is there with its ``launch.json``."""
    launch = Launch(
        replica=record.id,
        service=record.service,
        variant=variant,
        revision=service.revision_of(variant),
        artifact=str(artifact),
        socket=record.socket,
        run_dir=str(folder.path),
        timeout=service.spec.timeout,
        latency=service.spec.slo.latency,
        drain=service.spec.drain,
    )
    folder.create(launch, record.uid)
    folder.save(record)


def spawn(ground: Ground, folder: RunDir, record: Record, variant: Variant, artifact: Path) -> tuple[Process, Record]:
    """The process runs and its record says so; StartError otherwise, and then no process is left.

    The launcher waits for its order until the record is on disk: a platform that dies in between leaves nothing that
    a fresh one would not know of.
    """
    python = variant.python or sys.executable
    walls = None
    if record.uid is not None and ground.isolated:
        write = [str(folder.path), str(Path(record.socket).parent)]
        walls = isolate.isolation(record.uid, ground.home, python, [str(artifact)], write)
    # Numeric libraries take every core by default, and so would each replica; half leaves room for another.
    threads = max(1, round(variant.resources.cpu or len(os.sched_getaffinity(0)) / 2))
    order = isolate.Order(
        argv=(python, "-P", "-m", "leptonai.runtime", str(folder.path)),
        env=isolate.environment(str(folder.path), variant.env, threads) | {"LEPTONAI_MAX_BODY": str(ground.max_body)},
        cwd=str(folder.path),
        isolation=walls,
    )
    groups: tuple[str, ...] = ()
    reading, writing = os.pipe()
    try:
        process = Process.spawn(isolate.LAUNCHER, {"PATH": "/usr/bin:/bin"}, folder.log, stdin=reading)
        try:
            if ground.isolated:
                with contextlib.suppress(OSError):  # the platform then watches its memory itself
                    groups = cgroup.create(f"leptonai-{ground.label}-{record.id}", variant.resources)
                    cgroup.enter(groups, process.pid)
            record = msgspec.structs.replace(
                record, pid=process.pid, ticks=process.ticks, boot=boot_id(), cgroups=groups
            )
            folder.save(record)
            _write_all(writing, msgspec.json.encode(order))
        except OSError as e:
            process.kill()
            process.release()
            cgroup.remove(groups)
            raise StartError(f"cannot start {record.id}: {e.strerror}", hint="is the disk full?") from e
    finally:
        os.close(reading)
        os.close(writing)
    return process, record


def _write_all(fd: int, content: bytes) -> None:
    """An order of some kilobytes fits the pipe's buffer (64 KiB); a longer one waits for the launcher to read."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
