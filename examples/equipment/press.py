"""A press that tells its temperature, pressure and vibration by Prometheus remote-write; then a bearing fails.

    python press.py [--healthy 180] [--broken 120] [--url URL --token TOKEN]

Needs nothing but Python. Without --url it finds a platform on this machine by its home folder.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import struct
import time
import urllib.request
from pathlib import Path

LABELS = {"machine": "press-7", "plant": "east"}
Sample = tuple[str, float]


def measure(second: int, broken_for: float, noise: random.Random) -> list[Sample]:
    """What the sensors say: strokes of 8 s, oil that warms with the shift; a failing bearing rubs, heats and shakes."""
    stroke = math.sin(2 * math.pi * second / 8.0)
    worn = max(0.0, broken_for)
    shaking = 2.1 + 0.1 * stroke + noise.gauss(0, 0.08)
    shaking += min(4.0, 0.8 + 0.08 * worn) * (1 + 0.3 * noise.random()) if worn else 0.0
    warm = 61.0 + 2.0 * math.sin(2 * math.pi * second / 900.0) + noise.gauss(0, 0.15)
    warm += 0.35 * worn if worn < 60 else 21.0
    force = 182.0 + 6.0 * stroke + noise.gauss(0, 0.6) - (min(14.0, 0.4 * worn) if worn else 0.0)
    return [
        ("press_temperature_celsius", warm),
        ("press_pressure_bar", force),
        ("press_vibration_millimeters_per_second", max(0.0, shaking)),
    ]


def encode(samples: list[Sample], at: float, labels: dict[str, str] = LABELS) -> bytes:
    """A remote-write 1.0 request: protobuf WriteRequest in a snappy block, which may be all literals."""
    request = b""
    for name, value in samples:
        pairs = {"__name__": name, **labels}
        series = b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in sorted(pairs.items()))
        sample = b"\x09" + struct.pack("<d", value) + b"\x10" + varint(int(at * 1000))
        request += field(1, series + field(2, sample))
    chunks = [request[i : i + 60] for i in range(0, len(request), 60)]
    return varint(len(request)) + b"".join(bytes([(len(c) - 1) << 2]) + c for c in chunks)


def varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def send(url: str, token: str, body: bytes) -> None:
    """Raises urllib.error.HTTPError when it is refused."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/x-protobuf",
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    request = urllib.request.Request(url + "/api/v1/write", body, headers, method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--healthy", type=int, default=180, help="seconds before the fault (default 180)")
    told.add_argument("--broken", type=int, default=120, help="seconds of the fault (default 120)")
    told.add_argument("--url", help="of the control API, like http://127.0.0.1:8310")
    told.add_argument("--token", help="of role operator")
    asked = told.parse_args()
    home = Path(os.environ.get("LEPTONAI_HOME", Path.home() / ".leptonai"))
    url = asked.url or json.loads((home / "control.json").read_text())["url"]
    token = asked.token or (home / "token").read_text().strip()
    noise = random.Random(7)
    due = time.monotonic()
    for second in range(asked.healthy + asked.broken):
        broken = second - asked.healthy + 1
        values = measure(second, broken, noise)
        send(url, token, encode(values, time.time()))
        said = "  ".join(f"{name.split('_')[1]} {value:6.1f}" for name, value in values)
        print(f"{second:4d} s  {said}  {'bearing failing' if broken > 0 else ''}", flush=True)
        due += 1.0
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
