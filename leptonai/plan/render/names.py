"""Names and labels of objects: legal in DNS, the same for ever for the same lane, whatever its spec becomes."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from leptonai.errors import SpecError
from leptonai.types import DEFAULT_WORKSPACE, Key, canonical, parse_key

Json = dict[str, Any]

OWN = "leptonai.dev"  # prefix of our labels and annotations
MANAGER = "leptonai"
EVICTED = f"{OWN}/evicted"  # of a pod: "no", or "yes" once its Deployment is to make another
PART = f"{OWN}/part"  # "control", "gateway": of the platform's own pods. No pod of a service has it, whatever its name
LONGEST = 46  # so that a pod's name (a ReplicaSet's 10 digits, 5 of its own, two dashes) is a DNS label of 63 too


LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # of a namespace, a Service
DOTTED = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"  # of most other objects


def legal(name: str, what: str, pattern: str = LABEL) -> str:
    """``name`` as it is. SpecError when no ``what`` ("namespace") can be named so."""
    if not re.fullmatch(pattern, name):
        some = "dashes, 63 at most" if pattern == LABEL else "dashes, dots, 253 at most"
        raise SpecError(f"{name!r} is no name of a {what}", hint=f"lower case, digits, {some}")
    return name


def front_name(key: Key) -> str:
    """Of what clients call: the service's own name in the default workspace."""
    workspace, name = parse_key(key)
    return name if workspace == DEFAULT_WORKSPACE else _hashed(f"{workspace}-{name}", (key,))


def lane_name(key: Key, lane: str) -> str:
    """``digits``, ``main`` -> ``digits-main-9b6d8d2e``. The digits tell ``a-b`` + ``main`` from ``a`` + ``b-main``."""
    return _hashed(f"{key.replace('/', '-')}-{lane}", (key, lane))


def config_name(key: Key, lane: str, content: Any) -> str:
    """As the lane's, and another for every content: pods that run keep what they were started with."""
    return _hashed(f"{key.replace('/', '-')}-{lane}", (key, lane, content))


def account_name(key: Key) -> str:
    return _hashed(key.replace("/", "-"), (key, "service"))


def owner(key: Key) -> dict[str, str]:
    """Whose an object is: every object of a service carries these labels, and nobody else's does."""
    workspace, name = parse_key(key)
    return {
        "app.kubernetes.io/managed-by": MANAGER,
        "app.kubernetes.io/name": name,
        f"{OWN}/workspace": workspace,
        f"{OWN}/service": name,
    }


def selector(key: Key, lane: str | None = None) -> dict[str, str]:
    """The labels by which pods are found. A Deployment's cannot be changed, so nothing of the spec is in them."""
    workspace, name = parse_key(key)
    found = {f"{OWN}/workspace": workspace, f"{OWN}/service": name}
    return found if lane is None else found | {f"{OWN}/lane": lane}


def held(key: Key, lane: str) -> dict[str, str]:
    """The labels of the pods that a Deployment counts. An evicted pod loses one of them and is still called."""
    return selector(key, lane) | {EVICTED: "no"}


def _hashed(stem: str, of: tuple[Any, ...]) -> str:
    digits = hashlib.sha256(canonical(of)).hexdigest()[:8]
    return f"{stem[: LONGEST - 9].rstrip('-')}-{digits}"
