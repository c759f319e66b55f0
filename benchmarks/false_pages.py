"""How often a person is called for nothing.

    python benchmarks/false_pages.py normal [--hours 2] [--things 60]     # independent normal series: bar 0
    python benchmarks/false_pages.py replay [--hours 24] [--services 10]  # a simulated day of traffic: bar 1 a service
    python benchmarks/false_pages.py live [--minutes 120] [--day 600]     # a real platform: bar 0
    python benchmarks/false_pages.py live --jumps 4                       # beside 4 busy processes that come and go

``normal`` and ``replay`` step the watcher and the judges of the running loop once a simulated second. A page is a
trigger that begins to fire. ``normal``: things of five signals each. ``replay``: requests are Poisson with a daily
shape, a slow random factor and bursts of minutes; each has a log-normal latency that grows with load; 0.02 % fail.
``live``: two replicas of a model behind the real gateway, users who follow the compressed day; a page is an incident.
``--home`` keeps the platform's folder. ``--jumps``: so many processes compute for 20 to 120 s, after one to four
minutes without, again and again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np

from leptonai.ops.detect import GOLDEN, Watcher
from leptonai.ops.detect.watcher import Concern, golden
from leptonai.ops.judge import Memory, Seen, judge
from leptonai.ops.slo import Burn
from leptonai.ops.things import Thing, judge_thing
from leptonai.settings import Watch
from leptonai.types import Anomaly, Replica, Signal, Slo

START = 1_700_000_000.0


def normal(hours: float, things: int, seed: int) -> int:
    rng, settings = np.random.default_rng(seed), Watch()
    names = [{"machine": f"m{i}", "sensor": str(j)} for i in range(things) for j in range(5)]
    watcher = Watcher(concern=lambda s: Concern("default/external/" + s.labels["machine"]))
    memory: dict[str, Memory] = {}
    pages = points = 0
    for t in range(int(hours * 3600)):
        x = 50.0 + 5.0 * rng.standard_normal(len(names))
        signals = [Signal(name="value", labels=n, at=t, value=float(v)) for n, v in zip(names, x, strict=True)]
        mine: dict[str, list[Anomaly]] = {}
        for a in watcher.step(START + t, signals):
            mine.setdefault(watcher.whose(a), []).append(a)
        points += len(mine)
        for subject in set(mine) | {s for s, m in memory.items() if m}:
            thing = Thing(subject=subject, watched=5, anomalies=tuple(mine.get(subject, ())))
            before = {k for k, h in memory.get(subject, {}).items() if h.firing}
            _, memory[subject] = judge_thing(START + t, thing, memory.get(subject, {}), settings)
            pages += len({k for k, h in memory[subject].items() if h.firing} - before)
        if t % 600 == 599:
            said = f"{(t + 1) / 3600:.2f} h of {things} things, {len(names)} series"
            print(f"{said}: {pages} pages ({points} thing-seconds with an anomaly)", flush=True)
    return pages


class Users:
    """Second by second, what users of one service see."""

    def __init__(self, rng: np.random.Generator, number: int) -> None:
        self.rng, self.base, self.shift = rng, float(10 ** rng.uniform(0.7, 2.2)), rng.uniform(-2, 2) * 3600
        self.compute, self.slow, self.burst = float(10 ** rng.uniform(-2.3, -1.3)), 0.0, 0.0
        self.key = f"service-{number}"

    def second(self, t: float) -> tuple[list[Signal], int, int, int]:
        """Signals, requests, failed, slow."""
        self.slow += 0.002 * (-self.slow) + 0.006 * float(self.rng.standard_normal())
        if self.burst <= 0 and self.rng.random() < 1 / 7200:
            self.burst = float(self.rng.uniform(30, 180))
        self.burst -= 1
        day = 1.0 + 0.6 * math.sin(2 * math.pi * (t + self.shift) / 86400) + 0.15 * math.sin(4 * math.pi * t / 86400)
        rate = self.base * day * math.exp(self.slow) * (1.3 if self.burst > 0 else 1.0)
        n = int(self.rng.poisson(rate))
        load = rate / (3.0 * self.base)
        took = self.compute / (1.0 - 0.6 * min(load, 1.0)) * np.exp(0.35 * self.rng.standard_normal(n))
        failed = int(self.rng.binomial(n, 2e-4))
        slow = int((took > 10 * self.compute).sum())
        labels = {"service": self.key}
        nan = float("nan")
        values = {
            "request_rate_per_second": float(n),
            "error_ratio": failed / n if n else nan,
            "latency_p50_seconds": float(np.quantile(took, 0.5)) if n else nan,
            "latency_p99_seconds": float(np.quantile(took, 0.99)) if n else nan,
            "slow_ratio": slow / n if n else nan,
            "ready_count": 2.0,
        }
        return [Signal(name=k, labels=labels, at=t, value=v) for k, v in values.items()], n, failed, slow


def replay(hours: float, services: int, seed: int) -> int:
    rng = np.random.default_rng(seed)
    users = [Users(np.random.default_rng(rng.integers(2**32)), i) for i in range(services)]
    watcher = Watcher(concern=golden)
    slo = Slo()
    burns = {u.key: (Burn(slo, "errors"), Burn(slo, "latency")) for u in users}
    ready = {u.key: tuple(replica(u.key, i) for i in range(2)) for u in users}
    memory: dict[str, Memory] = {u.key: {} for u in users}
    pages: dict[str, list[str]] = {u.key: [] for u in users}
    odd, began = 0, time.process_time()
    for second in range(int(hours * 3600)):
        now = START + second
        seen = {u.key: u.second(now) for u in users}
        anomalies = watcher.step(now, [s for signals, *_ in seen.values() for s in signals], expected=list(seen))
        odd += len(anomalies)
        for key, (_, n, failed, slow) in seen.items():
            errors, latency = burns[key]
            states = (errors.step(now, n, failed), latency.step(now, n, slow))
            mine = tuple(a for a in anomalies if a.labels.get("service") == key)
            look = Seen(service=key, wanted=2, replicas=ready[key], anomalies=mine, golden=len(GOLDEN), burns=states)
            before = {k for k, held in memory[key].items() if held.firing}
            _, memory[key] = judge(now, look, memory[key])
            for name in {k for k, held in memory[key].items() if held.firing} - before:
                pages[key].append(name)
                print(f"  {second / 3600:.2f} h {key}: {name} {[a.signal for a in mine]}", flush=True)
        if second % 3600 == 3599:
            total = sum(map(len, pages.values()))
            cpu = (time.process_time() - began) / (second + 1)
            print(f"{(second + 1) / 3600:.0f} h of {services} services: {total} pages, {odd} anomalous signal-seconds, "
                  f"{cpu * 1e3:.1f} ms CPU a second, users included", flush=True)  # fmt: skip
    worst = max(map(len, pages.values()))
    print(f"{sum(map(len, pages.values())) / services:.2f} pages a service, at most {worst} of one")
    return worst


def replica(service: str, number: int) -> Replica:
    return Replica(
        id=f"{service}-{number}", service=service, variant="main", digest="d", state="ready", since=START, started=START
    )


MODEL = """
class Double:
    def predict(self, x: float) -> float:
        return 2 * sum(x for _ in range(2000)) / 2000
