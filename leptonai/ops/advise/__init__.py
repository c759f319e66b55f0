"""Where a service ends: its first limit, the load at which it bites, and the change that moves it. Pure."""

from leptonai.ops.advise.advise import LONGEST, SIGNALS, advise
from leptonai.ops.advise.limits import Below
from leptonai.ops.advise.seen import LEAST

__all__ = ["LEAST", "LONGEST", "SIGNALS", "Below", "advise"]
