"""Users of an example: ``python examples/users.py NAME``. They ask what ``NAME/data/live.jsonl`` holds, through the
gateway, and say afterwards what was right (or how they liked it). Ends with Ctrl-C, or when its standard input does.

    python examples/users.py sentiment [--rate 40] [--labels 0.5] [--drift] [--url URL --token TOKEN]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from leptonai.client import Client

HERE = Path(__file__).parent
AFTER = 0.5  # seconds until somebody says what was right; in life it is days


class Users:
    def __init__(self, name: str, url: str, token: str, labels: float, drift: bool, folder: Path) -> None:
        self.name, self.url, self.labels = name, url, labels
        self.gateway = url.partition("/services/")[0]
        self.token = {"authorization": f"Bearer {token}"}
        self.asked = [json.loads(line) for line in (folder / "data" / "live.jsonl").read_text().splitlines()]
        if drift:
            self.asked = [{"body": drifted(a["body"])} for a in self.asked]
        self.seen = Counter[str]()
        self.rng = np.random.default_rng(0)
        self.stop = asyncio.Event()

    async def run(self, rate: float) -> None:
        """Open loop: requests leave when they are due, whether or not earlier ones were answered."""
        async with httpx.AsyncClient(trust_env=False, timeout=20.0) as http, asyncio.TaskGroup() as tasks:
            due = asyncio.get_running_loop().time()
            while not self.stop.is_set():
                due += float(self.rng.exponential(1 / rate))
                try:
                    async with asyncio.timeout_at(due):
                        await self.stop.wait()
                except TimeoutError:
                    tasks.create_task(self.one(http, self.asked[int(self.rng.integers(len(self.asked)))]))

    async def one(self, http: httpx.AsyncClient, about: dict[str, Any]) -> None:
        told = bool(self.rng.random() < self.labels)
        try:
            answer = await http.post(f"{self.url}/predict", json=about["body"])
        except httpx.HTTPError as e:
            self.seen[type(e).__name__] += 1
            return
        self.seen["answered" if answer.status_code == 200 else str(answer.status_code)] += 1
        if answer.status_code == 200 and told and (says := opinion(about, answer.json())):
            await asyncio.sleep(AFTER)
            item = {"about": answer.headers["x-request-id"], "service": self.name, **says}
            done = await http.post(f"{self.gateway}/feedback", json=item, headers=self.token)
            self.seen["told" if done.is_success else f"feedback {done.status_code}"] += 1


def opinion(about: dict[str, Any], answer: Any) -> dict[str, Any]:
    """What the user says of the answer: the right label, or stars for what was shown."""
    if "likes" in about:
        return {"rating": round(float(np.mean([about["likes"][item] for item in answer["items"]])))}
    return {"label": about["label"]} if "label" in about else {}


def drifted(body: Any) -> Any:
    """Another kind of user: every number is larger by half."""
    if isinstance(body, list):
        return [drifted(v) for v in body]
    return 1.5 * body + 1 if isinstance(body, float) else body


async def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("name", help="of the example, and of its service")
    told.add_argument("--rate", type=float, default=40.0, help="requests a second")
    told.add_argument("--labels", type=float, default=0.5, help="share of the answers of which somebody says more")
    told.add_argument("--drift", action="store_true", help="other users, who never say what was right")
    told.add_argument("--folder", type=Path, help="of the example")
    told.add_argument("--url", help="of the service; else that of the platform on this machine")
    told.add_argument("--token", help="of an operator")
    o = told.parse_args()
    if o.url is None or o.token is None:
        with Client() as client:
            o.url, o.token = (
                client.service(o.name).url,
                client.create_token(f"users-{time.time_ns()}", role="operator").secret,
            )
    users = Users(o.name, o.url, o.token, o.labels, o.drift, o.folder or HERE / o.name)
    if not sys.stdin.isatty():
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: sys.stdin.read() or users.stop.set())
    try:
        await users.run(o.rate)
    finally:
        print(json.dumps(users.seen))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
