"""Wish to world: text to Service, and the loop that makes the world match it."""
