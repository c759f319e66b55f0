"""Generated rules in a real promtool: valid, one fires, and they decide as we do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from leptonai.errors import SpecError
from leptonai.ops.alert.page import BAD, REQUESTS
from leptonai.ops.alert.rules import duration, rules
from leptonai.ops.slo import Burn
from leptonai.series.proportion import bound, chance
from leptonai.settings import Alerts
from leptonai.types import Dials, Service, Slo, Spec, Variant

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
SCRAPE = 60.0  # seconds; also the step of our own burn here


def service(name: str = "digits", **slo: float) -> Service:
    spec = Spec(name=name, variants=(Variant(model=f"sha256:{'0' * 64}"),), slo=Slo(**slo))
    return Service(spec=spec, dials=Dials(variants={}), revision=1)


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_rules_of_every_kind_of_promise_are_valid(tmp_path: Path) -> None:
    services = [
        service(),
        service("week", period=7 * 86400.0),
        service("odd", period=86_400.7, availability=0.99),
        service("low", availability=0.9),
    ]
    (tmp_path / "rules.yml").write_text(rules(services, Alerts()))
    said = promtool("check", "rules", "rules.yml", folder=tmp_path)
    assert "SUCCESS: 20 rules found" in said
    with pytest.raises(SpecError, match="too short"):
        rules([service(period=600.0)], Alerts())


def test_durations_are_exact_and_in_the_largest_unit() -> None:
    spelled = {3600.0: "1h", 300.0: "5m", 86400.0: "1d", 90.0: "90s", 0.5: "500ms", 0.0: "0s", 20.16: "20160ms"}
    assert {seconds: duration(seconds) for seconds in spelled} == spelled


def histories() -> dict[str, list[tuple[int, int]]]:
    """Per minute, (requests, bad ones): 5 h of health, then trouble of different kinds; and little traffic."""
    rng = np.random.default_rng(5)
    calm = [(600, 0)] * 300
    out: dict[str, list[tuple[int, int]]] = {
        "outage": [*calm, *[(600, 600)] * 20],
        "tenth": [*calm, *[(600, 60)] * 60],
        "page-slow": [*calm, *[(600, 6)] * 300],
        "budget": [*calm, *[(600, int(rng.random() < 0.5)) for _ in range(300)]],
        "one-error": [(1, int(n == 250)) for n in range(400)],
        "few-all-bad": [(int(n % 10 == 0), int(n % 10 == 0 and n > 200)) for n in range(400)],
        "silence": [*calm, *[(0, 0)] * 100],
    }
    return out


@needs_promtool
def test_equal_histories_give_equal_decisions(tmp_path: Path) -> None:
    """Our burn, counting once a minute, and Prometheus, scraping once a minute, say the same of every history at every
    twentieth minute, but for those around a change: increase() extrapolates to a window's edges, we do not."""
    services, series, checks, compared, fired = [], [], [], 0, 0
    for name, history in histories().items():
        services.append(service(name, latency_objective=0.9))
        burn = Burn(Slo(), "errors", step=SCRAPE)
        said = [burn.step(n * SCRAPE, *counts).severity for n, counts in enumerate(history)]
        total, bad = (np.cumsum([c[k] for c in history]).tolist() for k in (0, 1))
        labels = f'workspace="default",service="{name}"'
        series.append({"series": f"{REQUESTS}{{{labels}}}", "values": " ".join(map(str, total))})
        series.append({"series": f'{BAD}{{{labels},slo="errors"}}', "values": " ".join(map(str, bad))})
        for n in range(60, len(history), 20):
            if len(set(said[max(0, n - 8) : n + 9])) > 1:
                continue
            labels_of = {"severity": said[n] or "", "workspace": "default", "service": name}
            compared, fired = compared + 1, fired + (said[n] is not None)
            pages = [{"exp_labels": labels_of}] if said[n] == "critical" else []
            checks.append((n, name, pages))
    wanted = msgspec.structs.replace(Alerts(), keep_firing=0.0)
    text = rules(services, wanted, SCRAPE).replace("interval: 1m\n", "interval: 20m\n")  # promtool takes a minute else
    (tmp_path / "rules.yml").write_text(text)
    by_minute: dict[int, dict[str, bool]] = {}
    for n, name, pages in checks:
        by_minute.setdefault(n, {})[name] = bool(pages)
    tests = [
        {
            "expr": f'count(ALERTS{{alertname="SloErrorsBurn",severity="critical",service="{name}"}}) or vector(0)',
            "eval_time": f"{n}m",
            "exp_samples": [{"labels": "{}", "value": float(pages)}],
        }
        for n, found in by_minute.items()
        for name, pages in found.items()
    ]
    document = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "20m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}],
    }
    (tmp_path / "test.yml").write_bytes(msgspec.yaml.encode(document))
    promtool("test", "rules", "test.yml", folder=tmp_path)
    assert compared > 70
    assert fired > 12


@needs_promtool
def test_a_rule_fires_with_its_labels_and_words(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules([service()], Alerts(), SCRAPE))
    labels = 'workspace="default",service="digits"'
    series = [
        {"series": f"{REQUESTS}{{{labels}}}", "values": "0+600x90"},
        {"series": f'{BAD}{{{labels},slo="errors"}}', "values": "0+0x60 0+300x30"},
    ]
    expected = {
        "exp_labels": {"severity": "critical", "workspace": "default", "service": "digits"},
        "exp_annotations": {
            "summary": "digits spends its error budget for errors too fast: more than 14.4 times over 1h or more than "
            "6 times over 6h; 15.83% of the requests were bad."
        },
    }
    ticket = {
        "exp_labels": {"severity": "warning", "workspace": "default", "service": "digits"},
        "exp_annotations": {
            "summary": "digits spends its error budget for errors too fast: more than 3 times over 1d or more than 1 "
            "times over 3d; 11.88% of the requests were bad."
        },
    }
    test = {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [
            {"eval_time": "80m", "alertname": "SloErrorsBurn", "exp_alerts": [expected, ticket]},
            {"eval_time": "55m", "alertname": "SloErrorsBurn", "exp_alerts": []},
            {"eval_time": "80m", "alertname": "SloDataAbsent", "exp_alerts": []},
        ],
    }
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_bytes(msgspec.yaml.encode(document))
    said = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_bound_is_never_below_the_exact_chance() -> None:
    """So a burn that it lets through is one that the exact test lets through, too."""
    for rate in (0.0144, 0.001, 0.3):
        for total in (1, 10, 100, 5000):
            hits = np.unique(np.linspace(0, total, 40).astype(int))
            assert np.all(bound(hits, total, rate) >= chance(hits, total, rate) * (1 - 1e-9))
    assert bound(7, 7, 0.1) == pytest.approx(chance(7, 7, 0.1))
