"""Real faults for drills: memory that is really held, cores really burnt. Each heals by itself after its time."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from leptonai.errors import SpecError

STEP = 0.1  # seconds between two steps of a leak or of a hog's duty cycle
MAX_HEAL = 3600.0  # seconds


class FaultRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``amount``: leak bytes/s, hog cores, delay seconds a batch, error share of requests, stop any: nothing is
    answered but orders. 0 heals that kind now."""

    kind: Literal["leak", "hog", "delay", "error", "stop"]
    amount: float = 0.0
    heal_after: float = 60.0


def decode_fault(body: bytes) -> FaultRequest:
    try:
        fault = msgspec.json.decode(body, type=FaultRequest)
    except msgspec.DecodeError as e:
        raise SpecError(f"not a fault: {e}", hint='send {"kind": "leak", "amount": 5e6, "heal_after": 60}') from e
    if not 0 <= fault.heal_after <= MAX_HEAL or not 0 <= fault.amount <= 1e12:
        raise SpecError(
            f"fault amount {fault.amount:g}, heal_after {fault.heal_after:g} s",
            hint=f"amount is at least 0, heal_after between 0 and {MAX_HEAL:g} s",
        )
    return fault


class Faults:
    """The faults in force, one of each kind; a new one of a kind replaces the old."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._delay = (0.0, 0.0)  # (amount, until)
        self._error = (0.0, 0.0)
        self.slow = False  # a delay may be in force: ask ``delay``
        self.failing = False  # errors may be in force: ask ``fails``
        self._stops: dict[str, threading.Event] = {}
        self._random = random.Random()

    def inject(self, fault: FaultRequest) -> None:
        """The fault is in force when this returns, and heals after ``heal_after`` seconds whoever is watching."""
        until = self._clock() + fault.heal_after
        if fault.kind == "delay":
            self._delay, self.slow = (fault.amount, until), fault.amount > 0
        elif fault.kind == "error":
            self._error, self.failing = (fault.amount, until), fault.amount > 0
        else:
            old = self._stops.pop(fault.kind, None)
            if old is not None:
                old.set()
            if fault.amount > 0:
                stop = self._stops[fault.kind] = threading.Event()
                work = _leak if fault.kind == "leak" else _hog
                args = (fault.amount, until, stop, self._clock)
                threading.Thread(target=work, args=args, name=fault.kind, daemon=True).start()

    def delay(self) -> float:
        """Seconds the compute thread has to sleep before a batch."""
        amount, until = self._delay
        self.slow = self._clock() < until
        return amount if self.slow else 0.0

    def fails(self) -> bool:
        """Whether this request has to be answered 500."""
        share, until = self._error
        self.failing = self._clock() < until
        return self.failing and self._random.random() < share


def _leak(rate: float, until: float, stop: threading.Event, clock: Callable[[], float]) -> None:
    held: list[bytearray] = []
    began, total = clock(), 0
    while clock() < until and not stop.wait(STEP):
        size = int(rate * (clock() - began)) - total
        if size > 0:
            block = bytearray(size)
            block[::4096] = b"\x01" * len(range(0, size, 4096))  # touch every page: untouched memory is not resident
            held.append(block)
            total += size


def _hog(cores: float, until: float, stop: threading.Event, clock: Callable[[], float]) -> None:
    """Hash without the interpreter's lock, so that real cores burn while the event loop still runs."""
    threads = [
        threading.Thread(target=_burn, args=(min(1.0, cores - n), until, stop, clock), daemon=True)
        for n in range(int(cores) + (cores % 1 > 0))
    ]
    for thread in threads:
        thread.start()


def _burn(share: float, until: float, stop: threading.Event, clock: Callable[[], float]) -> None:
    block = bytes(1 << 18)
    while not stop.is_set() and clock() < until:
        step = clock()
        while clock() - step < STEP * share and not stop.is_set():
            hashlib.sha256(block).digest()
        stop.wait(STEP * (1.0 - share))
