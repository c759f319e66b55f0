"""A simulator of many services: a call graph of queues with faults of every cause of the taxonomy, seen as ops sees.

``system`` says what exists, ``flow`` lets a second pass for all services at once, ``faults`` act on causes (speed of
service, memory, chance of failing), ``show`` gives the signals, ``watch`` runs the detection and diagnosis of ``ops``
over it, ``cases`` draws labelled incidents.
"""

from leptonai.ops.simulate.faults import KINDS, Fault
from leptonai.ops.simulate.flow import Flow
from leptonai.ops.simulate.system import System, cells, mesh

__all__ = ["KINDS", "Fault", "Flow", "System", "cells", "mesh"]
