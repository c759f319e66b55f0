"""What a service states for all its gateways, as each of several is to hold it. Pure."""

from __future__ import annotations

import math

from msgspec.structs import replace

from leptonai.types import RateLimit, Service


def share(service: Service, gateways: int) -> Service:
    """``service`` as one of ``gateways`` gateways leads to it: counts and rates are divided, counts rounded up.

    So together they let through what is stated, and at most one more per gateway of each count; as Envoy shares its own
    local rate limits among instances. Whoever comes by one of them only, over one connection, gets that one's share.
    """
    if gateways <= 1:
        return service
    spec = service.spec
    limits = {f: _up(n, gateways) for f in spec.limits.__struct_fields__ if (n := getattr(spec.limits, f))}
    hold = {"max_count": _up(spec.hold.max_count, gateways), "max_bytes": _up(spec.hold.max_bytes, gateways)}
    shared = replace(
        spec,
        limits=replace(spec.limits, **limits),
        retry=replace(spec.retry, min=_up(spec.retry.min, gateways)),
        hold=replace(spec.hold, **hold),
        rate_limit=_rate(spec.rate_limit, gateways) if spec.rate_limit else None,
    )
    return replace(service, spec=shared)


def _rate(stated: RateLimit, gateways: int) -> RateLimit:
    """The burst is divided after its default, what a second allows, was filled in."""
    anonymous = None if stated.anonymous is None else stated.anonymous / gateways
    burst = _up(stated.burst or max(1, math.ceil(stated.rate)), gateways)
    return RateLimit(rate=stated.rate / gateways, burst=burst, anonymous=anonymous)


def _up(count: int, gateways: int) -> int:
    return -(-count // gateways)
