"""The base tier: columnar detectors over every series, and the watcher that maps signals to their slots."""

from leptonai.ops.detect.ar import Ar
from leptonai.ops.detect.base import Agreement, base_tier
from leptonai.ops.detect.ewma import Ewma
from leptonai.ops.detect.threshold import Threshold
from leptonai.ops.detect.watcher import GOLDEN, Watcher

__all__ = ["GOLDEN", "Agreement", "Ar", "Ewma", "Threshold", "Watcher", "base_tier"]
