"""A configuration of the OpenTelemetry Collector: replicas scraped, signals taken in, all sent to the platform."""

from __future__ import annotations

from typing import Any

from leptonai.export.prometheus import configuration
from leptonai.export.site import Files, Site
from leptonai.ops.alert.rules import duration
from leptonai.plan.render import to_yaml
from leptonai.types import Service

Json = dict[str, Any]

TOKEN = "${env:LEPTONAI_TOKEN}"  # noqa: S105 - the name of a variable
_PROTECTION = {"check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 25}


def files(services: list[Service], site: Site) -> Files:
    """``collector.yaml``, for the distribution `contrib`: the core has no Prometheus receiver."""
    return {"collector.yaml": to_yaml([collector(services, site)]).removeprefix("---\n")}


def collector(services: list[Service], site: Site) -> Json:
    """Metrics, logs and traces by OTLP, and the pods' pages of metrics, go to ``site.platform``.

    What waits is bounded and lost oldest first when the platform is away: a collector must not end by memory.
    """
    scrapes = [s for s in configuration(services, site)["scrape_configs"] if s["job_name"] == "leptonai-replicas"]
    for scrape in scrapes:  # the collector reads $ as its own: $$ is one
        for rule in scrape["relabel_configs"]:
            if "regex" in rule:
                rule["regex"] = rule["regex"].replace("$", "$$")
    return {
        "extensions": {
            "health_check": {"endpoint": "0.0.0.0:13133"},
            "bearertokenauth": {"token": TOKEN},
        },
        "receivers": {
            "otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}, "http": {"endpoint": "0.0.0.0:4318"}}},
            "prometheus": {"config": {"scrape_configs": scrapes}},
        },
        "processors": {
            "memory_limiter": _PROTECTION,
            "k8sattributes": {
                "extract": {"metadata": ["k8s.namespace.name", "k8s.pod.name", "k8s.node.name", "k8s.deployment.name"]}
            },
            "batch": {"timeout": "1s", "send_batch_size": 2048},
        },
        "exporters": {
            "otlphttp": {
                "endpoint": f"{site.platform}/api/v1/otlp",
                "auth": {"authenticator": "bearertokenauth"},
                "compression": "gzip",
                "timeout": duration(max(5.0, site.scrape)),
                "retry_on_failure": {"enabled": True, "initial_interval": "1s", "max_elapsed_time": "5m"},
                "sending_queue": {"enabled": True, "queue_size": 1000},
            }
        },
        "service": {
            "extensions": ["health_check", "bearertokenauth"],
            "pipelines": {
                "metrics": _pipeline(["otlp", "prometheus"]),
                "logs": _pipeline(["otlp"]),
                "traces": _pipeline(["otlp"]),
            },
        },
    }


def _pipeline(receivers: list[str]) -> Json:
    return {
        "receivers": receivers,
        "processors": ["memory_limiter", "k8sattributes", "batch"],
        "exporters": ["otlphttp"],
    }
