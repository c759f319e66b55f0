"""The demo: a real model served, broken in real ways, repaired by nobody's hand. No other room knows of it."""
