"""Who calls whom, made from spans. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from leptonai.client.wire import Edge, Graph, Node
from leptonai.types import Span

# Attributes with which a client span names what it calls, when that sends no spans itself (OpenTelemetry semantic
# conventions: peer.service, then what the protocol says, then the address).
PEERS = ("peer.service", "db.system.name", "db.system", "messaging.system", "server.address", "net.peer.name")


def call_graph(spans: Iterable[Span]) -> Graph:
    """Nodes by name, edges by (caller, callee). A span below one of another service is a call of that one to this.

    A client or producer span without anything below it is a call to the peer it names. Good calls that were quick are
    only a sample (``gateway.trace_share``): counts compare edges, they are no rates.
    """
    everything = list(spans)
    by_id = {(s.trace, s.id): s for s in everything}
    parents = {(s.trace, s.parent) for s in everything if s.parent}
    count: dict[str, list[int]] = {}
    edges: dict[tuple[str, str], list[float]] = {}
    for span in everything:
        node = count.setdefault(span.service, [0, 0])
        node[0] += 1
        node[1] += span.failed
        above = by_id.get((span.trace, span.parent))
        if above is not None and above.service != span.service:
            _add(edges, above.service, span)
        elif span.kind in ("client", "producer") and (span.trace, span.id) not in parents:
            peer = next((span.attributes[p] for p in PEERS if span.attributes.get(p)), "")
            if peer and peer != span.service:
                count.setdefault(peer, [0, 0])
                _add(edges, span.service, span, peer)
    return Graph(
        nodes=tuple(Node(service=s, spans=n, failed=f) for s, (n, f) in sorted(count.items())),
        edges=tuple(
            Edge(caller=a, callee=b, calls=int(n), failed=int(f), seconds=total / n)
            for (a, b), (n, f, total) in sorted(edges.items())
        ),
    )


def _add(edges: dict[tuple[str, str], list[float]], caller: str, span: Span, callee: str = "") -> None:
    edge = edges.setdefault((caller, callee or span.service), [0.0, 0.0, 0.0])
    edge[0] += 1
    edge[1] += span.failed
    edge[2] += span.seconds
