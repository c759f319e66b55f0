"""What is done about an incident: plan, preview, policy, approval, act, verdict. Every part is pure."""

from leptonai.ops.respond.acts import Act, Close, Escalate, Judge, Propose, Recommend, TakeBack, Wait
from leptonai.ops.respond.decide import RECONCILED, next_action, plans, row_of
from leptonai.ops.respond.plan import Plan, plan_of, reverse
from leptonai.ops.respond.policy import fault_of
from leptonai.ops.respond.sight import Sight

__all__ = [
    "RECONCILED", "Act", "Close", "Escalate", "Judge", "Plan", "Propose", "Recommend", "Sight", "TakeBack", "Wait",
    "fault_of", "next_action", "plan_of", "plans", "reverse", "row_of",
]  # fmt: skip
