"""What the gateway's files tell the edge, as a pure function of the wish."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leptonai.edge import endpoints
from leptonai.plan import routes
from leptonai.plan.edge import standby
from leptonai.settings import Gateway
from leptonai.types import Auto, Dials, Fallback, Hold, Replica, Scale, Service, Spec, Variant, VariantDials

MAIN = Variant(model="sha256:" + "0" * 64, idempotent=True)


def service(replicas: int, auto: bool = True, fallback: bool = True, **spec: Any) -> Service:
    dials = Dials(variants={"main": VariantDials(replicas=replicas, auto=auto)}, fallback=fallback)
    return Service(spec=Spec(name="digits", workspace="team", variants=(MAIN,), **spec), dials=dials, revision=1)


@pytest.mark.parametrize(
    ("given", "wait"),
    [
        (service(1), 10.0),
        (service(0), 0.0),  # a person set it to zero: nobody is to wait for it
        (service(0, scale=Scale(idle=60.0)), 10.0),
        (service(0, scale=Scale(auto=Auto())), 10.0),
        (service(0, scale=Scale(auto=Auto()), auto=False), 0.0),
        (service(1, timeout=2.0), 1.8),  # answered before the gateway would end it
        (service(1, hold=Hold(max_wait=0.0)), 0.0),
    ],
)
def test_how_long_requests_are_held(given: Service, wait: float) -> None:
    found = standby(given, MAIN)
    assert found.hold.max_wait == pytest.approx(wait)
    assert found.asleep == (given.dials.variants["main"].replicas == 0)


def test_the_fallback_is_told_while_its_dial_is_on() -> None:
    fallback = Fallback(max_age=7.0)
    assert standby(service(1, fallback=True), MAIN).fallback is None
    spec = Spec(name="d", variants=(MAIN,), fallback=fallback)
    on, off = (Service(spec=spec, dials=Dials(fallback=x), revision=1) for x in (True, False))
    assert (standby(on, MAIN).fallback, standby(off, MAIN).fallback) == (fallback, None)


def test_the_edge_reads_what_the_platform_writes() -> None:
    """The file that Envoy reads says the same to the edge: its socket, its duty, and the ready replicas alone."""
    mine = service(2)
    replicas = [
        Replica(
            id=f"r{n}",
            service=mine.key,
            variant="main",
            digest=MAIN.digest,
            state="ready" if n else "starting",
            since=0,
            address=f"unix:/run/{n}",
        )
        for n in range(3)
    ]
    files = routes([mine], replicas, Gateway(), folder="/envoy", edge="/run/edge")
    (name,) = [n for n in files if n.startswith("eds/")]
    found = endpoints.read(msgspec.json.encode(files[name]))
    assert found is not None and found.ready == ("/run/1", "/run/2")
    assert found.listen.startswith("/run/edge/") and len(found.listen) < 40
    assert found.standby == standby(mine, MAIN)
    without = routes([mine], replicas, Gateway(), folder="/envoy")
    assert endpoints.read(msgspec.json.encode(without[name])) is None
