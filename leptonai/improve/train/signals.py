"""A run's numbers as signals of the platform: watched like any thing, with incidents of its own in the console."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from leptonai.client import Client
from leptonai.errors import LeptonError
from leptonai.platforms.prometheus.encode import encode, label_bytes
from leptonai.types import DEFAULT_WORKSPACE

EVERY = 1.0  # seconds between two sendings: the period in which operations look
TROUBLE = 60.0  # seconds for which an act of the guard counts as trouble: longer than operations want it to last


class Signals:
    """``tell`` as of a Board. Signals are named ``training_<tag>`` with the label ``job="training-<name>"``, by which
    the platform watches them as ``<workspace>/external/training-<name>``.

    ``acts``, the guard's so far, are also sent as ``training_trouble_count``, those of the last minute: one and more
    open an incident. The last value of each second is sent. A platform that does not answer costs the run nothing:
    ``lost`` counts, and ``problem`` says why. A run that comes to its end tells ``ended_count=1``: then its silence is
    no incident.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        workspace: str = DEFAULT_WORKSPACE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._workspace, self._clock = client, workspace, clock
        self._labels = {"job": f"training-{name}"}
        self._latest: dict[str, float] = {}
        self._sent = -math.inf
        self._acts = 0.0
        self._acted: list[tuple[float, float]] = []  # when, how often
        self.lost = 0
        self.problem = ""

    def tell(self, step: int, **values: float) -> None:
        self._latest |= {f"training_{tag.replace('__', '_')}": float(value) for tag, value in values.items()}
        self._latest["training_steps_count"] = float(step)
        if "acts" in values:
            self._latest["training_trouble_count"] = self._troubled(float(values["acts"]))
        if self._clock() - self._sent >= EVERY:
            self.send()

    def _troubled(self, acts: float) -> float:
        now = self._clock()
        if acts > self._acts:
            self._acted.append((now, acts - self._acts))
            self._acts = acts
        self._acted = [(at, often) for at, often in self._acted if now - at < TROUBLE]
        return sum(often for _, often in self._acted)

    def send(self) -> None:
        """What was told since the last time is with the platform, or counted as lost."""
        now = self._clock()
        body = encode((label_bytes(name, self._labels), [(now, value)]) for name, value in self._latest.items())
        try:
            self._client.write_samples(body, self._workspace)
        except LeptonError as e:
            self.lost, self.problem = self.lost + len(self._latest), e.message
        self._latest, self._sent = {}, now

    def close(self) -> None:
        if self._latest:
            self.send()
