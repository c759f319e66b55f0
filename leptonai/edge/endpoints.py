"""What the edge must know of one cluster, read from the very file that Envoy reads its endpoints from."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from leptonai.errors import SpecError
from leptonai.types import Standby

METADATA = "leptonai.edge"


class Cluster(NamedTuple):
    """One cluster: where the edge listens for it, what it does, and the replicas that are ready."""

    listen: str
    standby: Standby
    ready: tuple[str, ...]  # Unix paths, or host:port


def read(content: bytes) -> Cluster | None:
    """The cluster of an endpoint file; None when it gives the edge nothing to do. SpecError when it is no such file."""
    try:
        (assignment,) = msgspec.json.decode(content)["resources"]
        ready: list[str] = []
        edge: tuple[str, Standby] | None = None
        for locality in assignment["endpoints"]:
            for host in locality["lb_endpoints"]:
                address = _address(host["endpoint"]["address"])
                told = host.get("metadata", {}).get("filter_metadata", {}).get(METADATA)
                if told is None:
                    ready.append(address)
                else:
                    edge = address, msgspec.convert(told, Standby)
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as e:
        raise SpecError(f"not an endpoint file: {e!r}", hint="it is written by the platform; see its version") from e
    return Cluster(edge[0], edge[1], tuple(ready)) if edge else None


def _address(address: dict[str, Any]) -> str:
    if pipe := address.get("pipe"):
        return str(pipe["path"])
    found = address["socket_address"]
    return f"{found['address']}:{found['port_value']}"
