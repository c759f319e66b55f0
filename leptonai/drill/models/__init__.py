"""Models that drills deploy as files. They are read from here, not imported."""
