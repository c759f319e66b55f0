"""Scrapes, rules and dashboards, asked of a real Prometheus that holds what a replica and the platform really say."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from render_stage import service
from waiting import free_port

from leptonai.errors import SpecError
from leptonai.export import Site, grafana, prometheus
from leptonai.ops import page
from leptonai.ops.alert.page import families
from leptonai.runtime.metrics import GAUGES, Metrics, Run
from leptonai.settings import Alerts
from leptonai.types import Alert, Slo

NEEDED = "Debian's prometheus is not installed: tests/setup.sh"
pytestmark = [pytest.mark.world, pytest.mark.skipif(shutil.which("prometheus") is None, reason=NEEDED)]
KEY = "default/digits"
PLATFORM = (
    page.Family("leptonai_build_info", "gauge", "", [({"version": "0"}, 1.0)]),
    page.Family("leptonai_replicas", "gauge", "", [({"service": "digits", "state": "ready"}, 2.0)]),
    page.Family("leptonai_ops_alive", "gauge", "", [({}, 1.0)]),
)


class Pages(http.server.BaseHTTPRequestHandler):
    """The page of a replica that answers more at each look, and the platform's."""

    metrics = Metrics()
    looks = 0

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        kind = type(self)
        kind.looks += 1
        if self.path == "/metrics":
            for code in ("400", "429", "500", "504"):
                kind.metrics.requests.add(code)
            for error in list(kind.metrics.errors.values):
                kind.metrics.errors.add(error)
            for _ in range(20):
                kind.metrics.ran.append(Run(4, 0.02, good=True))
                kind.metrics.saw((200, 0.03, 0.001, 0.002, 0.02, 4, 0.001, 0.001))
            body = kind.metrics.text(dict.fromkeys(GAUGES, 1.0), kind.looks)
        else:
            counted = {"digits": (100.0 * kind.looks, {"errors": 5.0 * kind.looks, "latency": 0.0})}
            alerts = [Alert(labels={"severity": "critical"}, state="firing", since=0.0, last=0.0)]
            told = [*page.process("control"), *PLATFORM, *families(counted, alerts)]
            body = page.text(told).encode()
        self.send_response(200)
        self.send_header("content-type", page.TYPE)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes both pages, with our rules for both sources; ready once it has seen them some times."""
    folder = tmp_path_factory.mktemp("prometheus")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    wish = service(slo=Slo(period=86400.0))
    for source in ("platform", "replicas"):
        text = prometheus.text([wish], Site(scrape=1.0, source=source), Alerts())
        (folder / f"{source}.yml").write_text(text.replace("name: leptonai", f"name: {source}"))
    labels = {"workspace": "default", "service": "digits", "lane": "main", "digest": "0", "replica": "digits-1"}
    target = f"127.0.0.1:{server.server_port}"
    config = {
        "global": {"scrape_interval": "300ms", "evaluation_interval": "1s"},
        "rule_files": ["platform.yml", "replicas.yml"],
        "scrape_configs": [
            {"job_name": "leptonai-replicas", "static_configs": [{"targets": [target], "labels": labels}]},
            {"job_name": "leptonai", "metrics_path": "/api/v1/metrics", "honor_labels": True}
            | {"static_configs": [{"targets": [target]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            deadline = time.monotonic() + 90
            while True:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                try:
                    count = query(client, "min(count_over_time(up[1m]))")
                    if count and float(count[0]["value"][1]) >= 8:
                        break
                except (httpx.HTTPError, KeyError, ValueError):
                    pass
                time.sleep(0.1)
            yield client
    finally:
        process.kill()
        process.wait()
        server.shutdown()
        thread.join()
        server.server_close()


def query(client: httpx.Client, text: str) -> list[Any]:
    answer = client.get("/api/v1/query", params={"query": text}).json()
    assert answer["status"] == "success", f"{text}: {answer}"
    found: list[Any] = answer["data"]["result"]
    return found


def expressions() -> list[tuple[str, str]]:
    boards = (grafana.platform(), grafana.service())
    return [(f"{p['title']} {t['refId']}", t["expr"]) for b in boards for p in b["panels"] for t in p["targets"]]


@pytest.mark.parametrize(("panel", "text"), expressions(), ids=[n for n, _ in expressions()])
def test_every_query_of_the_dashboards_finds_something(panel: str, text: str, asked: httpx.Client) -> None:
    for name, value in (("$workspace", "default"), ("$service", "digits"), ("$__rate_interval", "1m")):
        text = text.replace(name, value)
    assert "$" not in text
    found = query(asked, text)
    assert found, f"nothing for {panel}: {text}"
    assert all(float(series["value"][1]) >= 0 for series in found)


def test_the_variables_of_the_dashboards_name_what_there_is(asked: httpx.Client) -> None:
    variables = [v for v in grafana.service()["templating"]["list"] if v["type"] == "query"]
    assert [v["name"] for v in variables] == ["workspace", "service"]
    for variable, expected in zip(variables, ("default", "digits"), strict=True):
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
        assert match
        series = match[1].replace("$workspace", "default")
        found = asked.get(f"/api/v1/label/{match[2]}/values", params={"match[]": series}).json()
        assert found["data"] == [expected]


def test_the_rules_load_and_their_parts_see_the_requests(asked: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while True:
        groups = asked.get("/api/v1/rules").json()["data"]["groups"]
        rules = [r for g in groups for r in g["rules"]]
        if all(r["health"] != "unknown" for r in rules) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert len(rules) == 2 * 5 and {r["health"] for r in rules} == {"ok"}, rules
    for source in ("platform", "replicas"):
        absent = [r for r in rules if r["name"] == "SloDataAbsent"]
        assert {r["state"] for r in absent} == {"inactive"}, source
    promise = prometheus._promise(service())
    for part in (promise.total, *promise.bad.values()):
        assert query(asked, part("1m"))
    assert float(query(asked, promise.bad["errors"]("1m"))[0]["value"][1]) > 0


def test_the_objects_of_the_operator_are_what_it_takes() -> None:
    monitor, rule = prometheus.objects([service(workspace="plant")], Site(namespace="shop"), Alerts())
    assert (monitor["kind"], rule["kind"]) == ("ServiceMonitor", "PrometheusRule")
    jsonschema.validate(monitor["spec"], MONITOR)
    jsonschema.validate(rule["spec"], RULE)
    chosen = monitor["spec"]["selector"]
    assert chosen["matchLabels"] == {"leptonai.dev/workspace": "plant", "leptonai.dev/service": "digits"}
    assert 'workspace="plant"' in rule["spec"]["groups"][0]["rules"][0]["expr"]


def test_promtool_takes_configuration_and_rules(tmp_path: Path) -> None:
    for source in ("platform", "replicas"):
        site = Site(platform="https://factory.example", source=source)
        for name, text in prometheus.files([service(), service(name="other")], site, Alerts()).items():
            (tmp_path / name).write_text(text)
        config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
        config["scrape_configs"][0]["authorization"]["credentials_file"] = str(tmp_path / "token")
        found = config["scrape_configs"][1].pop("kubernetes_sd_configs")  # Debian's build knows no discovery
        assert found == [{"role": "pod", "namespaces": {"names": ["default"]}}]
        config["scrape_configs"][1]["static_configs"] = [{"targets": ["10.0.0.1:8080"]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        (tmp_path / "token").write_text("secret")
        done = subprocess.run(
            ["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0 and "10 rules found" in done.stdout, done.stdout + done.stderr


def test_a_promise_finer_than_the_buckets_is_refused() -> None:
    wish = service(slo=Slo(latency=0.0001))
    with pytest.raises(SpecError, match="replicas count from"):
        prometheus.text([wish], Site(source="replicas"), Alerts())


def test_dashboards_stand_in_their_places() -> None:
    for text in (v for n, v in grafana.files(Site()).items() if n.endswith(".json")):
        board = json.loads(text)
        taken = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert not cells & taken and at["x"] + at["w"] <= 24
            taken |= cells
        assert len({p["id"] for p in board["panels"]}) == len(board["panels"])


# The parts of the operator's custom resources that we write (monitoring.coreos.com/v1, its API reference): no other.
DURATION = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def many(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


MONITOR = closed(
    ["endpoints", "selector"],
    endpoints=many(
        closed(
            ["port"],
            port={"type": "string"},
            path={"type": "string"},
            interval=DURATION,
            relabelings=many(
                closed(
                    ["targetLabel"],
                    sourceLabels=many({"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}),
                    targetLabel={"type": "string"},
                )
            ),
        )
    ),
    namespaceSelector=closed(["matchNames"], matchNames=many({"type": "string"})),
    selector=closed(
        [],
        matchLabels=TEXTS,
        matchExpressions=many(closed(["key", "operator"], key={"type": "string"}, operator={"const": "Exists"})),
    ),
)
RULE = closed(
    ["groups"],
    groups=many(
        closed(
            ["name", "rules"],
            name={"type": "string", "minLength": 1},
            interval=DURATION,
            rules=many(
                closed(
                    ["alert", "expr"],
                    alert={"type": "string"},
                    expr={"type": "string"},
                    **{"for": DURATION, "keep_firing_for": DURATION},
                    labels=TEXTS,
                    annotations=TEXTS,
                )
            ),
        )
    ),
)
