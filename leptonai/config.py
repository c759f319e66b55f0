"""Re-exports ``leptonai.lab.config``: ``from leptonai.config import config``."""

from leptonai.lab.config import config as config
