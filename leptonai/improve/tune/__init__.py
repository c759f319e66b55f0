"""Searching parameters by trials: of training, of classifiers on labelled rows, of serving. Extra: tune (optuna)."""
