"""The servers that serving.py compares, and how they are started and measured."""
