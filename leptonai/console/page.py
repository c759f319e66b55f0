"""What the pages show, as pure functions of the API's answers and the time."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlencode

import msgspec

from leptonai.types import Incident, parse_key

CHARTS = (
    ("request_rate_per_second", "requests / s", ""),
    ("latency_p99_seconds", "p99 latency", "s"),
    ("error_ratio", "errors", "%"),
)


def ago(then: float | None, now: float) -> str:
    """A time gone by in its two largest units: ``42 s``, ``3 min``, ``5 h``, ``2 d``; a dash for None."""
    if then is None:
        return "–"
    gone = max(0.0, now - then)
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if gone >= 2 * size:
            return f"{gone / size:.0f} {unit}"
    return f"{gone:.0f} s"


def clock(at: float | None) -> str:
    return "–" if at is None else time.strftime("%H:%M:%S", time.localtime(at))


def seconds(value: float | None) -> str:
    """A duration to read: ``85 ms``, ``2.4 s``; a dash for None or nan."""
    if value is None or value != value:
        return "–"
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"


def number(value: float | None) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2g}"


def service(answer: dict[str, Any], now: float) -> dict[str, Any]:
    """One service as a row: wish, replicas by state, whether it is as wished."""
    wish = answer.get("service", answer)
    spec = wish["spec"]
    workspace, name = spec["workspace"], spec["name"]
    dials = wish["dials"]["variants"]
    wanted = sum(d["replicas"] for d in dials.values())
    replicas = sorted(answer.get("replicas", ()), key=lambda r: (r["variant"], r["started"]))
    ready = sum(r["state"] == "ready" for r in replicas)
    return {
        "key": name if workspace == "default" else f"{workspace}/{name}",
        "name": name,
        "workspace": workspace,
        "revision": wish["revision"],
        "verified": answer.get("verified") == wish["revision"],
        "wanted": wanted,
        "ready": ready,
        "mood": "good" if ready >= wanted else "bad" if ready == 0 else "warn",
        "replicas": [{**r, "age": ago(r["since"], now)} for r in replicas],
        "url": answer.get("url", ""),
        "status": answer.get("status", ""),
        "charts": CHARTS,
    }


def incident(found: dict[str, Any], now: float) -> dict[str, Any]:
    """An incident with its spans: seconds to detect (from onset), to diagnose, to recover (from opening;
    closing comes later, when the repair is verified)."""
    end = found["mitigated"] or found["closed"]
    evidence = {e["id"]: e for e in found["evidence"]}
    causes = [{**c, "facts": [evidence[i] for i in c["evidence"] if i in evidence]} for c in found["causes"]]
    return {
        **found,
        "causes": causes,
        "analysis": msgspec.convert(found, Incident).analysis,
        "named": list(dict.fromkeys(c["name"] for c in causes)),
        "tried": list(dict.fromkeys(a["remedy"] for a in found["actions"] if not a["remedy"].startswith("none"))),
        "service": found["subject"].split("/", 2)[2],
        "state": "closed" if found["closed"] else "escalated" if found["escalated"] else "open",
        "detect": found["opened"] - found["began"],
        "diagnose": None if found["diagnosed"] is None else found["diagnosed"] - found["opened"],
        "recover": None if end is None else end - found["opened"],
        "age": ago(found["opened"], now),
    }


def classifier(found: dict[str, Any]) -> dict[str, Any]:
    """``rows``: its causes on unseen incidents, those told worst first, with what each was taken for; ``said``: the
    causes that were true or said, the columns of ``matrix``, which has a row for each true one."""
    held = found["held_out"] or {"causes": {}, "confusion": {}}
    confusion = held["confusion"]
    rows = []
    for cause, of in sorted(held["causes"].items(), key=lambda item: (item[1]["f1"], item[0])):
        wrong = sorted(((n, said) for said, n in confusion.get(cause, {}).items() if said != cause), reverse=True)
        rows.append({"cause": cause, **of, "taken": ", ".join(f"{said} {n}" for n, said in wrong)})
    said = sorted({name for row in confusion.values() for name in row} | confusion.keys())
    matrix = [(truth, [confusion[truth].get(name, 0) for name in said]) for truth in said if truth in confusion]
    return {"classifier": found, "rows": rows, "said": said, "matrix": matrix}


def issues(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that somebody has to see to first, then the newest."""
    rank = {"open": 0, "in_work": 1, "fixed": 2, "closed": 3}
    named = [{**i, "workspace": parse_key(i["service"])[0], "name": parse_key(i["service"])[1]} for i in found]
    return sorted(named, key=lambda i: (rank[i["state"]], -i["last"]))


