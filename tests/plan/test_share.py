"""What is stated for all gateways, divided among them."""

from hypothesis import given
from hypothesis import strategies as st

from leptonai.plan.share import share
from leptonai.types import Dials, Hold, Limits, RateLimit, Retry, Service, Spec, Variant

COUNT = st.integers(1, 10_000)
GATEWAYS = st.integers(2, 50)


def service(**spec: object) -> Service:
    made = Spec(name="digits", variants=(Variant(model="sha256:" + "0" * 64),), **spec)  # type: ignore[arg-type]
    return Service(spec=made, dials=Dials(), revision=1)


@given(GATEWAYS, COUNT, st.none() | COUNT, st.floats(0.01, 1e6), st.none() | st.floats(0.01, 1e6), st.integers(0, 99))
def test_together_they_hold_what_is_stated_and_of_a_count_less_than_one_more_each(
    n: int, count: int, burst: int | None, rate: float, anonymous: float | None, pending: int
) -> None:
    stated = service(
        limits=Limits(requests=count, pending=pending),
        rate_limit=RateLimit(rate=rate, burst=burst, anonymous=anonymous),
        retry=Retry(min=count),
        hold=Hold(max_count=count, max_bytes=count),
    )
    spec, limit = share(stated, n).spec, share(stated, n).spec.rate_limit
    assert limit is not None
    assert abs(limit.rate * n - rate) <= 1e-9 * rate
    assert (limit.anonymous is None) == (anonymous is None)
    for part, whole in (
        (spec.limits.requests, count), (spec.limits.pending, pending), (spec.retry.min, count),
        (spec.hold.max_count, count), (spec.hold.max_bytes, count), (limit.burst, burst or max(1, -int(-rate // 1))),
    ):  # fmt: skip
        assert part is not None and whole <= part * n < whole + n
    assert (spec.limits.connections, spec.hold.max_wait) == (None, stated.spec.hold.max_wait), "and nothing else"


def test_one_gateway_holds_it_as_it_is() -> None:
    stated = service(rate_limit=RateLimit(rate=10.0))
    assert share(stated, 1) is stated is share(stated, 0)
