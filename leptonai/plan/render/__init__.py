"""What a service is on Kubernetes, as plain dicts: equal wishes give equal objects, in an order safe to apply. Pure."""

from leptonai.plan.render.apis import Apis
from leptonai.plan.render.service import Ground, Rendering, Traffic, nameable, render
from leptonai.plan.render.text import to_yaml

__all__ = ["Apis", "Ground", "Rendering", "Traffic", "nameable", "render", "to_yaml"]
