"""Autoscaling decided purely: policies over what is seen, and a replay of recorded arrivals against any of them."""

from leptonai.plan.scale.learn import Learner
from leptonai.plan.scale.pilot import Pilot, Reading
from leptonai.plan.scale.policy import Decision, Outlook, Policy, Sight
from leptonai.plan.scale.replay import Outcome, Setup, replay
from leptonai.plan.scale.simulate import made, simulate
from leptonai.plan.scale.trace import Trace, parse, read
from leptonai.plan.scale.window import Window

__all__ = [
    "Decision",
    "Learner",
    "Outcome",
    "Outlook",
    "Pilot",
    "Policy",
    "Reading",
    "Setup",
    "Sight",
    "Trace",
    "Window",
    "made",
    "parse",
    "read",
    "replay",
    "simulate",
]
