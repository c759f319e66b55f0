"""Logs: templates mined from lines, what templates become as signals, and masking of what leaves the machine."""

from leptonai.ops.logs.miner import Miner, Template
from leptonai.ops.logs.privacy import Masker
from leptonai.ops.logs.series import Rates, log_signals
from leptonai.ops.logs.words import matches

__all__ = ["Masker", "Miner", "Rates", "Template", "log_signals", "matches"]
