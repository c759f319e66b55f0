"""Machines that nobody serves: from remote-write requests to incidents, on a simulated clock."""

from __future__ import annotations

import asyncio
import importlib.util
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ops_stage import Direct, Stage

from leptonai.ops.feeds import Feeds
from leptonai.ops.report import report
from leptonai.ops.watch import Watch
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Settings, Watched
from leptonai.settings import Watch as Watching

EXAMPLE = Path(__file__).parents[2] / "examples" / "equipment" / "press.py"


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("press", EXAMPLE)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


PRESS = load_example()


class Plant(Stage):
    """No services; a store that takes what is sent."""

    def new_watch(self) -> Watch:
        self.kept = Embedded(self.folder / "telemetry", 3600.0, self.settings.telemetry, lambda: self.now)
        self.feeds = Feeds(None, self.settings, self.kept, lambda: self.now)
        return Watch(
            self.folder, self.settings, Direct(self), self.kept, lambda: self.now, timeout=0.05, feeds=self.feeds
        )

    async def tell(self, samples: list[tuple[str, float]], **labels: str) -> None:
        """One second passes in which a machine sends its samples, if it has any."""
        if samples:
            self.feeds.receiver.remote_write(PRESS.encode(samples, self.now + 1.0, labels or PRESS.LABELS))
        await self.step()

    async def close(self) -> None:
        await super().close()
        self.kept.close()


def of(plant: Plant, name: str) -> list[str]:
    return [i.title for i in plant.incidents() if i.subject == f"default/external/{name}"]


def test_a_failing_bearing_is_an_incident_without_any_served_model(short: Path) -> None:
    """Four healthy minutes are quiet; the bearing is told within half a minute, with its three signals and why."""

    async def story() -> None:
        plant, noise = Plant(short), random.Random(7)
        for second in range(240):
            await plant.tell(PRESS.measure(second, 0, noise))
        assert of(plant, "press-7") == []
        for second in range(240, 300):
            await plant.tell(PRESS.measure(second, second - 239, noise))
            if of(plant, "press-7"):
                break
        assert second - 240 < 30
        (incident,) = [i for i in plant.incidents() if i.subject == "default/external/press-7"]
        assert incident.closed is None and "press-7 behaves unlike itself" in incident.title
        told = {a.signal for a in incident.anomalies}
        assert "press_vibration_millimeters_per_second" in told and len(told & SIGNALS) >= 2
        assert any(a.reasons for a in incident.anomalies)
        text = report(incident)
        assert "press_vibration_millimeters_per_second" in text and "expected" in text
        await plant.close()

    asyncio.run(story())


SIGNALS = {"press_temperature_celsius", "press_pressure_bar", "press_vibration_millimeters_per_second"}


def test_one_odd_signal_pages_nobody_and_a_stated_limit_does(short: Path) -> None:
    async def story() -> None:
        group = Watched(name="oven", signals=("oven_*",), limits={"oven_temperature_celsius": (None, 250.0)})
        plant, noise = Plant(short, Settings(watch=Watching(groups=(group,)))), random.Random(1)

        def oven(temperature: float, door: float = 0.0) -> list[tuple[str, float]]:
            return [
                ("oven_temperature_celsius", temperature + noise.gauss(0, 0.5)),
                ("oven_fan_rpm", 900 + noise.gauss(0, 4)),
                ("oven_door_count", door + noise.gauss(0, 0.02)),
                ("oven_current_amperes", 12 + noise.gauss(0, 0.1)),
            ]

        for _ in range(120):
            await plant.tell(oven(210))
        for _ in range(30):
            await plant.tell(oven(210, door=9.0))
        assert any(a.signal == "oven_door_count" for a in plant.watch.anomalies), "it is seen"
        assert of(plant, "oven") == [], "and nobody is paged for one signal"
        for _ in range(15):
            await plant.tell(oven(260))
        assert of(plant, "oven") == ["oven_temperature_celsius of oven is beyond its limit"]
        for _ in range(60):
            await plant.tell(oven(210))
        assert [i.closed is not None for i in plant.incidents() if i.subject.endswith("/oven")] == [True]
        await plant.close()

    asyncio.run(story())


