"""Which of its statistics Envoy keeps. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def stats() -> Json:
    """A short inclusion list: each statistic costs memory per cluster and time per scrape."""
    return {
        "use_all_default_tags": False,
        "stats_tags": [
            # The default expression ends a cluster's name at its first dot.
            {"tag_name": "envoy.cluster_name", "regex": r"^cluster\.(([^@]+@[a-z0-9-]+)\.)"},
            {"tag_name": "envoy.response_code_class"},
        ],
        "stats_matcher": {
            "inclusion_list": {
                "patterns": [
                    {"safe_regex": {"regex": regex}}
                    for regex in (
                        r"cluster\..*\.(membership_(healthy|total)|update_(success|rejected|failure)|version_text)",
                        r"cluster\..*\.upstream_rq_(total|active|time|timeout|\dxx|503|504|retry.*)",
                        r"cluster\..*\.upstream_(cx_connect_fail|cx_none_healthy|cx_active|rq_pending_overflow|cx_overflow)",
                        r"cluster\..*\.health_check\.(failure|healthy|success)",
                        r"cluster_manager\.(cds\.(update_.*|version_text)|warming_clusters|active_clusters)",
                        r"listener_manager\.(lds\.(update_.*|version_text)|total_listeners_.*)",
                        r"http\.gateway\.(downstream_rq_(total|\dxx|active|time)|downstream_cx_active|no_route)",
                        r"gateway\.http_local_rate_limit\.(ok|rate_limited)",
                        r"cluster\..*\.outlier_detection\.ejections_(active|enforced_total|overflow)",
                        r"http\.gateway\.rds\.gateway\.(update_.*|version_text)",
                        r"server\.(live|uptime|memory_allocated|version|state)",
                    )
                ]
            }
        },
    }
