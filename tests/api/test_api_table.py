"""Every route by every role, and the document against what is served."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from leptonai.api.app import ROUTES
from leptonai.api.openapi import PARAMETER
from leptonai.api.route import PREFIX, Route

if TYPE_CHECKING:
    from api_stage import Stage

ROLES = ("viewer", "operator", "admin")
PATHS = {"name": "digits", "number": "1", "id": "1"}


def path_of(route: Route) -> str:
    return PARAMETER.sub(lambda m: PATHS[m.group(1)], route.path)


def ask(stage: Stage, route: Route, role: Any) -> httpx.Response:
    with stage.http(role) as http:
        return http.request(route.method, path_of(route), content=b"{}")


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_a_route_is_open_to_its_role_and_above_and_to_nobody_else(shared: Stage, route: Route) -> None:
    """Below its role: 403 role; without a token: 401; from its role upwards never either, whatever else is wrong."""
    stage = shared
    assert (ask(stage, route, None).status_code == 401) == (route.role is not None)
    for role in ROLES:
        answer = ask(stage, route, role)
        refused = answer.status_code == 403 and answer.json()["code"] == "role"
        assert refused == (route.role is not None and ROLES.index(role) < ROLES.index(route.role)), answer.text
        assert answer.status_code < 500 or answer.json()["code"] == "telemetry", answer.text


def test_the_document_tells_every_route_and_no_other(shared: Stage) -> None:
    with shared.http(None) as http:
        document = http.get("/openapi.json").json()
    told = {(method.upper(), path) for path, by in document["paths"].items() for method in by}
    assert told == {(r.method, PREFIX + PARAMETER.sub(r"{\1}", r.path)) for r in ROUTES}
    assert document["openapi"].startswith("3.1")


def test_every_reference_in_the_document_leads_somewhere(shared: Stage) -> None:
    with shared.http(None) as http:
        text = http.get("/openapi.json").text
    document = json.loads(text)
    names = {part.split('"')[0] for part in text.split('"$ref":"#/components/schemas/')[1:]}
    assert names
    assert names <= set(document["components"]["schemas"])
    operations = [o["operationId"] for by in document["paths"].values() for o in by.values()]
    assert len(operations) == len(set(operations))


def test_answers_have_the_fields_the_document_promises(shared: Stage) -> None:
    """For each GET without an error: every required field of the promised schema is there, and no undeclared one."""
    with shared.http("admin") as http:
        document = http.get("/openapi.json").json()
        checked = 0
        for route in ROUTES:
            answer = http.request(route.method, path_of(route)) if route.method == "GET" else None
            if answer is None or answer.status_code != 200 or route.answer is None:
                continue
            promised = document["paths"][PREFIX + PARAMETER.sub(r"{\1}", route.path)]["get"]["responses"]["200"]
            matches(answer.json(), promised["content"]["application/json"]["schema"], document)
            checked += 1
    assert checked >= 12


def matches(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    if "$ref" in schema:
        return matches(value, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if schema.get("type") == "array" and "items" in schema and isinstance(schema["items"], dict):
        for item in value:
            matches(item, schema["items"], document)
    elif schema.get("type") == "object" and "properties" in schema:
        assert set(schema.get("required", ())) <= set(value)
        assert set(value) <= set(schema["properties"])
        for name, inner in schema["properties"].items():
            if name in value:
                matches(value[name], inner, document)
    return None