def test_a_machine_that_falls_silent_and_a_disk_that_fills_are_told(short: Path) -> None:
    async def story() -> None:
        group = Watched(name="till", signals=("till_*",), limits={"till_disk_used_bytes": (None, 2e9)})
        plant, noise = Plant(short, Settings(watch=Watching(groups=(group,)))), random.Random(2)

        def till(used: float) -> list[tuple[str, float]]:
            return [("till_disk_used_bytes", used + noise.gauss(0, 1e5)), ("till_queue_count", 3 + noise.gauss(0, 0.3))]

        for second in range(60):
            await plant.tell(till(4e8 + 1e5 * second))
        assert of(plant, "till") == [], "hours are far"
        for second in range(150):
            await plant.tell(till(4e8 + 3e6 * second))
            if of(plant, "till"):
                break
        assert of(plant, "till") == ["till_disk_used_bytes of till will reach its limit"]
        (incident,) = [i for i in plant.incidents() if i.subject.endswith("/till")]
        assert any("reaches its limit in" in e.text for e in incident.evidence)
        for _ in range(60):
            await plant.tell([])
        assert any(a.signal == "silent" for a in plant.incidents()[-1].anomalies)
        await plant.close()

    asyncio.run(story())


def test_a_job_that_says_that_it_has_ended_may_be_silent_and_begin_anew(short: Path) -> None:
    """Of two alike that stop sending, the one that said so opens nothing; its next run is learnt anew."""

    async def story() -> None:
        plant, noise = Plant(short), random.Random(3)

        def job(level: float) -> list[tuple[str, float]]:
            return [("job_loss", level + noise.gauss(0, 0.01)), ("job_steps_count", 5 + noise.gauss(0, 0.1))]

        for _ in range(90):
            plant.feeds.receiver.remote_write(PRESS.encode(job(1.0), plant.now + 1.0, {"job": "killed"}))
            await plant.tell(job(1.0), job="done")
        await plant.tell([("job_ended_count", 1.0)], job="done")
        for _ in range(60):
            await plant.tell([])
        assert of(plant, "done") == [] and len(of(plant, "killed")) == 1
        for _ in range(90):
            await plant.tell(job(40.0), job="done")
        assert of(plant, "done") == [], "another run is another run"
        await plant.close()

    asyncio.run(story())


def test_a_training_run_whose_loss_explodes_is_an_incident(short: Path) -> None:
    """A real run under the guard, a second a step: healthy it is quiet; what the guard did is told within the hold."""
    torch = pytest.importorskip("torch", reason="torch is not installed: training is not tested here")
    from leptonai.improve.train.signals import Signals
    from leptonai.improve.train.trainer import Trainer

    class Second:
        """A second passes with each step; what is sent in it."""

        def __init__(self, start: float) -> None:
            self.now, self.sent = start, list[tuple[float, bytes]]()

        def write_samples(self, body: bytes, workspace: str) -> None:
            self.sent.append((self.now, body))

    class Explodes:
        calls = 0

        def __call__(self, output: Any, target: Any) -> Any:
            self.calls += 1
            loss = torch.nn.functional.cross_entropy(output, target)
            return loss * 1e6 if 40 <= self.calls < 45 else loss

    async def story() -> None:
        plant = Plant(short)
        second = Second(plant.now + 1.0)
        signals = Signals(second, "digits", clock=lambda: second.now)  # type: ignore[arg-type] # of a Client it needs this

        class Board:
            def tell(self, step: int, **values: float) -> None:
                second.now += "acts" in values
                signals.tell(step, **values)

        torch.manual_seed(0)
        x = torch.randn(320, 8)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        result = Trainer(model, Explodes(), batch_size=32).fit((x, (x[:, 0] > 0).long()), epochs=6, board=Board())
        acts = [e.step for e in result.events if e.act.kind != "note"]
        assert acts and min(acts) >= 39, "before that it was healthy"
        bodies = {int(at - second.sent[0][0]): body for at, body in second.sent}
        opened = 0
        for at in range(max(bodies) + 1):
            if at in bodies:
                plant.feeds.receiver.remote_write(bodies[at])
            await plant.step()
            if of(plant, "training-digits"):
                opened = at
                break
        assert 39 <= opened <= 39 + 15, "the hold is 10 s"
        assert of(plant, "training-digits") == ["training_trouble_count of training-digits is beyond its limit"]
        await plant.close()

    asyncio.run(story())


@pytest.mark.parametrize("field", ["service", "replica"])
def test_nothing_that_is_sent_can_pose_as_a_service(short: Path, field: str) -> None:
    async def story() -> None:
        plant = Plant(short)
        for second in range(60):
            await plant.tell([("error_ratio", 0.0 if second < 40 else 1.0)], **{field: "digits"})
        assert plant.incidents() == [] and plant.watch.watcher.golden("digits") == 0
        await plant.close()

    asyncio.run(story())
