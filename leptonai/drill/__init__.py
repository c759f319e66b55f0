"""Drills: real faults, injected on purpose, and what the platform made of each. No room below knows of it."""
