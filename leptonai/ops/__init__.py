"""World to wish: collect, detect, diagnose, respond, report. Changes the wish, never the world."""
