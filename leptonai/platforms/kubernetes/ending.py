"""Taking a platform down while its cluster does not answer: what is waited for, and what is said of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from leptonai.errors import LeptonError, PlatformError
from leptonai.plan.render.names import MANAGER, OWN
from leptonai.platforms.kubernetes import lease

SILENCE = 20.0  # seconds without a word of the cluster after which nothing more is waited for
_LOOK = 0.5
_KINDS = "deployments,services,configmaps,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers,serviceaccounts"


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


def left_running(services: Sequence[str], namespace: str, server: str, why: LeptonError) -> PlatformError:
    """Of ``services``, as last known; [] where only the cluster knows them."""
    shown = ", ".join(services[:5]) + (f" and {len(services) - 5} others" if len(services) > 5 else "")
    what = f"{len(services)} service{'s' if len(services) > 1 else ''} ({shown})" if services else "services"
    where = f"namespace {namespace} of {server}" if server else "the cluster"
    within = f"kubectl -n {namespace}" if namespace else "kubectl"
    return PlatformError(
        f"{what} may still run in {where}: {why.message}. On this machine nothing runs any more",
        hint="`leptonai down` again, once the cluster answers, removes them; or by hand "
        f"`{within} delete {_KINDS} -l app.kubernetes.io/managed-by={MANAGER},{OWN}/service`, "
        f"then `{within} delete lease {lease.NAME}`",
        code="left_running",
        services=list(services),
    )
