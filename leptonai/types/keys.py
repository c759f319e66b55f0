"""Names, keys, and what every noun is."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

DEFAULT_WORKSPACE = "default"
SCALER = "scaler"  # who proposes replicas of services with ``scale.auto`` or ``scale.idle``
TEST_HEADER = "x-leptonai-test"  # marks what operations ask a replica; the gateway takes it off what users ask
OF_PIPELINE = "pipeline "  # begins the reason of a revision that a pipeline proposed
HUMAN = "human:"  # begins who proposes with a person's token: human:ana
GITOPS = "gitops:"  # begins who proposes for a custom resource: gitops:<namespace>/<name>@<generation>
PEOPLE = (HUMAN, GITOPS)  # begin who proposes what people want; everybody else is a machine
NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")  # a DNS label with room for the suffixes of replicas
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Key = str  # "digits" or "team/digits"; made by make_key, taken apart by parse_key
Role = Literal["viewer", "operator", "admin"]
State = Literal["starting", "ready", "failed", "stopping"]
Severity = Literal["info", "warning", "critical"]
Verdict = Literal["effective", "ineffective", "inconclusive", "harmful"]
Policy = Literal["least_request", "round_robin", "random", "ring_hash", "maglev"]
Strategy = Literal["replace", "canary", "blue_green", "manual"]


def make_key(name: str, workspace: str = DEFAULT_WORKSPACE) -> Key:
    """The key of a service; the default workspace is elided."""
    return name if workspace == DEFAULT_WORKSPACE else f"{workspace}/{name}"


def parse_key(key: Key) -> tuple[str, str]:
    """``(workspace, name)`` of a key; the inverse of make_key."""
    workspace, _, name = key.rpartition("/")
    return workspace or DEFAULT_WORKSPACE, name


class Noun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """What every noun is: immutable, named fields, unknown fields refused when decoded."""


def canonical(value: Any) -> bytes:
    """The one JSON spelling of a value, for hashing: sorted keys, no blanks. Equal values give equal bytes."""
    return msgspec.json.encode(value, order="deterministic")
