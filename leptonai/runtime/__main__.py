"""``python -m leptonai.runtime RUN_DIR``: one replica. Exit 0: drained; 8: the model does not load; 2: misuse."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec
import uvloop

from leptonai.errors import LeptonError, ModelError, SpecError
from leptonai.runtime import host
from leptonai.runtime.app import MAX_BODY, READ_TIMEOUT, App
from leptonai.runtime.http import Connection
from leptonai.runtime.orders import SECRET
from leptonai.types import Launch

BACKLOG = 1024


def main(argv: list[str]) -> int:
    """Run the replica described by ``argv[0]``/launch.json until it is told to stop; returns its exit code."""
    _quiet()
    if len(argv) != 1:
        print("usage: python -m leptonai.runtime RUN_DIR", file=sys.stderr)
        return SpecError.exit_code
    run_dir = Path(argv[0])
    try:
        launch = msgspec.json.decode((run_dir / "launch.json").read_bytes(), type=Launch)
        launch = named(launch)
    except (OSError, msgspec.DecodeError, SpecError) as e:
        logging.error("%s: %s", run_dir / "launch.json", e)
        return SpecError.exit_code
    failure = run_dir / "failure.json"
    failure.unlink(missing_ok=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        asyncio.set_event_loop(loop)
        try:
            body, patience = limit("LEPTONAI_MAX_BODY", MAX_BODY), limit("LEPTONAI_READ_TIMEOUT", READ_TIMEOUT)
            # Taken out of the environment, so that nothing the model starts or prints gets it by accident.
            app = App(launch, loop, body, patience, os.environ.pop(SECRET, ""))
            listener = listen(launch.socket)
            serving = loop.create_task(serve(app, listener))
            host.run(loop, app, listener, serving)
            error, ended = serving.result()
        except LeptonError as e:
            logging.error("%s (%s)", e.message, e.hint)
            error, ended = e, True
    if error is not None:
        _write(failure, msgspec.json.encode(error.body()))
    sys.stdout.flush()
    code = 0 if error is None else error.exit_code
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if others or not ended:  # the model still computes, or left threads: the interpreter would wait for them
        os._exit(code)
    return code


async def serve(app: App, listener: socket.socket) -> tuple[LeptonError | None, bool]:
    """Serve until stopped. ``(why it failed or None, whether the compute thread has ended)``."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(app), sock=listener, backlog=BACKLOG)
    app.predictions.start()
    app.compute.start()
    app.tick()
    error = await app.done
    server.close()
    for connection in list(app.connections):
        connection.close()
    await asyncio.sleep(0)
    app.predictions.close()
    ended = await loop.run_in_executor(None, app.compute.stop, 1.0)
    if "/" in app.socket:
        Path(app.socket).unlink(missing_ok=True)
    return error, ended


def named(launch: Launch) -> Launch:
    """``launch`` with the replica's id, from the environment where it leaves it out. SpecError when neither says it."""
    if launch.replica:
        return launch
    name = os.environ.get("LEPTONAI_REPLICA", "")
    if not name:
        raise SpecError("replica is empty, and so is LEPTONAI_REPLICA", hint="set it to the pod's name")
    return msgspec.structs.replace(launch, replica=name)


def limit(name: str, default: float) -> float:
    """A positive number from the environment. SpecError when it is something else."""
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not value > 0:
        raise SpecError(f"{name} is {text!r}", hint=f"give a number above 0; the default is {default:g}")
    return value


def listen(address: str) -> socket.socket:
    """A listening socket at a Unix path, or at ``host:port``. A stale socket file is replaced."""
    try:
        if "/" not in address:
            host, _, port = address.rpartition(":")
            return socket.create_server((host, int(port)), backlog=BACKLOG)
        Path(address).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(BACKLOG)
        return listener
    except (OSError, ValueError) as e:
        raise ModelError(
            f"cannot listen on {address}: {e}", hint="a Unix path has at most 107 bytes", code="listen"
        ) from e


def _quiet() -> None:
    """Lines to stderr with a time in UTC and a level; output by lines; nothing to read from."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    logging.addLevelName(logging.WARNING, "warning")
    for level in (logging.DEBUG, logging.INFO, logging.ERROR, logging.CRITICAL):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    logging.Formatter.converter = time.gmtime


def _write(path: Path, data: bytes) -> None:
    """The file as a whole or not at all; a full disk is only logged, the exit code still says what happened."""
    part = path.with_suffix(".part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as e:
        logging.error("%s: %s", path, e)


if __name__ == "__main__":
    gc.set_threshold(10_000, 20, 50)  # requests make many short-lived objects and few cycles
    sys.exit(main(sys.argv[1:]))
