"""The OpenAPI 3.1 description of the REST routes, made from descriptors and the protos' comments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from generated.baxcloud.v1 import options_pb2
from server.rpc.descriptors import enum_type, is_message, message_type
from server.rpc.registry import Method
from server.transports.multipart import options_and_chunk
from server.transports.openapi_schemas import Schemas, field_schema
from server.transports.rest_routes import Route, RouteTable, resolve

VERSION = "3.1.0"
_ERROR = {
    "type": "object",
    "required": ["success", "error"],
    "properties": {
        "success": {"const": False},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "A stable word, for example `INVALID_ARGUMENT`."},
                "message": {"type": "string", "description": "One sentence; the same on every transport."},
                "details": {
                    "type": "object",
                    "description": "More about it: `field` names the field at fault, `reason` refines the code.",
                    "additionalProperties": {"type": "string"},
                },
            },
        },
    },
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
    },
}
_SECURITY_SCHEMES = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of a project, `bax_…`."},
    "adminToken": {"type": "http", "scheme": "bearer", "description": "The operator's `BAX_ADMIN_TOKEN`."},
    "projectId": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Project-Id",
        "description": "The key's project.",
    },
    "rtcstackKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Api-Key",
        "description": "A LiveKit-style key of the project.",
    },
    "rtcstackTimestamp": {
        "type": "apiKey",
        "in": "header",
        "name": "X-RTCstack-Timestamp",
        "description": "Seconds since 1970, at most 300 off.",
    },
    "rtcstackSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-RTCstack-Signature",
        "description": "`sha256=` and the hex HMAC-SHA256 by the key's secret of method, path with query, timestamp and the "
        "hex SHA-256 of the body, with line feeds between them.",
    },
}
_SIGNED: dict[str, list[str]] = {"rtcstackKey": [], "rtcstackTimestamp": [], "rtcstackSignature": []}
_SECURITY: Mapping[int, list[dict[str, list[str]]]] = {
    options_pb2.ACCESS_PROJECT: [{"apiKey": []}],
    options_pb2.ACCESS_BAXSTREAM: [{"apiKey": [], "projectId": []}],
    options_pb2.ACCESS_ADMIN: [{"adminToken": []}],
    options_pb2.ACCESS_PROJECT_OR_ADMIN: [{"adminToken": []}, {"apiKey": []}],
    options_pb2.ACCESS_RTCSTACK: [{"apiKey": []}, _SIGNED],
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes a repetition of this call within 24 hours give the stored answer instead of a second result.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}


@cache
def descriptions() -> Mapping[str, str]:
    """Full proto name → comment."""
    text = files("generated.baxcloud.v1").joinpath("descriptions.json").read_text(encoding="utf-8")
    table: dict[str, str] = json.loads(text)
    return table


def describe(table: RouteTable, *, server_url: str = "/", version: str = "0.1.0") -> dict[str, Any]:
    """The whole document as plain data."""
    schemas = Schemas(descriptions())
    paths: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    for route in table.routes:
        number = seen[route.method.full_name] = seen.get(route.method.full_name, 0) + 1
        operation = _operation(route, number, schemas)
        paths.setdefault(_path(route), {})[route.verb.lower()] = operation
    services = dict.fromkeys(route.method.service for route in table.routes)
    return {
        "openapi": VERSION,
        "info": {
            "title": "BaxCloud",
            "version": version,
            "description": "Live and on-demand video. Every method here is also served over gRPC and Twirp.",
        },
        "servers": [{"url": server_url}],
        "tags": [{"name": _short(name), "description": descriptions().get(name, "")} for name in services],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR, "Problem": _PROBLEM, **schemas.build()},
            "securitySchemes": _SECURITY_SCHEMES,
            "responses": {
                "Error": _response(
                    "The call failed.", "application/json", {"$ref": "#/components/schemas/Error"}
                ),
                "Problem": _response(
                    "The call failed.", "application/problem+json", {"$ref": "#/components/schemas/Problem"}
                ),
            },
        },
    }


def _operation(route: Route, number: int, schemas: Schemas) -> dict[str, Any]:
    method = route.method
    text = descriptions().get(f"{method.service}.{method.name}", "")
    error = {"$ref": f"#/components/responses/{'Problem' if method.rule.rest_problem else 'Error'}"}
    operation: dict[str, Any] = {
        "operationId": f"{_short(method.service)}_{method.name}" + (f"_{number}" if number > 1 else ""),
        "tags": [_short(method.service)],
        "summary": text.split(". ")[0].removesuffix("."),
        "description": text,
        "x-rpc": method.full_name,
        "security": _SECURITY[method.rule.access],
        "responses": {**_success(method, schemas), "4XX": error, "5XX": error},
    }
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if body := _body(route, schemas):
        operation["requestBody"] = body
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    request = route.method.descriptor.input_type
    found = []
    for path in route.variables:
        field = resolve(request, path)
        found.append({"name": _variable(path), "in": "path", "required": True, **_described(field)})
    if route.body != "*":
        for field in request.fields:
            if is_message(field) or field.name in (*route.variables, route.body):
                continue
            found.append({"name": field.json_name, "in": "query", **_described(field)})
    return [*found, _IDEMPOTENCY] if route.method.rule.creates else found


def _described(field: FieldDescriptor) -> dict[str, Any]:
    schema = field_schema(field, None)
    if field.type == FieldDescriptor.TYPE_ENUM:
        schema = {"type": "string", "enum": shown_values(field)}
    return {"description": descriptions().get(field.full_name, ""), "schema": schema}


def shown_values(field: FieldDescriptor) -> list[str]:
    """The names an enum field takes."""
    return [value.name for value in enum_type(field).values if not value.name.endswith("_UNSPECIFIED")]


def _body(route: Route, schemas: Schemas) -> dict[str, Any] | None:
    request = route.method.descriptor.input_type
    if route.form_file:
        return {"required": True, "content": {"multipart/form-data": _form(route, request, schemas)}}
    if not route.body:
        return None
    if route.body != "*":
        schema = schemas.request(message_type(resolve(request, route.body)), ())
    else:
        schema = schemas.request(request, route.variables)
    return {"required": bool(schema.get("required")), "content": {"application/json": {"schema": schema}}}


def _form(route: Route, request: Descriptor, schemas: Schemas) -> dict[str, Any]:
    options, _ = options_and_chunk(request)
    schema = schemas.request(message_type(options), ())
    properties = {
        route.form_file: {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "description": "The file. Its name is taken from the part's `filename`.",
        },
        **{name: one for name, one in schema["properties"].items() if name != "filename"},
    }
    as_json = {
        field.json_name: {"contentType": "application/json"}
        for field in message_type(options).fields
        if field.is_repeated or is_message(field)
    }
    described = {"type": "object", "required": [route.form_file], "properties": properties}
    return {"schema": described, "encoding": as_json}


def _success(method: Method, schemas: Schemas) -> dict[str, Any]:
    reply = method.descriptor.output_type
    rule = method.rule
    if method.server_streaming:
        text = f"Events named `{rule.sse_event}`; the data of each is a {reply.name}."
        return {"200": _response(text, "text/event-stream", _event(rule.sse_event, schemas.reply(reply)))}
    if reply.full_name == "google.protobuf.Empty":
        return {"204": {"description": "Done."}}
    schema = schemas.reply(reply)
    if rule.rest_envelope:
        schema = {
            "type": "object",
            "required": ["success", "data"],
            "properties": {"success": {"const": True}, "data": schema},
        }
    status = rule.rest_status or (201 if rule.creates else 200)
    text = descriptions().get(reply.full_name, reply.name)
    answers = {str(status): _response(text, "application/json", schema)}
    if rule.rest_problem and status == 201:
        answers["200"] = _response("It was there already.", "application/json", schema)
    return answers


def _event(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """One event of a stream; an error in the middle of it is an event as well."""
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "enum": [name, "error"]},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
        },
    }


def _response(description: str, content_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {content_type: {"schema": schema}}}


def _path(route: Route) -> str:
    path = route.template
    for variable in route.variables:
        path = path.replace("{" + variable + "}", "{" + _variable(variable) + "}")
    return path


def _variable(path: str) -> str:
    first, *rest = path.rsplit(".", maxsplit=1)[-1].split("_")
    return first + "".join(word.capitalize() for word in rest)


def _short(service: str) -> str:
    return service.rpartition(".")[2]
