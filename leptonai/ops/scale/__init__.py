"""The autoscaler in production: what was collected becomes a reading, a policy decides, the door is asked."""

from leptonai.ops.scale.scaler import Scaler

__all__ = ["Scaler"]
