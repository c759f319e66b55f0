"""Re-exports ``leptonai.lab.pipeline``."""

from leptonai.lab.pipeline import Pipeline as Pipeline
