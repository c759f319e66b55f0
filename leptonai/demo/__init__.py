"""The demo: a real model served, broken in real ways, repaired by nobody's hand. The drills do the work."""
