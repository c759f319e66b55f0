"""Alertmanager, the OpenTelemetry Collector, Elasticsearch and Kibana, Istio: held to what these take."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from render_stage import by_kind, ground, service

from leptonai.cli.main import run
from leptonai.export import Site, alertmanager, elk, istio, otel
from leptonai.ops.logs.outputs.elastic import document
from leptonai.plan.render import Apis
from leptonai.settings import AlertRoute, Alerts, Inhibit, Logs, Receiver, Settings, dump
from leptonai.types import LogEntry, Retry

ALERTS = Alerts(
    receivers=(
        Receiver(name="ana", urls=("mailtos://ops:s%20ecret@mail.example.com?to=ana@example.com",)),
        Receiver(name="chat", urls=("slack://T1/B2/C3/#ops", "json://10.0.0.5:8080/page"), resolved=False),
        Receiver(name="odd", urls=("tgram://token/chat",)),
    ),
    owners={"digits": "ana", "plant/*": "chat", "*": "chat", "plant/press": "ana"},
    route=AlertRoute(
        receiver="owner",
        routes=(AlertRoute(matchers=('severity="warning"',), receiver="chat", group_wait=60.0, proceed=True),),
    ),
    inhibit=(Inhibit(source=('alertname="HostDown"',), target=('alertname="Incident"',), equal=("host",)),),
)


def amtool(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["amtool", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool: tests/setup.sh")
def test_an_alertmanager_routes_as_we_do(tmp_path: Path) -> None:
    told = alertmanager.files(ALERTS, Site(), feed=True)
    (tmp_path / "alertmanager.yml").write_text(told.files["alertmanager.yml"])
    assert "SUCCESS" in amtool(tmp_path, "check-config", "alertmanager.yml")
    assert told.lost == ["receiver odd: an Alertmanager has no channel tgram"]

    def who(**labels: str) -> list[str]:
        pairs = [f"{k}={v}" for k, v in labels.items()]
        said = amtool(tmp_path, "config", "routes", "test", "--config.file=alertmanager.yml", *pairs)
        return said.strip().split(",")

    ours = {"alertname": "SloErrorsBurn", "severity": "critical"}
    assert who(**ours, workspace="default", service="digits") == ["ana"]
    assert who(**ours, workspace="plant", service="press") == ["ana"]  # a service goes before its workspace
    assert who(**ours, workspace="plant", service="lathe") == ["chat"]
    assert who(**ours, workspace="other", service="x") == ["chat"]
    warning = ours | {"severity": "warning"}
    assert who(**warning, workspace="default", service="digits") == ["chat", "ana"]
    foreign = {"alertname": "DiskFull", "severity": "critical", "workspace": "default", "service": "digits"}
    assert who(**foreign) == ["leptonai", "ana"]


@pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool: tests/setup.sh")
def test_settings_that_tell_nobody_are_a_configuration_too(tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text(alertmanager.files(Alerts(), Site()).files["alertmanager.yml"])
    assert "SUCCESS" in amtool(tmp_path, "check-config", "alertmanager.yml")


def test_a_collector_has_what_its_pipelines_name() -> None:
    made = yaml.safe_load(otel.files([service()], Site(namespace="shop"))["collector.yaml"])
    assert made.keys() == {"extensions", "receivers", "processors", "exporters", "service"}
    assert set(made["service"]["extensions"]) == made["extensions"].keys()
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in made["service"]["pipelines"].values():
        assert pipeline.keys() == used.keys()
        assert pipeline["processors"][0] == "memory_limiter" and pipeline["processors"][-1] == "batch"
        for part, names in used.items():
            names |= set(pipeline[part])
    for part, names in used.items():
        assert names == made[part].keys()
    assert made["exporters"]["otlphttp"]["auth"]["authenticator"] in made["extensions"]
    (scrape,) = made["receivers"]["prometheus"]["config"]["scrape_configs"]
    assert scrape["kubernetes_sd_configs"][0]["namespaces"]["names"] == ["shop"]


def leaves(value: Any, at: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {at}
    return {leaf for k, v in value.items() for leaf in leaves(v, f"{at}.{k}" if at else k)}


def mapped(properties: dict[str, Any], at: str = "") -> set[str]:
    found = set()
    for name, field in properties.items():
        place = f"{at}.{name}" if at else name
        found |= mapped(field["properties"], place) if "properties" in field else {place}
    return found


def test_every_field_of_a_line_is_mapped() -> None:
    entry = LogEntry(
        at=1e9, seq=1, service="digits", workspace="default", severity=17, body="it broke", template_id=3,
        source={"replica": "r1", "file": "/x", "host": "h"}, trace="a" * 32, span="b" * 16,
    )  # fmt: skip
    sent = leaves(document(entry))
    known = mapped(elk.template("logs")["template"]["mappings"]["properties"])
    assert sent <= known, sent - known
    for step in elk.pipeline()["processors"]:
        ((kind, how),) = step.items()
        assert how["field"] in known, f"{kind} of a field that is not mapped"


def test_kibana_finds_what_its_objects_refer_to() -> None:
    objects = [json.loads(line) for line in elk.kibana("logs-leptonai-default").splitlines()]
    known = {(o["type"], o["id"]) for o in objects}
    for made in objects:
        assert {(r["type"], r["id"]) for r in made["references"]} <= known
        names = {r["name"] for r in made["references"]}
        for key, text in made["attributes"].items():
            if key.endswith("JSON") or key == "visState":
                json.loads(text)
            if key == "panelsJSON":
                assert {p["panelRefName"] for p in json.loads(text)} == names
        meta = made["attributes"].get("kibanaSavedObjectMeta")
        source = json.loads(meta["searchSourceJSON"]) if meta else {}
        assert "indexRefName" not in source or source["indexRefName"] in names
    fields = mapped(elk.template("x")["template"]["mappings"]["properties"])
    (search,) = [o for o in objects if o["type"] == "search"]
    assert set(search["attributes"]["columns"]) <= fields


class Taking(http.server.BaseHTTPRequestHandler):
    got: list[tuple[str, str, bytes, str]]

    def log_message(self, *args: object) -> None:
        pass

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).got.append((self.command, self.path, body, self.headers.get("authorization", "")))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_PUT = do_POST = _take


def test_the_script_sends_each_file_where_it_belongs(tmp_path: Path) -> None:
    for name, text in elk.files(Logs(retain=7 * 86400.0)).items():
        (tmp_path / name).write_text(text)
    kind = type("Once", (Taking,), {"got": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        done = subprocess.run(
            ["sh", str(tmp_path / "install.sh")],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "ELASTICSEARCH": url, "KIBANA": url, "AUTH": "Authorization: ApiKey x"},
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert [(m, p) for m, p, _, _ in kind.got] == [
        ("PUT", "/_ilm/policy/leptonai-logs"),
        ("PUT", "/_ingest/pipeline/leptonai-logs"),
        ("PUT", "/_index_template/leptonai-logs"),
        ("POST", "/api/saved_objects/_import?overwrite=true"),
    ]
    assert json.loads(kind.got[0][2])["policy"]["phases"]["delete"]["min_age"] == "7d"
    assert {auth for *_, auth in kind.got} == {"ApiKey x"}


def test_a_mesh_lets_in_who_may_call_and_repeats_once() -> None:
    wish = service(retry=Retry(attempts=4))
    made = istio.files(wish, ground(callers=("web",)))
    mesh = list(yaml.safe_load_all(made.files["mesh.yaml"]))
    (policy,) = by_kind(mesh, "AuthorizationPolicy")
    assert policy["spec"]["rules"][0]["from"][0]["source"]["namespaces"] == ["default", "web"]
    (peer,) = by_kind(mesh, "PeerAuthentication")
    assert peer["spec"]["mtls"] == {"mode": "STRICT"}
    objects = list(yaml.safe_load_all(made.files["service.yaml"]))
    (deployment,) = by_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for made_object in mesh:
        assert made_object["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (route,) = by_kind(objects, "VirtualService")
    assert route["spec"]["http"][0]["retries"]["attempts"] == 4
    behind = istio.files(wish, ground(), retried=True).files["service.yaml"]
    (route,) = by_kind(list(yaml.safe_load_all(behind)), "VirtualService")
    assert route["spec"]["http"][0]["retries"] == {"attempts": 0}
    assert {o["apiVersion"].rpartition("/")[2] for o in mesh} == {"v1beta1", "v1alpha1"}
    newest = ground()._replace(apis=Apis.served("1.30", ["networking.istio.io/v1"]))
    assert {o["apiVersion"].rpartition("/")[2] for o in istio.mesh(wish, newest)} == {"v1"}


def test_the_command_writes_and_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_bytes(msgspec.yaml.encode(dump(Settings(alerts=ALERTS))))
    assert run(["export", "grafana", "-o", str(tmp_path / "grafana")]) == 0
    assert (tmp_path / "grafana/dashboards/leptonai/service.json").is_file()
    assert run(["export", "alertmanager", "--settings", str(settings)]) == 0
    said = capsys.readouterr()
    assert "route:" in said.out and "note: not told: receiver odd" in said.err
    assert run(["export", "elk"]) == 2
    assert "say where to write them with -o DIR" in capsys.readouterr().err
    assert run(["export", "alertmanager", "--platform", "nowhere", "--settings", str(settings)]) == 2
    assert "no URL of a platform" in capsys.readouterr().err
    assert run(["export", "elk", "--settings", str(tmp_path / "none.yaml")]) == 2
    assert "no settings" in capsys.readouterr().err
