"""Units of foreign numbers: one base unit a quantity, so that a rule for seconds need not know of milliseconds."""

from __future__ import annotations

import re

# Prometheus' base units (prometheus.io/docs/practices/naming): what a name may end in -> base unit, factor.
SUFFIXES = {
    "_nanoseconds": ("_seconds", 1e-9),
    "_microseconds": ("_seconds", 1e-6),
    "_milliseconds": ("_seconds", 1e-3),
    "_minutes": ("_seconds", 60.0),
    "_hours": ("_seconds", 3600.0),
    "_kilobytes": ("_bytes", 1e3),
    "_kibibytes": ("_bytes", 1024.0),
    "_megabytes": ("_bytes", 1e6),
    "_mebibytes": ("_bytes", 2.0**20),
    "_gigabytes": ("_bytes", 1e9),
    "_gibibytes": ("_bytes", 2.0**30),
    "_percent": ("_ratio", 0.01),
}
# OTLP names units by UCUM codes (opentelemetry.io/docs/specs/semconv/general/metrics, "Instrument Units").
CODES = {
    "ns": ("_seconds", 1e-9),
    "us": ("_seconds", 1e-6),
    "ms": ("_seconds", 1e-3),
    "s": ("_seconds", 1.0),
    "min": ("_seconds", 60.0),
    "h": ("_seconds", 3600.0),
    "d": ("_seconds", 86400.0),
    "By": ("_bytes", 1.0),
    "kBy": ("_bytes", 1e3),
    "KiBy": ("_bytes", 1024.0),
    "MBy": ("_bytes", 1e6),
    "MiBy": ("_bytes", 2.0**20),
    "GBy": ("_bytes", 1e9),
    "GiBy": ("_bytes", 2.0**30),
    "%": ("_ratio", 0.01),
    "Cel": ("_celsius", 1.0),
    "V": ("_volts", 1.0),
    "A": ("_amperes", 1.0),
    "W": ("_watts", 1.0),
    "J": ("_joules", 1.0),
    "Pa": ("_pascals", 1.0),
    "bar": ("_pascals", 1e5),
    "Hz": ("_hertz", 1.0),
}
_ODD = re.compile(r"[^a-zA-Z0-9_:]")
COUNTERS = ("_total", "_bucket", "_sum", "_count")


def base_unit(name: str) -> tuple[str, float]:
    """The name in its base unit and what a value is multiplied by; ``(name, 1.0)`` when it needs no change.

    Only the very end of a name counts: the bounds of a histogram in milliseconds are not rewritten, so neither is it.
    """
    cut = name.rfind("_")
    found = SUFFIXES.get(name[cut:]) if cut > 0 else None
    return (name[:cut] + found[0], found[1]) if found else (name, 1.0)


def otlp_name(name: str, unit: str) -> tuple[str, float]:
    """The Prometheus name of an OTLP metric in its base unit, and the factor. Unknown units leave the name alone."""
    plain = prometheus_name(name)
    suffix, factor = CODES.get(unit, ("", 1.0))
    if not suffix:
        return base_unit(plain)
    stem, other = base_unit(plain)
    if other != 1.0 and stem.endswith(suffix):  # the name said it too: "duration_milliseconds" in "ms"
        return stem, factor
    return (plain if plain.endswith(suffix) else plain + suffix), factor


def prometheus_name(name: str) -> str:
    """``http.server.duration`` -> ``http_server_duration``: what both query languages can spell."""
    plain = _ODD.sub("_", name)
    return f"_{plain}" if plain[:1].isdigit() else plain


def is_counter(name: str) -> bool:
    """Whether values of this name rise until they begin anew, by Prometheus' naming."""
    return name.endswith(COUNTERS)