MOODS = {"firing": "bad", "pending": "warn", "silenced": "", "inhibited": "", "resolved": "good"}
NAMING = ("alertname", "kind", "workspace", "service", "external", "host")  # labels by which a button silences


def alerts(
    found: list[dict[str, Any]], silences: list[dict[str, Any]], now: float, trouble: str = ""
) -> dict[str, Any]:
    """The page of alerts, in the order of the API. ``trouble``: why nothing is known of them."""
    return {"alerts": [_alert(a, now) for a in found], "silences": [_silence(s, now) for s in silences],
            "trouble": trouble}  # fmt: skip


def _alert(found: dict[str, Any], now: float) -> dict[str, Any]:
    labels, state = {"severity": "", "alertname": "", **found["labels"]}, found["state"]
    shown = state
    if found["muted"] and state != "resolved":
        shown = "silenced" if found["muted"].startswith("silence") else "inhibited"
    spelt = (f"{k}={json.dumps(labels[k], ensure_ascii=False)}" for k in NAMING if labels.get(k))
    return {
        **found,
        "labels": labels,
        "shown": shown,
        "mood": MOODS[shown],
        "subject": labels.get("service") or labels.get("external") or labels.get("host") or "",
        "age": ago(found["since"], now),
        "receivers": [(name, name in found["told"]) for name in found["receivers"]],
        "matchers": json.dumps(list(spelt)),
    }


def _silence(found: dict[str, Any], now: float) -> dict[str, Any]:
    spelt = [f"{m['label']}{m['op']}{json.dumps(m['value'], ensure_ascii=False)}" for m in found["matchers"]]
    return {**found, "matchers": spelt, "begun": found["starts"] <= now}


def signals(params: dict[str, str], names: list[str]) -> dict[str, Any]:
    """The page of one signal: ``query`` is what its script asks for, ``span`` seconds back from now."""
    name = params.get("name", "")
    labels = {k: v for k, v in params.items() if k not in ("name", "span") and v}
    try:
        span = min(3600, max(60, int(params.get("span", "900"))))
    except ValueError:
        span = 900
    query = urlencode({"name": name, **labels})
    return {"signal": name, "labels": labels, "span": span, "names": sorted(names), "query": query}


def signal_link(signal: str, labels: dict[str, str]) -> str:
    """Where a signal is looked at; what its anomaly adds to the name is left out."""
    return "/console/signals?" + urlencode({"name": signal.partition(":")[0], **labels})


def overview(
    services: list[dict[str, Any]], incidents: list[dict[str, Any]], platform: dict[str, Any], now: float
) -> dict[str, Any]:
    """The live page: services in key order, incidents newest first (the last 30), and what runs beside them."""
    rows = sorted((service(s, now) for s in services), key=lambda s: str(s["key"]))
    found = sorted((incident(i, now) for i in incidents), key=lambda i: -i["opened"])
    return {
        "services": rows,
        "incidents": found[:30],
        "open_count": sum(i["state"] != "closed" for i in found),
        "gateway": {"healthy": False, "url": "", **(platform.get("gateway") or {})},
        "ops": {"alive": False, **(platform.get("ops") or {})},
    }
