"""``python -m leptonai.daemon.gateway --home HOME``: the gateway as a pod of its own, beside no control."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from leptonai import settings as setting
from leptonai.errors import LeptonError
from leptonai.platforms.kubernetes.gate import Gate
from leptonai.platforms.kubernetes.pages import Pages
from leptonai.settings import Settings

log = logging.getLogger("leptonai.gateway")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m leptonai.daemon.gateway", description=__doc__)
    parser.add_argument("--home", required=True, type=Path, help="a folder of its own; settings.yaml in it is read")
    parser.add_argument("--control", default="", help="name of the Service of the control API, for feedback")
    parser.add_argument("--host", default="0.0.0.0", help="where control and ops ask")
    parser.add_argument("--pages", required=True, type=int, help="the port there")
    given = parser.parse_args()
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)sZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(logging.WARNING)
    try:
        settings = setting.load(given.home / "settings.yaml")
        return uvloop.run(serve(given.home, settings, given.control, given.host, given.pages))
    except LeptonError as e:
        log.error("%s (%s)", e.message, e.hint)
        return e.exit_code


async def serve(home: Path, settings: Settings, control: str, host: str, pages: int) -> int:
    """Until SIGTERM, or until a part of it fails; then until what users had asked is answered. The exit status: not 0
    after a failure, so that it is started again."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)

    def record(kind: str, subject: str, detail: dict[str, Any]) -> None:
        log.info("%s %s %s", kind, subject, detail)

    gate = Gate(home, settings, record, control)
    stop = asyncio.create_task(told.wait())
    starting = asyncio.create_task(gate.start())
    await asyncio.wait([stop, starting], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return 0
    starting.result()
    server = await Pages(gate, os.environ.get("LEPTONAI_ORDERS", "")).serve(host, pages)
    log.info("the gateway answers at %s, its pages are on port %d", gate.front.the_gateway.url, pages)
    broken = asyncio.create_task(gate.broken())
    await asyncio.wait([stop, broken], return_when=asyncio.FIRST_COMPLETED)
    told_to = stop.done()
    log.info("%s: users are led elsewhere", "told to stop" if told_to else "it cannot go on")
    broken.cancel()
    await gate.stop()
    server.close()
    return 0 if told_to else 1


if __name__ == "__main__":
    sys.exit(main())
