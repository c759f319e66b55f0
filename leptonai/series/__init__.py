"""Columnar maths over many series at once: pure numpy, no I/O, no clock, no Python loop over series."""
