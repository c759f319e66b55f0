"""The taxonomy: changes of state, each with one sentence. Slow answers and errors are symptoms, and not in it."""

from __future__ import annotations

CAUSES = {
    "replica_killed": "a replica was killed from outside",
    "replica_crashed": "a replica ended by itself",
    "crash_loop": "replicas end again and again",
    "out_of_memory": "a replica ran out of memory",
    "hung_replica": "a replica is alive and does not answer",
    "memory_leak": "the memory of a replica keeps growing",
    "bad_revision_wrong_answers": "a revision answers wrongly",
    "bad_revision_latency": "a revision computes slowly",
    "bad_revision_errors": "a revision fails",
    "bad_config": "a revision does not start: its model or options cannot be loaded",
    "nan_outputs": "the model computes numbers that are none",
    "poisoned_input": "certain requests make every replica fail that they reach",
    "data_drift": "the data that come are not those of before",
    "traffic_surge": "more traffic came than the replicas carry",
    "retry_storm": "repeated requests make up the load",
    "cold_start_storm": "most replicas start at the same time",
    "cpu_starvation": "the processors of the machine are taken by something else",
    "noisy_neighbour": "another service on the same machine takes its processors",
    "disk_full": "a disk of the machine is full",
    "slow_dependency": "something that the service calls has become slow",
    "dead_dependency": "something that the service calls does not answer or fails",
    "credential_expired": "a certificate or token is not valid any more",
    "gpu_xid": "the driver reported a fault of a GPU",
    "gpu_ecc": "the memory of a GPU has errors that cannot be corrected",
    "gpu_thermal": "a GPU slows down because it is too hot",
    "gpu_lost": "a GPU has fallen off the bus",
    "unknown": "no rule explains what was seen",
}
