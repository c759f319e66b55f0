"""How a service's calls to what it depends on went, from client spans that it or others sent."""

from __future__ import annotations

from collections.abc import Iterable

from leptonai.ops.trace.graph import PEERS
from leptonai.types import Signal, Span, make_key

MOST_EDGES = 10_000
# An answer that says: your credential does not count (HTTP semantics, RFC 9110; gRPC codes 7 and 16).
_DENIED = {
    "http.response.status_code": {"401", "403"},
    "http.status_code": {"401", "403"},
    "rpc.grpc.status_code": {"7", "16"},
}
_CERTIFICATE = ("certificate", "x509", "token expired", "expired token")


class Calls:
    """Counts spans as they come. Each reading tells of the spans since the one before."""

    def __init__(self) -> None:
        self._edges: dict[tuple[str, str], list[float]] = {}
        self._read: float | None = None  # when the last reading was taken

    def saw(self, spans: Iterable[Span]) -> None:
        for span in spans:
            if span.kind not in ("client", "producer"):
                continue
            callee = next((span.attributes[p] for p in PEERS if span.attributes.get(p)), "")
            edge = (make_key(span.service, span.workspace) if "/" not in span.service else span.service, callee)
            if not callee or (edge not in self._edges and len(self._edges) >= MOST_EDGES):
                continue
            counts = self._edges.setdefault(edge, [0.0, 0.0, 0.0, 0.0])
            for i, n in enumerate((1.0, float(span.failed), float(denied(span)), span.seconds)):
                counts[i] += n

    def signals(self, now: float) -> list[Signal]:
        """By ``service`` and ``dependency``: shares of calls that failed and that were denied, mean seconds of one, and
        from the second reading on how many there were a second."""
        taken, self._edges = self._edges, {}
        elapsed, self._read = now - self._read if self._read is not None else 0.0, now
        rates = [
            Signal(
                name="dependency_rate_per_second", labels={"service": service, "dependency": dependency}, at=now,
                value=counts[0] / elapsed,
            )
            for (service, dependency), counts in sorted(taken.items())
            if elapsed > 0
        ]  # fmt: skip
        return rates + [
            Signal(name=name, labels={"service": service, "dependency": dependency}, at=now, value=value / calls)
            for (service, dependency), (calls, failed, refused, seconds) in sorted(taken.items())
            for name, value in (
                ("dependency_error_ratio", failed),
                ("dependency_denied_ratio", refused),
                ("dependency_seconds", seconds),
            )
        ]


def denied(span: Span) -> bool:
    """Whether the callee, or the handshake with it, refused the caller's certificate or token."""
    if any(span.attributes.get(name) in codes for name, codes in _DENIED.items()):
        return True
    said = " ".join(v for k, v in span.attributes.items() if k in ("error.type", "exception.message", "status.message"))
    return span.failed and any(word in said.lower() for word in _CERTIFICATE)
