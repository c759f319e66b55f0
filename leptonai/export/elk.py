"""Elasticsearch and Kibana: the mapping of what ``logs.elasticsearch`` sends, a pipeline, its keeping, views."""

from __future__ import annotations

import json
from typing import Any

from leptonai.export.site import Files
from leptonai.settings import Elasticsearch, Logs

Json = dict[str, Any]

NAME = "leptonai-logs"
VIEW, ERRORS, TEMPLATES, BOARD = (f"leptonai-logs-{x}" for x in ("view", "errors", "templates", "board"))
# Of the Elastic Common Schema, as ``ops.logs.outputs.elastic.document`` writes it.
KEYWORDS = (
    "ecs.version", "event.dataset", "service.name", "service.node.name", "log.level", "log.file.path", "host.name",
    "trace.id", "span.id", "labels.template_id", "labels.workspace", "event.module",
)  # fmt: skip


def files(logs: Logs) -> Files:
    """To be sent in this order: see the head of ``install.sh``, which does it with curl."""
    index = logs.elasticsearch.index or Elasticsearch().index
    made = {
        "ilm-policy.json": policy(logs),
        "ingest-pipeline.json": pipeline(),
        "index-template.json": template(index),
    }
    texts = {name: json.dumps(value, indent=2) + "\n" for name, value in made.items()}
    return texts | {"kibana.ndjson": kibana(index), "install.sh": _INSTALL}


def policy(logs: Logs) -> Json:
    """As our own store keeps lines: ``logs.retain``, in pieces that can be dropped."""
    days = max(1, round(logs.retain / 86400))
    rollover = {"max_age": "1d", "max_primary_shard_size": "20gb"}
    return {
        "policy": {
            "phases": {
                "hot": {"actions": {"rollover": rollover}},
                "delete": {"min_age": f"{days}d", "actions": {"delete": {}}},
            }
        }
    }


def pipeline() -> Json:
    """What is left to the receiver: when a line arrived, one spelling of levels, no trace of zeros."""
    return {
        "description": "Lines of leptonai, in the Elastic Common Schema.",
        "processors": [
            {"set": {"field": "event.ingested", "value": "{{{_ingest.timestamp}}}"}},
            {"set": {"field": "event.module", "value": "leptonai"}},
            {"lowercase": {"field": "log.level", "ignore_missing": True}},
            {
                "remove": {
                    "field": "trace.id",
                    "if": "ctx.trace?.id != null && ctx.trace.id ==~ /^0+$/",
                    "ignore_missing": True,
                }
            },
        ],
        "on_failure": [{"set": {"field": "error.message", "value": "{{{_ingest.on_failure_message}}}"}}],
    }


def template(index: str) -> Json:
    """Of the data stream ``index``. Fields that nobody declared are kept and not indexed: no explosion of mappings."""
    properties: Json = {"@timestamp": {"type": "date"}, "message": {"type": "match_only_text"}}
    for field in KEYWORDS:
        _nest(properties, field, {"type": "keyword", "ignore_above": 1024})
    _nest(properties, "event.sequence", {"type": "long"})
    _nest(properties, "event.ingested", {"type": "date"})
    _nest(properties, "error.message", {"type": "match_only_text"})
    settings = {"index": {"lifecycle": {"name": NAME}, "default_pipeline": NAME, "codec": "best_compression"}}
    return {
        "index_patterns": [index, f"{index}-*"],
        "data_stream": {},
        "priority": 200,
        "template": {"settings": settings, "mappings": {"dynamic": False, "properties": properties}},
        "_meta": {"description": "Lines of leptonai, in the Elastic Common Schema.", "managed_by": "leptonai"},
    }


def _nest(properties: Json, field: str, kind: Json) -> None:
    *above, last = field.split(".")
    for name in above:
        properties = properties.setdefault(name, {}).setdefault("properties", {})
    properties[last] = kind


