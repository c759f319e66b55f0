"""The runbook: cause x severity -> what is done, by whom, how far, and how it is judged. Text, checked when read."""

from leptonai.ops.runbook.files import RunbookFiles, shipped
from leptonai.ops.runbook.form import Limits, Range, Verify
from leptonai.ops.runbook.read import bind, load_runbook, read
from leptonai.ops.runbook.rows import Row, Runbook, Step

__all__ = [
    "Limits", "Range", "Row", "Runbook", "RunbookFiles", "Step", "Verify", "bind", "load_runbook", "read", "shipped",
]  # fmt: skip
