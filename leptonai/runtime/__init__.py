"""Inside a replica: one process, one model version. Knows types, errors and two seams of protocols only.

http (bytes) -> app (routes) -> model (JSON to arguments) -> compute thread (batching, predict, JSON) -> app -> http
                     |                                              |                                     |
                readiness <----------- heartbeat (health) ----------+                 metrics, prediction log

host: which thread runs the loop; the compute thread itself while the model's runs are short.
"""
