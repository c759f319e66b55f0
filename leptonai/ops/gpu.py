"""GPUs as NVML shows them (nvidia-ml-py, the extra ``gpu``). A machine without one has no such series.

Faults: Xid errors, as events of the driver (https://docs.nvidia.com/deploy/xid-errors); a card that has fallen off the
bus answers every question with GPU_IS_LOST; a thermal slow-down is told among the reasons for the clocks of the moment.

Source: NVIDIA Management Library, API reference: utilisation is the share of the last sampling period in which a
kernel ran; power in milliwatts, temperature in degrees Celsius.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from leptonai.types import Signal

log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """One GPU. None: it does not tell that."""

    number: int
    name: str
    busy: float | None = None  # 0..1
    memory_used: float | None = None  # bytes
    memory_total: float | None = None
    celsius: float | None = None
    watts: float | None = None
    ecc_errors: float | None = None  # uncorrected, since the driver was loaded
    xid_errors: float | None = None  # Xid events since we began to listen
    hot: bool | None = None  # its clocks are held down because of its temperature
    lost: bool | None = None  # it has fallen off the bus; nothing else is known then


class Gpus(Protocol):
    def read(self) -> Sequence[Reading]:
        """Every GPU of the machine, by index; [] when there is none. Never raises."""


class FakeGpus:
    """Shows what it was given: for tests, and to see what a GPU would look like."""

    def __init__(self, *readings: Reading) -> None:
        self.readings = list(readings)

    def read(self) -> Sequence[Reading]:
        return self.readings


class Told:
    """Shows what a file says, a JSON list of objects with the fields of a Reading: cards that are simulated, or whose
    driver NVML does not know.

    A file that is not there or is broken shows no card.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = ""

    def read(self) -> Sequence[Reading]:
        try:
            return [Reading(**one) for one in msgspec.json.decode(self._path.read_bytes(), type=list[dict[str, Any]])]
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, TypeError) as e:
            if str(e) != self._failed:
                self._failed = str(e)
                log.warning("no GPU is watched: %s: %s", self._path, e)
            return []


# nvml.h: nvmlClocksThrottleReasonSwThermalSlowdown and nvmlClocksThrottleReasonHwThermalSlowdown
_THERMAL = 0x20 | 0x40


class Nvml:
    """The real ones. Without the extra ``gpu``, a driver or a card, ``read`` gives []."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._events: Any = None
        self._xids: dict[str, float] = {}
        self._handles: list[tuple[int, str, Any]] = []
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                name = pynvml.nvmlDeviceGetName(handle)
                self._handles.append((index, name.decode() if isinstance(name, bytes) else str(name), handle))
            self._nvml = pynvml
            self._listen()
        except (pynvml.NVMLError, OSError) as e:
            log.info("no GPU is watched: %s", e)

    def read(self) -> Sequence[Reading]:
        if self._nvml is None:
            return []
        self._hear()
        return [self._one(*h) for h in self._handles]

    def _listen(self) -> None:
        """Ask the driver for Xid events; where it has none to give, they are not told."""
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
            for _, _, handle in self._handles:
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
                self._xids[nvml.nvmlDeviceGetUUID(handle)] = 0.0
            self._events = events
        except (nvml.NVMLError, AttributeError) as e:
            log.info("Xid errors are not told: %s", e)

    def _hear(self) -> None:
        """Count the events that wait; asking costs no time, for none is waited for."""
        nvml = self._nvml
        for _ in range(100 if self._events is not None else 0):
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
                uuid = nvml.nvmlDeviceGetUUID(event.device)
            except (nvml.NVMLError, AttributeError):  # NVML_ERROR_TIMEOUT: none waits
                return
            self._xids[uuid] = self._xids.get(uuid, 0.0) + 1.0

    def _one(self, index: int, name: str, handle: Any) -> Reading:
        nvml = self._nvml

        lost = False

        def ask(question: Any, *more: Any) -> Any:
            nonlocal lost
            try:
                return question(handle, *more)
            except nvml.NVMLError as e:  # not supported by this card, or it has fallen off the bus
                lost = lost or e.value == nvml.NVML_ERROR_GPU_IS_LOST
                return None

        busy, memory = ask(nvml.nvmlDeviceGetUtilizationRates), ask(nvml.nvmlDeviceGetMemoryInfo)
        power = ask(nvml.nvmlDeviceGetPowerUsage)
        reasons = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        uuid = ask(nvml.nvmlDeviceGetUUID) if self._events is not None else None
        if lost:
            return Reading(number=index, name=name, lost=True)
        return Reading(
            number=index,
            name=name,
            busy=busy.gpu / 100.0 if busy else None,
            memory_used=float(memory.used) if memory else None,
            memory_total=float(memory.total) if memory else None,
            celsius=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            watts=power / 1000.0 if power is not None else None,
            ecc_errors=ask(
                nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            ),
            xid_errors=self._xids.get(uuid) if uuid is not None else None,
            hot=bool(reasons & _THERMAL) if reasons is not None else None,
            lost=False,
        )


def signals(readings: Sequence[Reading], now: float, labels: dict[str, str] | None = None) -> list[Signal]:
    """What the readings say at ``now``; what a GPU does not tell is left out."""
    out: list[Signal] = []
    for gpu in readings:
        own = {**(labels or {}), "gpu": str(gpu.number), "model": gpu.name}
        share = gpu.memory_used / gpu.memory_total if gpu.memory_used is not None and gpu.memory_total else None
        for name, value in (
            ("gpu_busy_ratio", gpu.busy),
            ("gpu_memory_used_bytes", gpu.memory_used),
            ("gpu_memory_used_ratio", share),
            ("gpu_temperature_celsius", gpu.celsius),
            ("gpu_power_watts", gpu.watts),
            ("gpu_ecc_errors_count", gpu.ecc_errors),
            ("gpu_xid_errors_count", gpu.xid_errors),
            ("gpu_thermal_slowdown_ratio", gpu.hot),
            ("gpu_lost_ratio", gpu.lost),
        ):
            if value is not None:
                out.append(Signal(name=name, labels=own, at=now, value=float(value)))
    return out
