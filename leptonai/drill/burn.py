"""A neighbour who takes the processors: ``python -m leptonai.drill.burn PROCESSES``, until its standard input ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import sys


def main(count: int) -> None:
    block = bytes(1 << 16)
    children = []
    for _ in range(count):
        if not (pid := os.fork()):
            # Linux shares processors among sessions first (sched_autogroup): together they would count as one program.
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            parent = os.getppid()
            while os.getppid() == parent:  # whoever made us is still there
                for _ in range(200):
                    hashlib.sha256(block).digest()
            os._exit(0)
        children.append(pid)
    select.select([sys.stdin], [], [])
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
