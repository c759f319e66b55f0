"""What a replica says of itself in the Open Inference Protocol: metadata, the repository's index, statistics. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.errors import Conflict, NotFound, SpecError
from leptonai.runtime.health import Readiness
from leptonai.runtime.metrics import Metrics
from leptonai.runtime.model import Model

Json = dict[str, Any]


class _Index(msgspec.Struct):
    ready: bool = False


EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics", "schedule_policy"]


def server(extensions: list[str]) -> Json:
    from leptonai import __version__

    return {"name": "leptonai", "version": __version__, "extensions": extensions}


def metadata(model: Model, name: str, version: str) -> Json:
    return {
        "name": name,
        "versions": [version],
        "platform": model.platform,
        "inputs": model.inputs,
        "outputs": model.outputs,
    }


def nothing_at(path: str, name: str, version: str) -> NotFound:
    """Why there is nothing at ``path``, and what is here instead."""
    parts = path.split("/")
    if parts[1:3] == ["v2", "models"] and len(parts) > 3:
        if parts[3] != name:
            return NotFound(f"unknown model {parts[3][:80]!r}", hint=f"this replica serves {name!r}")
        if parts[4:5] == ["versions"] and parts[5:6] != [version]:
            return NotFound(
                f"model {name!r} has no version {'/'.join(parts[5:6])[:80]!r}",
                hint=f"this replica serves version {version!r}",
            )
    return NotFound(f"there is nothing at {path[:200]!r}", hint="try /predict or /v2")


def index(name: str, version: str, verdict: Readiness, only_ready: bool) -> list[Json]:
    """The repository as one replica sees it: itself."""
    if only_ready and not verdict.ready:
        return []
    state = "READY" if verdict.ready else "LOADING" if verdict.state == "starting" else "UNAVAILABLE"
    return [{"name": name, "version": version, "state": state, "reason": verdict.detail}]


def load(asked: str, name: str) -> Json:
    """A replica has its model loaded already, and never another."""
    if asked != name:
        raise NotFound(f"unknown model {asked[:80]!r}", hint=f"this replica serves {name!r}; ask the gateway")
    return {}


def unload(asked: str, name: str) -> Json:
    """A replica ends when its service is scaled, which is the platform's to do."""
    load(asked, name)
    raise Conflict(
        f"a replica cannot unload {name!r}: other replicas serve it too, and the platform would start a new one",
        hint=f"POST /v2/repository/models/{name}/unload to the gateway, with a token: it scales the service to zero",
    )


def only_ready(body: bytes) -> bool:
    """The ``ready`` of an index request, which may be empty."""
    try:
        return msgspec.json.decode(body, type=_Index).ready if body.strip() else False
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise SpecError(f"not an index request: {e}", hint='send {"ready": true}, {} or nothing') from e


def statistics(name: str, version: str, metrics: Metrics, last: float) -> Json:
    """The statistics extension's answer. ``last``: unix seconds of the last inference, 0 before any; sent as ms."""
    spent = {kind: _duration(*of) for kind, of in metrics.durations().items()}
    nothing = _duration(0, 0.0)  # done a request at a time, whatever batch it comes into
    one = {
        "name": name,
        "version": version,
        "last_inference": int(last * 1e3),
        "inference_count": metrics.inferences,
        "execution_count": sum(count for count, _ in metrics.batches.values()),
        "inference_stats": spent,
        "batch_stats": [
            {
                "batch_size": batch,
                "compute_input": nothing,
                "compute_infer": _duration(*of),
                "compute_output": nothing,
            }
            for batch, of in sorted(metrics.batches.items())
        ],
    }
    return {"model_stats": [one]}


def _duration(count: int, seconds: float) -> Json:
    return {"count": count, "ns": int(seconds * 1e9)}
