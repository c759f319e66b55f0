"""Starting the processes of a platform, and their logs."""

from __future__ import annotations

import logging
import logging.handlers
import os
import subprocess
import sys
import time

from leptonai.client.home import Home

LOG_BYTES = 8_000_000  # of one log before it is rotated
LOG_FILES = 3
TELL = "LEPTONAI_TELL"  # set where logs are to go to the output of the first process too: in a container
SUPERVISED = "LEPTONAI_SUPERVISED"  # set when something else (systemd) keeps the parent alive


def spawn(home: Home, seat: str, detach: bool = False) -> subprocess.Popen[bytes]:
    """The process of ``seat`` was started in a session of its own; what it says before its log is open goes there too.

    With ``detach`` it is nobody's child: the returned process is a stepping stone that has ended.
    """
    home.logs.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    log = os.open(home.logs / f"{seat}.log", flags, 0o600)
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "leptonai.daemon",
                seat,
                "--home",
                str(home.path),
                *(["--detach"] if detach else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=None if TELL in os.environ else log,
            stderr=None if TELL in os.environ else log,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(log)
    if detach:
        process.wait()
    return process


def open_log(home: Home, seat: str) -> logging.Logger:
    """``<home>/logs/<seat>.log``, rotated; everything at INFO and above, times in UTC. Uncaught exceptions go there."""
    home.logs.mkdir(mode=0o700, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        home.logs / f"{seat}.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8"
    )
    format = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    format.converter = time.gmtime
    handler.setFormatter(format)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    if TELL in os.environ:
        told = logging.StreamHandler(sys.stdout)
        told.setFormatter(format)
        root.handlers.append(told)
    root.setLevel(logging.INFO)
    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(logging.WARNING)  # one line per request otherwise
    log = logging.getLogger(f"leptonai.{seat}")
    sys.excepthook = lambda kind, error, trace: log.critical("uncaught", exc_info=(kind, error, trace))
    return log
