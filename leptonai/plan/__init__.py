"""What to do next, decided purely: wish and replicas in, steps and gateway files out."""

from leptonai.plan.cluster import cluster_name
from leptonai.plan.gateway import Memo, Snapshot, bootstrap, routes, updates, usual_threads
from leptonai.plan.linger import linger
from leptonai.plan.steps import Room, delay, plan

__all__ = [
    "Memo",
    "Room",
    "Snapshot",
    "bootstrap",
    "cluster_name",
    "delay",
    "linger",
    "plan",
    "routes",
    "updates",
    "usual_threads",
]
