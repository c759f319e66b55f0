"""Re-exports ``leptonai.lab.ar``."""

from leptonai.lab.ar import AR as AR
