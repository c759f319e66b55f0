"""Smaller and faster models within a budget: shapes (pruned, factorised, split) times precisions, all measured."""
