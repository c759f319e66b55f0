"""Which platform a home has: where its replicas run is a setting."""

from __future__ import annotations

from collections.abc import Callable

from leptonai.client.home import Home
from leptonai.daemon.led import Alone, Lead
from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.platforms.local import LocalPlatform
from leptonai.protocols import Record
from leptonai.settings import Settings
from leptonai.store import Artifacts
from leptonai.types import Key


def platform(
    home: Home,
    settings: Settings,
    record: Record,
    control: str = "",
    woken: Callable[[Key], None] = lambda key: None,
) -> LocalPlatform | KubernetesPlatform:
    """Not started. ``control``, ``woken``: as of LocalPlatform."""
    if settings.kubernetes.enabled:
        return KubernetesPlatform(home.path, settings, record=record, control=control, woken=woken)
    return LocalPlatform(home.path, settings, Artifacts(home.artifacts), record=record, control=control, woken=woken)


def lead(platform: LocalPlatform | KubernetesPlatform) -> Lead:
    """Whether this copy leads, of a platform that was started. On one machine there is no other."""
    leader = platform.leader if isinstance(platform, KubernetesPlatform) else None
    return leader or Alone()
