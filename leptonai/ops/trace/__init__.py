"""Traces: spans of the gateway and the replicas, those that others send, kept within bounds; the call graph of them."""
