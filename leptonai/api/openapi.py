"""The OpenAPI 3.1 document, made from the route table: what is not in the table is not served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from leptonai import __version__
from leptonai.api.route import PREFIX, Labels, Route
from leptonai.types import Noun

REF = "#/components/schemas/{name}"
PARAMETER = re.compile(r"{(\w+)(?::(\w+))?}")


class Error(Noun, frozen=True, kw_only=True):
    """The one shape of an error, a superset of the Open Inference Protocol's."""

    error: str
    code: str
    hint: str
    retry: bool
    retry_after: float | None = None
    detail: dict[str, Any] = {}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of ``routes``; each operation says the role it needs."""
    types: list[Any] = [Error]
    for route in routes:
        types += [route.answer] + ([route.body] if route.body is not None else [])
        if not issubclass(route.query, Labels):
            types += [f.type for f in msgspec.structs.fields(route.query)]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    schema = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = PREFIX + PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = operation(route, schema)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "leptonai control API",
            "version": __version__,
            "description": "Times are unix seconds, durations seconds, sizes bytes, shares 0 to 1.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def operation(route: Route, schema: dict[str, Any]) -> dict[str, Any]:
    error = {"description": "An error", "content": {"application/json": {"schema": schema[repr(Error)]}}}
    out: dict[str, Any] = {
        "operationId": route.run.__name__,
        "summary": route.summary,
        "parameters": parameters(route, schema),
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": schema[repr(route.answer)]}}},
            "default": error,
        },
        "security": [{"token": []}] if route.role else [],
    }
    if route.role:
        out["x-role"] = route.role
    if route.stream:
        out["requestBody"] = {"required": True, "content": {"application/x-tar": {}}}
    elif route.body is not None:
        out["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema[repr(route.body)]}}}
    return out


def parameters(route: Route, schema: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer" if kind == "int" else "string"},
        }
        for name, kind in PARAMETER.findall(route.path)
    ]
    if issubclass(route.query, Labels):
        labels = {"type": "object", "additionalProperties": {"type": "string"}}
        return [*found, {"name": "labels", "in": "query", "style": "form", "explode": True, "schema": labels}]
    for field in msgspec.structs.fields(route.query):
        found.append({"name": field.encode_name, "in": "query", "schema": schema[repr(field.type)]})
    return found
