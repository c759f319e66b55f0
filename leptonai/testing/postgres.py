"""A private PostgreSQL server: in a folder of its own, on a Unix socket, gone with its process."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg

from leptonai.errors import PlatformError

START = 60.0  # seconds: recovery after kill -9 of a server under load, on a busy machine


def programs() -> Path | None:
    """The folder of the newest server installed here; None without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """Runs as the user ``postgres`` when we are root: the server refuses to be root."""

    def __init__(self, *, fsync: bool = False) -> None:
        """A fresh cluster, running. ``fsync`` False: a power cut may lose it, a kill does not.

        PlatformError when no server is installed or it does not start.
        """
        where = programs()
        if where is None:
            raise PlatformError("no PostgreSQL server is installed", hint="apt-get install postgresql")
        self._bin = where
        self._user = "postgres" if os.geteuid() == 0 else None
        self.name = self._user or pwd.getpwuid(os.geteuid()).pw_name
        self.folder = Path(tempfile.mkdtemp(prefix="leptonai-pg-"))
        self.folder.chmod(0o755)
        if self._user:
            shutil.chown(self.folder, self._user)
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self._run("initdb", "-D", "data", "-N", "-E", "UTF8", "--locale=C", "-A", "trust", "-U", self.name)
        self.start()

    def start(self) -> None:
        """It answers."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "on" if self._fsync else "off",
            "shared_buffers": "16MB",
            "max_connections": "60",
            "max_wal_size": "64MB",
        }
        command = [str(self._bin / "postgres"), "-D", "data"]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, user=self._user, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.Error as e:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = (self.folder / "log").read_text(errors="replace")[-1000:]
                    raise PlatformError(f"the PostgreSQL server does not start: {text}") from e
                time.sleep(0.02)

    def kill(self) -> None:
        """kill -9 of the server and of everything it started: as when its machine dies."""
        process = self._process
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None

    def close(self) -> None:
        """Nothing of it is left."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def url(self, database: str, user: str = "", **options: str) -> str:
        """The address of ``database``; ``options`` as libpq's."""
        given = {"host": str(self.folder), **options}
        return f"postgresql://{user or self.name}@/{database}?" + "&".join(
            f"{k}={quote(v, safe='')}" for k, v in given.items()
        )

    def database(self) -> str:
        """The address of an empty database."""
        self._made += 1
        name = f"d{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def schema(self) -> str:
        """The address of an empty schema: sooner made than a database."""
        self._made += 1
        name = f"s{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"CREATE SCHEMA {name}".encode())
        return self.url("postgres", options=f"-csearch_path={name}")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, user=self._user, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PlatformError(f"{program}: {done.stderr.strip()[-1000:]}")
