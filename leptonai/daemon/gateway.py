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
        uvloop.run(serve(given.home, settings, given.control, given.host, given.pages))
    except LeptonError as e:
        log.error("%s (%s)", e.message, e.hint)
        return e.exit_code
    return 0


async def serve(home: Path, settings: Settings, control: str, host: str, pages: int) -> None:
    """Until SIGTERM; then until what users had asked is answered."""
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
        return
    starting.result()
    server = await Pages(gate, os.environ.get("LEPTONAI_ORDERS", "")).serve(host, pages)
    log.info("the gateway answers at %s, its pages are on port %d", gate.front.the_gateway.url, pages)
    await stop
    log.info("told to stop: users are led elsewhere")
    await gate.stop()
    server.close()


if __name__ == "__main__":
    sys.exit(main())