"""


def live(minutes: float, day: float, jumps: int, kept: Path | None) -> int:
    with tempfile.TemporaryDirectory(prefix="quiet") as folder:
        home, model = kept or Path(folder) / "home", Path(folder) / "double.py"
        model.write_text(MODEL)
        home.mkdir()
        (home / "settings.yaml").write_text("api: {port: 0}\ngateway: {port: 0}\n")
        environment = {**os.environ, "LEPTONAI_HOME": str(home)}

        def lepton(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "leptonai.cli", *arguments], env=environment, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(f"leptonai {' '.join(arguments)}: {done.stderr}{done.stdout}")
            return done.stdout

        lepton("up")
        try:
            lepton("deploy", str(model), "--replicas", "2")
            url = json.loads(lepton("status", "double", "--json"))["service"]["url"]
            return follow(lepton, url, minutes, day, jumps)
        finally:
            lepton("down")


def neighbours(count: int, ends: float) -> None:
    """Processes beside the platform that take what processors there are, for a while, and go again."""
    dice = np.random.default_rng(0)
    while (now := time.monotonic()) < ends:
        time.sleep(min(float(dice.uniform(60, 240)), ends - now))
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            time.sleep(max(0.0, min(float(dice.uniform(20, 120)), ends - time.monotonic())))
        finally:
            for one in busy:
                one.kill()
                one.wait()


def follow(lepton, url: str, minutes: float, day: float, jumps: int) -> int:  # type: ignore[no-untyped-def]
    began, asked, failed = time.monotonic(), [0], [0]
    ends = began + 60 * minutes
    lock = threading.Lock()
    if jumps:
        threading.Thread(target=neighbours, args=(jumps, ends), daemon=True).start()

    def user(number: int) -> None:
        rng = np.random.default_rng(number)
        while time.monotonic() < ends:
            shape = 1.0 + 0.6 * math.sin(2 * math.pi * (time.monotonic() - began) / day)
            time.sleep(float(rng.exponential(8 / (20.0 * shape))))
            try:
                request = urllib.request.Request(f"{url}/predict", b'{"x": 2}', {"Content-Type": "application/json"})
                urllib.request.urlopen(request, timeout=10).read()
                bad = 0
            except OSError:
                bad = 1
            with lock:
                asked[0] += 1
                failed[0] += bad

    crowd = [threading.Thread(target=user, args=(i,)) for i in range(8)]
    for one in crowd:
        one.start()
    pages, known_ids = 0, set[int]()
    while time.monotonic() < ends:
        time.sleep(min(60.0, max(0.0, ends - time.monotonic())))
        known = json.loads(lepton("incidents", "--json"))
        found = known["items"] if isinstance(known, dict) else known
        pages = len(found)
        gone = (time.monotonic() - began) / 60
        said = [f"{i['subject']}: {i['title']}" for i in found]
        print(f"{gone:.0f} min, {gone * 60 / day:.1f} days: {asked[0]} requests, {failed[0]} failed, "
              f"{pages} incidents {said}", flush=True)  # fmt: skip
        for incident in (i for i in found if i["id"] not in known_ids):
            known_ids.add(incident["id"])
            for e in json.loads(lepton("incidents", str(incident["id"]), "--json"))["evidence"]:
                print(f"    {e['text']}", flush=True)
    for one in crowd:
        one.join()
    return pages


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("what", choices=["normal", "replay", "live"])
    told.add_argument("--hours", type=float)
    told.add_argument("--things", type=int, default=60)
    told.add_argument("--services", type=int, default=10)
    told.add_argument("--minutes", type=float, default=120.0)
    told.add_argument("--day", type=float, default=600.0)
    told.add_argument("--jumps", type=int, default=0)
    told.add_argument("--home", type=Path)
    told.add_argument("--seed", type=int, default=1)
    asked = told.parse_args()
    if asked.what == "normal":
        pages, bar = normal(asked.hours or 2.0, asked.things, asked.seed), 0
    elif asked.what == "replay":
        pages, bar = replay(asked.hours or 24.0, asked.services, asked.seed), 1
    else:
        pages, bar = live(asked.minutes, asked.day, asked.jumps, asked.home), 0
    print(f"{pages} pages, the bar is {bar}: {'held' if pages <= bar else 'MISSED'}")
    sys.exit(pages > bar)


if __name__ == "__main__":
    main()
