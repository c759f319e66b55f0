"""Models that the demo deploys as files. They are read from here, not imported."""
