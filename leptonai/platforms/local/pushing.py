"""What a push of files to Envoy must wait for, and how it is known that Envoy has taken one. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

from leptonai.types import canonical


def needed(name: str, content: dict[str, Any] | None, changed: set[str]) -> set[str]:
    """What Envoy must have taken before a file is written, so that no route ever names a cluster it has not."""
    if content is None or name == "rds.json":
        return {"cds.json"}
    if name == "cds.json" and name in changed:  # the second time: clusters leave after the routes that named them
        return {"cds.json", "rds.json"}
    return set()


def prefix(name: str) -> str:
    """Where Envoy counts the updates of a file."""
    fixed = {
        "cds.json": "cluster_manager.cds",
        "lds.json": "listener_manager.lds",
        "rds.json": "http.gateway.rds.gateway",
    }
    return fixed.get(name) or f"cluster.{name.removeprefix('eds/').removesuffix('.json')}"


def trouble(kind: str, detail: dict[str, Any]) -> str:
    """The event of a push that did not succeed, in words for whoever asks later."""
    if kind == "gateway.push_failed":
        return f"{detail['file']} cannot be written ({detail['error']}); what was in force stays in force"
    files = ", ".join(detail["files"][:3]) + (" and others" if len(detail["files"]) > 3 else "")
    if kind == "gateway.rejected":
        why = detail["log"].rpartition("\n")[2].strip(": ")
        return f"Envoy refused {files}; what was in force stays in force ({why})"
    return f"Envoy has not confirmed {files}"


def content_version(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(content)).hexdigest()[:16]