def kibana(index: str) -> str:
    """Saved objects of Kibana 8: a data view, the errors, how often each template, and a dashboard of both."""
    search = {"query": {"language": "kuery", "query": "log.level : (error or fatal)"}, "filter": []}
    columns = ["service.name", "service.node.name", "log.level", "message"]
    found = [
        _object("index-pattern", VIEW, {"title": f"{index}*", "name": "leptonai logs", "timeFieldName": "@timestamp"}),
        _object(
            "search",
            ERRORS,
            {
                "title": "leptonai: errors",
                "columns": columns,
                "sort": [["@timestamp", "desc"]],
                "kibanaSavedObjectMeta": _meta(search | {"indexRefName": "view"}),
            },
            view="view",
        ),
        _object(
            "visualization",
            TEMPLATES,
            {
                "title": "leptonai: lines by template",
                "visState": json.dumps(_histogram(), sort_keys=True),
                "uiStateJSON": "{}",
                "version": 1,
                "kibanaSavedObjectMeta": _meta({"query": {"language": "kuery", "query": ""}, "indexRefName": "view"}),
            },
            view="view",
        ),
    ]
    grid = [("visualization", TEMPLATES, 0), ("search", ERRORS, 15)]
    panels = [
        {
            "version": "8.0.0",
            "type": kind,
            "gridData": {"x": 0, "y": y, "w": 48, "h": 15, "i": str(n)},
            "panelIndex": str(n),
            "embeddableConfig": {},
            "panelRefName": f"panel_{n}",
        }
        for n, (kind, _, y) in enumerate(grid)
    ]
    board = _object(
        "dashboard",
        BOARD,
        {
            "title": "leptonai: logs",
            "panelsJSON": json.dumps(panels, sort_keys=True),
            "optionsJSON": "{}",
            "version": 1,
            "timeRestore": False,
            "kibanaSavedObjectMeta": _meta({"query": {"language": "kuery", "query": ""}, "filter": []}),
        },
    )
    board["references"] = [{"name": f"panel_{n}", "type": kind, "id": id} for n, (kind, id, _) in enumerate(grid)]
    return "".join(json.dumps(x, sort_keys=True) + "\n" for x in [*found, board])


def _object(kind: str, id: str, attributes: Json, view: str = "") -> Json:
    references = [{"name": view, "type": "index-pattern", "id": VIEW}] if view else []
    return {"type": kind, "id": id, "attributes": attributes, "references": references}


def _meta(source: Json) -> Json:
    return {"searchSourceJSON": json.dumps(source, sort_keys=True)}


def _histogram() -> Json:
    by = {"field": "labels.template_id", "size": 10, "order": "desc", "orderBy": "1", "otherBucket": True}
    return {
        "title": "leptonai: lines by template",
        "type": "histogram",
        "params": {"type": "histogram", "addLegend": True, "legendPosition": "right"},
        "aggs": [
            {"id": "1", "enabled": True, "type": "count", "schema": "metric", "params": {}},
            {
                "id": "2",
                "enabled": True,
                "type": "date_histogram",
                "schema": "segment",
                "params": {"field": "@timestamp", "interval": "auto", "min_doc_count": 1},
            },
            {"id": "3", "enabled": True, "type": "terms", "schema": "group", "params": by},
        ],
    }


_INSTALL = f"""\
#!/bin/sh
# ELASTICSEARCH=http://127.0.0.1:9200 KIBANA=http://127.0.0.1:5601 sh install.sh
# AUTH="Authorization: ApiKey ..." is sent along when it is set. Doing it again changes nothing.
set -eu
cd "$(dirname "$0")"
put() {{
    curl -fsS -X PUT "$ELASTICSEARCH/$1" -H 'Content-Type: application/json' -H "${{AUTH:-X-None: 1}}" -d "@$2"
    echo
}}
put _ilm/policy/{NAME} ilm-policy.json
put _ingest/pipeline/{NAME} ingest-pipeline.json
put _index_template/{NAME} index-template.json
if [ -n "${{KIBANA:-}}" ]; then
    curl -fsS -X POST "$KIBANA/api/saved_objects/_import?overwrite=true" -H 'kbn-xsrf: leptonai' \\
        -H "${{AUTH:-X-None: 1}}" -F file=@kibana.ndjson
    echo
fi
"""
