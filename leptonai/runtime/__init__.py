"""Inside a replica: one process, one model version. Knows types, errors and two seams of protocols only."""
