"""``python -m leptonai.edge ENDPOINTS SOCKET``: the edge beside one Envoy."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path

import uvloop

from leptonai.edge.app import serve
from leptonai.errors import LeptonError, SpecError


async def main(folder: Path, own: Path) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    await serve(folder, own, ending)


def run(argv: list[str]) -> int:
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    if len(argv) != 2:
        print("usage: python -m leptonai.edge ENDPOINTS SOCKET", file=sys.stderr)
        return SpecError.exit_code
    os.umask(0o077)
    gc.freeze()
    try:
        uvloop.run(main(Path(argv[0]), Path(argv[1])))
    except LeptonError as e:
        logging.error("%s (%s)", e.message, e.hint)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
