"""Real faults for drills in pods, from a process that the platform does not know of.

    python -m leptonai.platforms.kubernetes.inject kill --pod digits-main-6543bdb5-5d4f9c-x7k2p
    python -m leptonai.platforms.kubernetes.inject leak --pod ... --amount 5e6 --heal-after 120

``kill`` deletes the pod without grace. ``stop``, ``leak``, ``hog``, ``delay`` and ``error`` are done by the replica,
which also heals them. The account needs the rights of the platform: see ``leptonai export rbac``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from leptonai.errors import LeptonError, PlatformError
from leptonai.plan.render.pod import PORT
from leptonai.platforms.kubernetes.attend import shared_secret
from leptonai.platforms.kubernetes.cluster import Cluster
from leptonai.platforms.kubernetes.orders import Orders

KINDS = ("kill", "stop", "leak", "hog", "delay", "error")


async def inject(kind: str, pod: str, amount: float, heal_after: float, context: str = "", namespace: str = "") -> None:
    """In force when this returns; ``amount`` 0 heals. PlatformError when the pod is not there or does not obey."""
    cluster = Cluster(context, namespace)
    try:
        here = await cluster.get("v1", "Pod", pod)
        if here is None:
            raise PlatformError(f"there is no pod {pod} in namespace {cluster.namespace}", hint="leptonai status")
        if kind == "kill":
            await cluster.delete("v1", "Pod", pod, grace=0, uid=here["metadata"]["uid"])
            return
        orders = Orders(f"{here['status'].get('podIP', '')}:{PORT}", await shared_secret(cluster), Path())
        try:
            await orders.fault(kind, amount, heal_after)
        finally:
            orders.close()
    finally:
        await cluster.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m leptonai.platforms.kubernetes.inject", description="Inject one fault into a pod."
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--pod", required=True)
    parser.add_argument("--context", default="", help="of the kubeconfig")
    parser.add_argument("--namespace", default="")
    parser.add_argument("--amount", type=float, default=1.0, help="leak bytes/s, hog cores, delay seconds, error share")
    parser.add_argument("--heal-after", type=float, default=60.0, help="seconds")
    asked = parser.parse_args(argv)
    try:
        asyncio.run(inject(asked.kind, asked.pod, asked.amount, asked.heal_after, asked.context, asked.namespace))
    except LeptonError as e:
        print(f"{e.message}. {e.hint}", file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
