"""What to do next, decided purely: wish and replicas in, steps and gateway files out."""

from leptonai.plan.gateway import Snapshot, bootstrap, cluster_name, routes, updates
from leptonai.plan.steps import Room, delay, plan

__all__ = ["Room", "Snapshot", "bootstrap", "cluster_name", "delay", "plan", "routes", "updates"]
