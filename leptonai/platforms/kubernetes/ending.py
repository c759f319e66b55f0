"""Taking a platform down while its cluster does not answer: what is waited for, and what is said of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any

from leptonai.errors import LeptonError, PlatformError
from leptonai.plan.render.names import MANAGER, OWN
from leptonai.platforms.kubernetes import lease
from leptonai.platforms.kubernetes.names import plural
from leptonai.platforms.kubernetes.rights import KINDS
from leptonai.types import Key

SILENCE = 20.0  # seconds without a word of the cluster after which nothing more is waited for
_LOOK = 0.5
_EVERYWHERE = (*KINDS, "PodDisruptionBudget", "HorizontalPodAutoscaler")
_INSTALLED = ("ScaledObject", "HTTPRoute", "VirtualService", "DestinationRule")  # kubectl knows of them where they are


async def heard(work: Coroutine[Any, Any, Any], trouble: Callable[[], str], silence: float = SILENCE) -> None:
    """``work`` is done. PlatformError ``unreachable`` once there was ``trouble`` for ``silence`` seconds on end."""
    loop = asyncio.get_running_loop()
    task, since = asyncio.ensure_future(work), loop.time()
    try:
        while not (await asyncio.wait([task], timeout=_LOOK))[0]:
            why = trouble()
            if not why:
                since = loop.time()
            elif loop.time() - since > silence:
                raise PlatformError(why, hint="is the API server up?", code="unreachable", retry=True)
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def removed(remove: Callable[[Key], Awaitable[None]], left: set[Key]) -> None:
    """``left`` loses each service once it is gone. Raises the first refusal, when all others were seen to."""

    async def one(key: Key) -> None:
        await remove(key)
        left.discard(key)

    for told in await asyncio.gather(*(one(key) for key in sorted(left)), return_exceptions=True):
        if told is not None:
            raise told


def left_running(
    services: Sequence[str], namespace: str, server: str, why: LeptonError, kinds: Collection[str] = ()
) -> PlatformError:
    """Of ``services``, as last known; [] where only the cluster knows them. ``kinds``: what we made there; () where it
    is not known which of them the cluster serves."""
    shown = ", ".join(services[:5]) + (f" and {len(services) - 5} others" if len(services) > 5 else "")
    what = f"{len(services)} service{'s' if len(services) > 1 else ''} ({shown})" if services else "services"
    where = f"namespace {namespace} of {server}" if server else "the cluster"
    within = f"kubectl -n {namespace}" if namespace else "kubectl"
    listed = _plurals(kinds or _EVERYWHERE)
    more = "" if kinds else f" (and so {_plurals(_INSTALLED)}, those that the cluster has)"
    return PlatformError(
        f"{what} may still run in {where}: {why.message}. On this machine nothing runs any more",
        hint="`leptonai down` again, once the cluster answers, removes them; or by hand "
        f"`{within} delete {listed} -l app.kubernetes.io/managed-by={MANAGER},{OWN}/service`{more}, "
        f"then `{within} delete lease {lease.NAME}`",
        code="left_running",
        services=list(services),
    )


def _plurals(kinds: Iterable[str]) -> str:
    return ",".join(plural(kind) for kind in kinds)
