"""Telemetry kept by a Prometheus instead of our own files."""

from leptonai.platforms.prometheus.store import PrometheusStore

__all__ = ["PrometheusStore"]
