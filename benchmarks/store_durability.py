"""Is what the store acknowledged still there after ``kill -9``? A real writer, killed at random moments.

    python benchmarks/store_durability.py --kills 500
    python benchmarks/store_durability.py --kills 500 --postgres

Each round forks a writer that opens the store, appends one transaction after another (a revision, a dial, a proposal,
a feedback, an incident, an event, all carrying the same number) and writes the number to a pipe once the transaction
has returned. It is killed at a random moment: while opening, between two writes, or right on an acknowledgement. Then
the store is opened again, as a restarted control does. It fails (exit 1) unless

- everything acknowledged is there, and at most the one transaction in flight beyond it;
- no transaction is there by half: every table ends with the same number;
- the audit chain is whole.

``--sabotage early`` acknowledges before the commit, ``--sabotage torn`` leaves the transaction out: both must fail.
A killed process leaves the page cache intact, so this proves the order of writes and the recovery; that a power cut
is survived too rests on ``synchronous=FULL``.

``--postgres``: the store is in a private PostgreSQL server, with fsync on; every other time it is not the writer that
is killed but the server with all its processes, and it recovers before the check.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path

from leptonai.store import Store
from leptonai.testing.postgres import PostgresServer
from leptonai.types import Dial, DialChange, Feedback, Incident, Proposal, Spec, Variant

KEY = "digits"


def write(place: str, pipe: int, sabotage: str) -> None:
    with Store(place) as store:
        head = store.head(KEY)
        n = head.number if head else 0
        while True:
            n += 1
            if sabotage == "early":
                os.write(pipe, struct.pack("q", n))
            spec = Spec(name=KEY, variants=(Variant(model=f"m{n}"),))
            change = DialChange(service=KEY, set={"main.weight": float(n)})
            with nullcontext() if sabotage == "torn" else store.transaction():
                store.append_revision(KEY, spec, expected=n - 1, by="w", why="", at=0.0)
                store.append_dials(KEY, [Dial(path="main.weight", value=n, owner="w", reason="", at=0.0)])
                store.put_proposal(Proposal(id=str(n), change=change, by="w", why="", at=0.0, expires=1.0))
                store.append_feedback(Feedback(about=str(n), by="w", at=0.0))
                store.put_incident(Incident(id=0, subject="s", severity="info", title=str(n), began=0, opened=0))
                store.record("write", KEY, {"n": n}, actor="w", at=0.0)
            if sabotage != "early":
                os.write(pipe, struct.pack("q", n))


def one_kill(place: str, rng: random.Random, sabotage: str, server: PostgresServer | None) -> int:
    """Fork a writer, kill it or its ``server``, and return the last number it acknowledged, 0 for none."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            write(place, writing, sabotage)
        except BaseException as e:  # the parent must see it, and the child must not run the parent's code
            if server is None:
                os.write(2, f"writer failed: {e!r}\n".encode())
        finally:
            os._exit(1)
    os.close(writing)
    said = b""
    remote = place.startswith("postgresql:")  # opening takes longer there, and would be most of what is killed
    if rng.random() < (0.8 if remote else 0.5):  # right on an acknowledgement
        for _ in range(rng.randint(1, 20)):
            said += os.read(reading, 8)
    else:
        time.sleep(rng.uniform(0.0, 0.1 if remote else 0.03))
    if server is not None:
        server.kill()
    os.kill(pid, signal.SIGKILL)
    while chunk := os.read(reading, 1 << 16):
        said += chunk
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if server is not None:
        server.start()
    elif not os.WIFSIGNALED(status):
        raise SystemExit("the writer ended by itself")
    return struct.unpack("q", said[-8:])[0] if said else 0


def wrong(place: str, acknowledged: int, whole: bool) -> tuple[str, int]:
    """What is wrong with the store, "" for nothing, and the number it ends with. ``whole``: from the first line on."""
    with Store(place) as store:
        head = store.head(KEY)
        last = head.number if head else 0
        found = {
            "revision": last,
            "dial": max((int(d.value) for d in store.dials(KEY)), default=0),
            "proposal": max((int(p.id) for p in store.proposals(limit=1)), default=0),
            "feedback": store.feedback(after=max(0, last - 5))[1] if last else 0,
            "incident": max((i.id for i in store.incidents(limit=1)), default=0),
            "event": max((e.detail["n"] for e in store.events(newest=True, limit=1)), default=0),
        }
        if len(set(found.values())) > 1:
            return f"half a transaction: {found}", last
        if not acknowledged <= last <= acknowledged + 1:
            return f"{acknowledged} was acknowledged, the store ends with {last}", last
        if whole:
            if (broken := store.check_chain()) is not None:
                return f"the audit chain is broken at {broken}", last
            numbers = {
                "revisions": [r.number for r in store.revisions(KEY)],
                "feedback": [int(f.about) for _, f in store.feedback(limit=last + 9)[0]],
                "proposals": sorted(int(p.id) for p in store.proposals(limit=last + 9)),
                "incidents": sorted(int(i.title) for i in store.incidents(limit=last + 9)),
                "events": [e.detail["n"] for e in store.events(limit=last + 9)],
            }
            for table, found_numbers in numbers.items():
                if found_numbers != list(range(1, last + 1)):
                    return f"{table} have a gap or a double", last
    return "", last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; another one each run by default")
    parser.add_argument("--folder", type=Path, default=None, help="where the store lies; default: a temporary folder")
    parser.add_argument("--sabotage", choices=("early", "torn"), default="")
    parser.add_argument("--postgres", action="store_true", help="in a private server, which is killed too")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    seed = random.randrange(1 << 32) if args.seed is None else args.seed
    rng = random.Random(seed)
    before_first = in_flight = acknowledged = last = 0
    problem, began = "", time.monotonic()
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer(fsync=True)) if args.postgres else None
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder))
        place = server.database() if server else str(Path(folder) / "store.db")
        kills = 0
        while kills < args.kills and not problem:
            said = one_kill(place, rng, args.sabotage, server if kills % 2 else None)
            kills += 1
            before_first += said == 0
            acknowledged = max(last, said)
            problem, last = wrong(place, acknowledged, whole=kills % 50 == 0 or kills == args.kills)
            in_flight += last > acknowledged
    out = {
        "kills": kills,
        "transactions": last,
        "kills_before_the_first_acknowledgement": before_first,
        "kept_though_not_yet_acknowledged": in_flight,
        "problem": problem,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(out) if args.json else "\n".join(f"{k}: {v}" for k, v in out.items()))
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
