"""Paths of `google.api.http` templates: which method a request means, and what its path and query say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from server.errors import Code, ServiceError, invalid
from server.rpc.descriptors import descriptor_of, field_named, is_message, message_type
from server.rpc.json_codec import REST_JSON
from server.rpc.json_scalars import FieldFault, number_from_text
from server.rpc.registry import Binding, Method, RegistryError
from server.rpc.status import malformed

_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=\*)?\}")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
_PLAIN_TEXT = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BYTES)
_MOST_PARAMETERS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One verb on one path: the method it calls and the fields that its path variables fill, in order.

    `form_file` names the file part of a multipart route, which protos cannot express; empty for all others.
    """

    verb: str
    template: str
    method: Method
    variables: tuple[str, ...]
    body: str
    form_file: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    route: Route
    values: tuple[str, ...]


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    variable: _Node | None = None
    routes: dict[str, Route] = field(default_factory=dict)


class RouteTable:
    """All routes. Literal segments win over variables, whatever the order in which they are declared."""

    def __init__(self, methods: Iterable[Method]) -> None:
        self._root = _Node()
        self.routes: list[Route] = []
        for method in methods:
            for binding in method.bindings:
                self.add(route_of(method, binding))

    def add(self, route: Route) -> None:
        """Raise RegistryError if the verb and path are taken."""
        node = self._root
        for segment in _segments_of(route.template):
            if _VARIABLE.fullmatch(segment):
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.literals.setdefault(segment, _Node())
        if route.verb in node.routes:
            taken = node.routes[route.verb].method.full_name
            raise RegistryError(f"{route.verb} {route.template} is both {taken} and {route.method.full_name}")
        node.routes[route.verb] = route
        self.routes.append(route)

    def find(self, verb: str, raw_path: bytes) -> Match | tuple[str, ...] | None:
        """The route, or the verbs that the path does have, or None. Raises malformed for undecodable segments."""
        segments = raw_path.split(b"/")[1:]
        found = _walk(self._root, segments, 0)
        if found is None:
            return None
        node, values = found
        route = node.routes.get(verb)
        if route is None and verb == "HEAD":
            route = node.routes.get("GET")
        if route is None:
            return tuple(sorted(node.routes))
        return Match(route, tuple(_decoded(value) for value in values))


def _walk(node: _Node, segments: list[bytes], index: int) -> tuple[_Node, list[bytes]] | None:
    if index == len(segments):
        return (node, []) if node.routes else None
    segment = segments[index]
    literal = node.literals.get(segment.decode("latin-1"))
    if literal is not None and (found := _walk(literal, segments, index + 1)) is not None:
        return found
    if node.variable is not None and segment:
        found = _walk(node.variable, segments, index + 1)
        if found is not None:
            return found[0], [segment, *found[1]]
    return None


def _decoded(segment: bytes) -> str:
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("the path is not percent-encoded UTF-8") from None


def _segments_of(template: str) -> list[str]:
    return template.split("/")[1:]


def route_of(method: Method, binding: Binding) -> Route:
    """Check a binding against the request's fields; raises RegistryError for what is not supported."""
    where = f"{method.full_name}: {binding.template}"
    variables = []
    for segment in _segments_of(binding.template):
        match = _VARIABLE.fullmatch(segment)
        if match is not None:
            variables.append(match[1])
            resolve(method.descriptor.input_type, match[1])
        elif not segment or set(segment) & set("{}*:"):
            raise RegistryError(f"{where}: path segment {segment!r} is not supported")
    if binding.body not in ("", "*"):
        resolve(method.descriptor.input_type, binding.body)
    if method.client_streaming:
        raise RegistryError(f"{where}: a stream of requests cannot be a JSON body")
    return Route(binding.verb, binding.template, method, tuple(variables), binding.body)


def resolve(descriptor: Descriptor, path: str) -> FieldDescriptor:
    """The field at `a.b`; raises RegistryError."""
    first, _, rest = path.partition(".")
    found = field_named(descriptor, first)
    if found is None or (rest and not is_message(found)):
        raise RegistryError(f"{path} is no field of the request")
    return resolve(message_type(found), rest) if rest else found


def fill_path(request: Message, match: Match) -> None:
    """Path variables win over whatever the body said."""
    for path, text in zip(match.route.variables, match.values, strict=True):
        *outer, name = path.split(".")
        message = request
        for step in outer:
            message = getattr(message, step)
        set_text(message, descriptor_of(message).fields_by_name[name], [text])


def fill_query(request: Message, query: bytes, *, skip: Iterable[str] = ()) -> None:
    """Query parameters in either spelling into scalar fields; what no field is called is ignored."""
    if not query:
        return
    given: dict[str, list[str]] = {}
    pairs = query.split(b"&")
    if len(pairs) > _MOST_PARAMETERS:
        raise malformed(f"the query has more than {_MOST_PARAMETERS} parameters")
    for pair in pairs:
        raw_name, _, raw_value = pair.replace(b"+", b" ").partition(b"=")
        name = unquote_to_bytes(raw_name).decode("utf-8", "replace")
        given.setdefault(name, []).append(_query_text(name, raw_value, request))
    known = _parameters(descriptor_of(request))
    for name, texts in given.items():
        field_ = known.get(name)
        if field_ is not None and field_.name not in skip:
            set_text(request, field_, texts)


def _query_text(name: str, raw: bytes, request: Message) -> str:
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        if name in _parameters(descriptor_of(request)):
            raise invalid(name, "must be percent-encoded UTF-8") from None
        return ""


_PARAMETERS: dict[str, Mapping[str, FieldDescriptor]] = {}


def _parameters(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    found = _PARAMETERS.get(descriptor.full_name)
    if found is None:
        scalars = [one for one in descriptor.fields if not is_message(one)]
        found = {name: one for one in scalars for name in (one.name, one.json_name)}
        _PARAMETERS[descriptor.full_name] = found
    return found


def set_text(message: Message, field_: FieldDescriptor, texts: list[str]) -> None:
    """Set a scalar field from text as it stands in a path, a query or a form; raises invalid_argument."""
    if not field_.is_repeated and len(texts) > 1:
        raise invalid(field_.json_name, "must be given once")
    try:
        values = [_from_text(field_, text) for text in texts]
    except FieldFault as fault:
        raise invalid(field_.json_name, fault.text) from None
    REST_JSON.decode_field(message, field_, values if field_.is_repeated else values[0])


def _from_text(field_: FieldDescriptor, text: str) -> Any:
    """The JSON value that the text stands for; the decoder checks its range."""
    if field_.type in _PLAIN_TEXT:
        return text
    if field_.type == FieldDescriptor.TYPE_BOOL:
        return {"true": True, "false": False}.get(text, text)
    if field_.type in _FLOATS:
        return number_from_text(text)
    return int(text) if _INTEGER.fullmatch(text) else text


def no_route() -> ServiceError:
    return ServiceError(Code.NOT_FOUND, "there is no such route")
