"""What every TelemetryStore must do. Subclass it, give ``store()``, and let pytest collect the class."""

from __future__ import annotations

import math

from leptonai.errors import SpecError
from leptonai.protocols import TelemetryStore
from leptonai.types import Signal


def sample(at: float, value: float, name: str = "latency_p99_seconds", **labels: str) -> Signal:
    return Signal(name=name, labels=labels or {"service": "digits"}, at=at, value=value)


class TelemetrySuite:
    """Times in the suite lie within one minute, so any sensible retention keeps all of it."""

    def store(self) -> TelemetryStore:
        """A fresh, empty store."""
        raise NotImplementedError

    def test_what_is_written_is_read_back(self) -> None:
        store = self.store()
        store.write([sample(10.0, 0.5), sample(11.0, 0.7)])
        (series,) = store.read("latency_p99_seconds", 10.0, 12.0)
        assert (series.name, series.labels) == ("latency_p99_seconds", {"service": "digits"})
        assert (series.at, series.value) == ([10.0, 11.0], [0.5, 0.7])

    def test_the_stretch_is_half_open(self) -> None:
        store = self.store()
        store.write([sample(float(t), float(t)) for t in range(10)])
        (series,) = store.read("latency_p99_seconds", 3.0, 6.0)
        assert series.at == [3.0, 4.0, 5.0]

    def test_labels_select_by_inclusion(self) -> None:
        store = self.store()
        for replica in ("a", "b"):
            store.write([sample(1.0, 1.0, "replica_rss_bytes", service="digits", replica=replica)])
        store.write([sample(1.0, 1.0, "replica_rss_bytes", service="other", replica="c")])
        digits = store.read("replica_rss_bytes", 0.0, 2.0, {"service": "digits"})
        assert [s.labels["replica"] for s in digits] == ["a", "b"]
        assert len(store.read("replica_rss_bytes", 0.0, 2.0)) == 3
        assert store.read("replica_rss_bytes", 0.0, 2.0, {"service": "digits", "replica": "c"}) == []

    def test_late_samples_are_put_in_order(self) -> None:
        store = self.store()
        store.write([sample(1.0, 1.0), sample(3.0, 3.0)])
        store.write([sample(2.0, 2.0)])
        (series,) = store.read("latency_p99_seconds", 0.0, 4.0)
        assert series.at == [1.0, 2.0, 3.0] and series.value == [1.0, 2.0, 3.0]

    def test_a_step_gives_means_and_nan_where_nothing_was_seen(self) -> None:
        store = self.store()
        store.write([sample(0.0, 1.0), sample(0.5, 3.0), sample(2.0, 5.0)])
        (series,) = store.read("latency_p99_seconds", 0.0, 3.0, step=1.0)
        assert series.at == [0.0, 1.0, 2.0]
        assert series.value[0] == 2.0 and math.isnan(series.value[1]) and series.value[2] == 5.0

    def test_names_are_those_with_samples(self) -> None:
        store = self.store()
        assert store.names() == []
        store.write([sample(1.0, 1.0, "b_count"), sample(1.0, 1.0, "a_count")])
        assert store.names() == ["a_count", "b_count"]

    def test_an_unknown_name_is_no_error(self) -> None:
        assert self.store().read("never_seen_count", 0.0, 1.0) == []

    def test_an_empty_stretch_is_refused(self) -> None:
        store = self.store()
        for start, end, step in ((2.0, 1.0, 0.0), (1.0, 1.0, 0.0), (0.0, 1.0, -1.0)):
            try:
                store.read("latency_p99_seconds", start, end, step=step)
            except SpecError as e:
                assert e.hint
            else:
                raise AssertionError(f"[{start}, {end}) with step {step} was accepted")
