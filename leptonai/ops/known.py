"""What may be known of a service, a revision or a replica at an incident: the features that facts yield."""

from __future__ import annotations

from collections.abc import Mapping

from leptonai.ops.diagnosis.conditions import Kind
from leptonai.ops.diagnosis.faulttree import About

# Every feature a rule may use, and its kind. A feature that was not seen is absent. Signals that rule files declare
# are features too (``diagnosis.rules.SignalFeature``).
_SERVICE: dict[str, Kind] = {  # rules about replicas and revisions may use these too
    "replicas": "number",
    "lasted_seconds": "number",  # since the onset
    "traffic_ratio": "number",  # request rate since the onset / before
    "arrivals_per_second": "number",  # what is answered, and what comes to wait
    "arrivals_ratio": "number",  # that / the request rate before
    "waiting_count": "number",  # requests under way
    "carried_per_second": "number",  # what the ready replicas compute at most
    "carrying_count": "number",  # how many these are
    "latency_ratio": "number",  # median latency users saw since the onset / before
    "slower": "flag",  # users wait longer: latency_ratio >= 1.5, or more of them past the SLO
    "user_error_share": "share",  # of the final answers since the onset
    "user_error_excess": "number",  # that, less what it was before
    "failing": "flag",  # user_error_excess >= 0.01
    "absent": "flag",  # nothing is heard of the service although it is wished for
    "lost_replicas": "number",  # that ended without having been asked to
    "starting_share": "share",  # of the replicas that are present
    "host_cpu_ratio": "share",
    "own_cpu_ratio": "number",  # processors that its replicas take since the onset / before
    "others_cpu_rise": "number",  # share of the processors that all others take since the onset, less before
    "neighbour_cpu_rise": "number",  # share of the processors that another service takes since the onset, less before
    "blamed_slow": "share",  # of the trouble that a slow service or dependency which it calls explains (``ops.rank``)
    "blamed_failing": "share",  # ... one that fails or is gone
    "calls_fail_logged": "flag",  # its log began to tell of calls that do not go through
    "calls_denied_logged": "flag",  # ... that are refused for a certificate, token or right
    "marked_share": "share",  # of the failed requests that have something in common which no answered one has
    "refused_share": "share",  # of all requests, these
    "own_compute_ratio": "number",  # compute of the digest that served before the onset: since / before
    "change_compute_ratio": "number",  # compute_ratio of the newest change
    "leaking_share": "share",  # of the replicas that are present
    "convicted_answers": "flag",  # labels convict a revision that runs
    "cleared_answers": "flag",  # ... which fewer labels had cleared before
    "change_age_seconds": "number",  # onset - the newest change of what runs
    "change_verified": "flag",  # that change had proved itself before the onset
}
_REVISION: dict[str, Kind] = {  # of the newest change of what runs
    "compute_ratio": "number",  # its compute / that of the digest before it
    "compute_excess_seconds": "number",
    "error_share": "share",
    "error_excess": "number",  # its share of errors - that of the digest before it, or of the time before the onset
    "previous_fails_too": "flag",
    "wrong_answers": "flag",  # convicted by labels
    "label_error_share": "share",
    "labels": "number",
    "fails_tests": "flag",  # each of its replicas that was tested answers the same model test wrongly
    "slow_in_tests": "flag",  # ... or too slowly
    "passed_tests": "flag",  # one of its replicas has passed all of them before
    "former_seconds": "number",  # for which it had answered before the onset
    "former_compute_ratio": "number",  # its compute then / that of the digest before it
    "former_error_share": "share",  # its share of errors then
    "most_leak": "flag",  # more than half of several replicas leak
    "failed_starts": "number",  # replicas of it that ended since it was made
    "load_failures": "number",  # of them, those whose model could not be loaded
}
_REPLICA: dict[str, Kind] = {
    "gone": "flag",
    "killed": "flag",  # ended by SIGKILL
    "out_of_memory": "flag",
    "crashes": "number",  # in a row, this one not counted
    "hung": "flag",  # the platform says so
    "unanswered_seconds": "number",
    "siblings_silent_share": "share",
    "leaking": "flag",
    "rss_slope_bytes_per_second": "number",
    "fails_tests_alone": "flag",  # it fails a model test that a replica of its revision passes
    "failed_tests_since": "flag",  # it fails one, and has passed them all before
    "memory_share": "share",  # of the limit of its variant that it holds
    "put_out": "flag",  # by the node that it was on
    "node_lost": "flag",  # the cluster does not hear of its node
    "image_missing": "flag",  # the cluster cannot get its image
    "full_in_seconds": "number",  # until a leaking one reaches that limit
}
FEATURES: Mapping[str, Kind] = {**_SERVICE, **_REVISION, **_REPLICA}
ABOUT: Mapping[str, About] = {
    **dict.fromkeys(_SERVICE, "service"),
    **dict.fromkeys(_REVISION, "revision"),
    **dict.fromkeys(_REPLICA, "replica"),
}
