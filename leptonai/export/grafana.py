"""Dashboards for Grafana, as provisioning files: of the platform and its services, of the replicas of a service."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from leptonai.export.site import Files, Site
from leptonai.ops.alert.page import BAD, REQUESTS

Json = dict[str, Any]

SCHEMA = 39  # of dashboards, Grafana 10.4; newer ones migrate it
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_S = '{workspace="$workspace",service="$service"}'
_BY = '{workspace="$workspace",service="$service",%s}'


class Panel(NamedTuple):
    title: str
    unit: str  # as Grafana names units
    queries: tuple[tuple[str, str], ...]  # (legend, PromQL)
    about: str = ""
    kind: str = "timeseries"
    width: int = 12  # of 24


def quantiles(name: str, by: str = "") -> tuple[tuple[str, str], ...]:
    of = f"sum by (le{by}) (rate({name}_bucket{_S}[$__rate_interval]))"
    return tuple((f"p{q}", f"histogram_quantile({q / 100:g}, {of})") for q in (50, 90, 99))


def ratio(above: str, below: str) -> str:
    """Nothing where nothing happened: 0 / 0 is no 0."""
    return f"{above} / ({below} > 0)"


REPLICAS = (
    Panel(
        "Requests",
        "reqps",
        (("{{code}}", f"sum by (code) (rate(leptonai_requests_total{_S}[$__rate_interval]))"),),
        "Answered by the replicas, by HTTP status.",
    ),
    Panel(
        "Failed requests",
        "percentunit",
        (
            (
                "5xx",
                ratio(
                    "sum(rate(leptonai_requests_total" + _BY % 'code=~"5.."' + "[$__rate_interval]))",
                    f"sum(rate(leptonai_requests_total{_S}[$__rate_interval]))",
                ),
            ),
            (
                "shed (429)",
                ratio(
                    "sum(rate(leptonai_requests_total" + _BY % 'code="429"' + "[$__rate_interval]))",
                    f"sum(rate(leptonai_requests_total{_S}[$__rate_interval]))",
                ),
            ),
        ),
        "Share of all requests.",
    ),
    Panel("Latency", "s", quantiles("leptonai_request_seconds"), "From the request read to its answer, in a replica."),
    Panel(
        "Where the time goes",
        "s",
        tuple(
            (
                what,
                ratio(
                    f"sum(rate(leptonai_{name}_seconds_sum{_S}[$__rate_interval]))",
                    f"sum(rate(leptonai_{name}_seconds_count{_S}[$__rate_interval]))",
                ),
            )
            for what, name in (("queue", "queue"), ("filling a batch", "batch_wait"), ("model", "compute"))
        ),
        "Means.",
    ),
    Panel(
        "Errors by kind", "ops", (("{{kind}}", f"sum by (kind) (rate(leptonai_errors_total{_S}[$__rate_interval]))"),)
    ),
    Panel("Samples in a batch", "none", quantiles("leptonai_batch_size")),
    Panel("In flight", "none", (("{{replica}}", f"leptonai_in_flight{_S}"),)),
    Panel("Waiting samples", "none", (("{{replica}}", f"leptonai_queued{_S}"),)),
    Panel(
        "Heartbeat",
        "s",
        (("{{replica}}", f"leptonai_heartbeat_age_seconds{_S}"),),
        "Since the compute thread gave a sign of life: what hangs is seen here first.",
    ),
    Panel("Memory", "bytes", (("{{replica}}", f"process_resident_memory_bytes{_S}"),), "What leaks rises steadily."),
    Panel("Processor", "none", (("{{replica}}", f"rate(process_cpu_seconds_total{_S}[$__rate_interval])"),), "Cores."),
    Panel(
        "Age",
        "s",
        (("{{replica}}", f"time() - process_start_time_seconds{_S}"),),
        "Since the process started: a fall is a restart.",
    ),
    Panel(
        "Lines of the prediction log lost",
        "ops",
        (("{{replica}}", f"rate(leptonai_prediction_log_dropped_total{_S}[$__rate_interval])"),),
    ),
)

PLATFORM = (
    Panel("Replicas", "none", (("{{service}} {{state}}", "leptonai_replicas"),), width=12),
    Panel("Ops alive", "none", (("ops", "leptonai_ops_alive"),), "0: nobody watches.", "stat", 6),
    Panel("Version", "none", (("{{version}}", "leptonai_build_info"),), "", "stat", 6),
    Panel(
        "Promised requests",
        "reqps",
        (("{{workspace}}/{{service}}", f"sum by (workspace, service) (rate({REQUESTS}[$__rate_interval]))"),),
        "Requests that a promise counts.",
    ),
    Panel(
        "Broken promises",
        "percentunit",
        (
            (
                "{{workspace}}/{{service}} {{slo}}",
                f"sum by (workspace, service, slo) (rate({BAD}[$__rate_interval]))"
                " / ignoring(slo) group_left ()"
                f" (sum by (workspace, service) (rate({REQUESTS}[$__rate_interval])) > 0)",
            ),
        ),
        "Share of requests that broke the promise, by rule.",
    ),
    Panel("Alerts", "none", (("{{severity}} {{state}}", "leptonai_alerts"),)),
    Panel(
        "Memory of the platform",
        "bytes",
        (("{{process}}", "leptonai_process_resident_memory_bytes"),),
    ),
    Panel(
        "Processor of the platform",
        "none",
        (("{{process}}", "rate(leptonai_process_cpu_seconds_total[$__rate_interval])"),),
        "Cores.",
    ),
)


def files(site: Site) -> Files:
    """Both dashboards and what makes Grafana read them and the Prometheus, below its ``/etc/grafana/provisioning``."""
    return {
        "dashboards/leptonai.yaml": _PROVIDER,
        "datasources/leptonai.yaml": _DATASOURCE,
        "dashboards/leptonai/platform.json": _text(platform()),
        "dashboards/leptonai/service.json": _text(service()),
    }


def platform() -> Json:
    return dashboard("leptonai-platform", "leptonai: platform", PLATFORM, ())


def service() -> Json:
    known = "leptonai_in_flight"
    return dashboard(
        "leptonai-service",
        "leptonai: service",
        REPLICAS,
        (
            ("workspace", f"label_values({known}, workspace)"),
            ("service", f'label_values({known}{{workspace="$workspace"}}, service)'),
        ),
    )


def dashboard(uid: str, title: str, panels: tuple[Panel, ...], variables: tuple[tuple[str, str], ...]) -> Json:
    datasource = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    chosen = [_variable(name, query) for name, query in variables]
    return {
        "uid": uid,
        "title": title,
        "tags": ["leptonai"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [datasource, *chosen]},
        "links": [{"type": "dashboards", "title": "leptonai", "tags": ["leptonai"], "asDropdown": True}],
        "panels": _placed(panels),
    }


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,  # when the time range changes
        "sort": 1,
    }


def _placed(panels: tuple[Panel, ...]) -> list[Json]:
    """Two or four to a row, 8 units high, left to right."""
    made: list[Json] = []
    x = y = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > 24:
            x, y = 0, y + 8
        made.append(_panel(panel, number) | {"gridPos": {"h": 8, "w": panel.width, "x": x, "y": y}})
        x += panel.width
    return made


def _panel(panel: Panel, number: int) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}}
        if panel.kind == "timeseries"
        else {"textMode": "value_and_name"},
        "targets": [
            {"refId": chr(65 + n), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for n, (legend, query) in enumerate(panel.queries)
        ],
    }


def _text(value: Json) -> str:
    return json.dumps(value, indent=2) + "\n"


_PROVIDER = """\
apiVersion: 1
providers:
  - name: leptonai
    folder: leptonai
    type: file
    allowUiUpdates: false
    options:
      path: /etc/grafana/provisioning/dashboards/leptonai
"""
_DATASOURCE = """\
apiVersion: 1
datasources:
  - name: Prometheus
    type: prometheus
    access: proxy
    url: ${PROMETHEUS_URL}
    isDefault: true
"""
