"""``python -m leptonai.daemon parent|control|ops --home HOME [--detach]``: one process of a platform."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from leptonai.client.home import Home
from leptonai.daemon.seats import NAMES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m leptonai.daemon", description=__doc__)
    parser.add_argument("seat", choices=NAMES)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--detach", action="store_true", help="leave the process that started this one")
    given = parser.parse_args()
    if given.detach:
        if os.fork():
            os._exit(0)
        os.setsid()
    home = Home(given.home)
    process = importlib.import_module(f"leptonai.daemon.{given.seat}")  # the parent must not load what control needs
    return int(process.run(home))


if __name__ == "__main__":
    sys.exit(main())
