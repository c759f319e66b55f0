"""What Prometheus reads: scrapes, as its own file and as objects of its operator, and the rules of the promises."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.errors import SpecError
from leptonai.export.site import Files, Site
from leptonai.ops.alert.rules import Promise, duration, rules
from leptonai.plan.render import names, to_yaml
from leptonai.plan.render.objects import metadata
from leptonai.runtime.metrics import SECONDS
from leptonai.settings import Alerts
from leptonai.types import Service, parse_key

Json = dict[str, Any]

TOKEN = "/etc/prometheus/leptonai.token"  # noqa: S105 - where a file of a secret is mounted, not the secret
# Of the operator's secrets: `kubectl create secret generic leptonai-viewer --from-file=token`
SECRET = ("leptonai-viewer", "token")


def files(services: list[Service], site: Site, alerts: Alerts) -> Files:
    """For a Prometheus on its own: its configuration to merge, and the file of rules."""
    return {"prometheus.yml": _yaml(configuration(services, site)), "leptonai.rules.yml": text(services, site, alerts)}


def objects(services: list[Service], site: Site, alerts: Alerts) -> list[Json]:
    """For Prometheus' operator: a ServiceMonitor and a PrometheusRule for each service."""
    made = []
    for service in services:
        made += [monitor(service, site), rule(service, site, alerts)]
    return made


def operator(services: list[Service], site: Site, alerts: Alerts) -> Files:
    return {"leptonai.yaml": to_yaml(objects(services, site, alerts))}


def text(services: list[Service], site: Site, alerts: Alerts) -> str:
    return rules(services, alerts, site.scrape, _promises(services) if site.source == "replicas" else None)


def configuration(services: list[Service], site: Site) -> Json:
    """The platform's page, and the pods of ``services`` on a cluster, labelled as the dashboards ask for them."""
    platform = {
        "job_name": "leptonai",
        "scrape_interval": duration(site.scrape),
        "metrics_path": "/api/v1/metrics",
        "scheme": site.platform.partition("://")[0],
        "authorization": {"credentials_file": TOKEN},
        "static_configs": [{"targets": [site.address]}],
    }
    keys = "|".join(sorted("/".join(parse_key(s.key)) for s in services))
    own = names.OWN.replace(".", "_").replace("/", "_")
    label = f"__meta_kubernetes_pod_label_{own}_"
    pods = {
        "job_name": "leptonai-replicas",
        "scrape_interval": duration(site.scrape),
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [site.namespace]}}],
        "relabel_configs": [
            {
                "source_labels": [f"{label}workspace", f"{label}service"],
                "separator": "/",
                "regex": keys,
                "action": "keep",
            },
            {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "http", "action": "keep"},
            *(
                {"source_labels": [f"{label}{name}"], "target_label": name}
                for name in ("workspace", "service", "lane", "digest")
            ),
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "replica"},
        ],
    }
    return {"rule_files": ["leptonai.rules.yml"], "scrape_configs": [platform, pods]}


def monitor(service: Service, site: Site) -> Json:
    """The pods behind the lanes' Services; the one that clients call has no lane, so that no pod is read twice."""
    relabel = [
        {"sourceLabels": [f"__meta_kubernetes_pod_label_{_meta(name)}"], "targetLabel": name}
        for name in ("workspace", "service", "lane", "digest")
    ]
    relabel.append({"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "replica"})
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(names.account_name(service.key), site.namespace, service.key),
        "spec": {
            "selector": {
                "matchLabels": names.selector(service.key),
                "matchExpressions": [{"key": f"{names.OWN}/lane", "operator": "Exists"}],
            },
            "namespaceSelector": {"matchNames": [site.namespace]},
            "endpoints": [
                {"port": "http", "path": "/metrics", "interval": duration(site.scrape), "relabelings": relabel}
            ],
        },
    }


def rule(service: Service, site: Site, alerts: Alerts) -> Json:
    groups = msgspec.yaml.decode(text([service], site, alerts))["groups"]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata(names.account_name(service.key), site.namespace, service.key),
        "spec": {"groups": groups},
    }


def _promises(services: list[Service]) -> dict[str, Promise]:
    return {s.key: _promise(s) for s in services}


def _promise(service: Service) -> Promise:
    """The promise as the pages of the replicas count it, where no platform does.

    Every answer is a request and a 5xx a bad one, as on the platform; what never reached a replica is not seen here.
    Latency is counted in buckets: the promise's bound becomes the next one that is not above it.
    """
    workspace, name = parse_key(service.key)
    labels = f'workspace="{workspace}",service="{name}"'
    below = [bound for bound in SECONDS if bound <= service.spec.slo.latency]
    if not below:
        raise SpecError(
            f"slo.latency of {service.key} is {service.spec.slo.latency:g} s; replicas count from {SECONDS[0]:g} s up",
            hint="let the platform count: --source platform",
        )
    counted = f"leptonai_requests_total{{{labels}}}"
    failed = f'leptonai_requests_total{{{labels},code=~"5.."}}'
    within = f'leptonai_request_seconds_bucket{{{labels},le="{below[-1]:g}"}}'
    return Promise(
        total=lambda w: f"sum(increase({counted}[{w}]))",
        bad={
            "errors": lambda w: f"sum(increase({failed}[{w}]))",
            "latency": lambda w: (
                f"clamp_min(sum(increase(leptonai_request_seconds_count{{{labels}}}[{w}]))"
                f" - sum(increase({within}[{w}])), 0)"
            ),
        },
        present=f"leptonai_in_flight{{{labels}}}",
    )


def _meta(name: str) -> str:
    return f"{names.OWN}/{name}".replace(".", "_").replace("/", "_")


def _yaml(value: Json) -> str:
    return to_yaml([value]).removeprefix("---\n")
