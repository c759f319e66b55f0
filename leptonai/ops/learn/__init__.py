"""What reviews and feedback change, visibly: rule weights, runbook order, labels for training. Deciding is pure."""
