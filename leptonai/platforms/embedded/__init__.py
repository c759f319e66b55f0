"""The embedded telemetry store: memory for the newest, an append log against death, Parquet segments for the rest."""

from leptonai.platforms.embedded.store import Embedded

__all__ = ["Embedded"]
