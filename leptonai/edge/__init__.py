"""The edge: between a client and a replica only while no replica can answer. It holds requests and gives stale answers.

One process (``python -m leptonai.edge``), Envoy's priority 1 of every cluster. It knows types and errors only.
"""
