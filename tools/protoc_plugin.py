"""What the project's own protoc plugins share: reading the request, naming types, writing the answer."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

# Field numbers of descriptor.proto that make up the paths of SourceCodeInfo.
_FILE_SERVICE = 6
_SERVICE_METHOD = 2


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: `request` and `response` are expressions such as `egress_pb2.Egress`."""

    name: str
    snake: str
    request: str
    response: str
    client_streaming: bool
    server_streaming: bool
    doc: str

    @property
    def unary(self) -> bool:
        return not (self.client_streaming or self.server_streaming)


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    full_name: str
    methods: tuple[Method, ...]
    doc: str


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """A proto file that defines services; `imports` are the lines its messages need."""

    source: str
    imports: tuple[str, ...]
    services: tuple[Service, ...]

    def output_name(self, suffix: str) -> str:
        """`baxcloud/v1/egress.proto` → `baxcloud/v1/egress<suffix>`."""
        return self.source.removesuffix(".proto") + suffix


def snake_case(name: str) -> str:
    """`ListConversionJobs` → `list_conversion_jobs`; a Python keyword gets a trailing underscore."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return f"{words.lower()}_" if keyword.iskeyword(words.lower()) else words.lower()


def docstring(text: str, indent: str) -> Iterator[str]:
    """The lines of a docstring that says `text`; nothing for an empty text."""
    lines = text.replace("\\", "\\\\").replace('"""', "'''").splitlines()
    if not lines:
        return
    if len(lines) == 1:
        yield f'{indent}"""{lines[0]}"""'
        return
    yield f'{indent}"""{lines[0]}'
    yield from (f"{indent}{line}" if line else "" for line in lines[1:])
    yield f'{indent}"""'


def run(render: Callable[[ServiceFile], str], suffix: str) -> None:
    """Serve one protoc plugin call: every requested file with services becomes one output file."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    types = dict(_message_types(request.proto_file))
    wanted = set(request.file_to_generate)
    for file in request.proto_file:
        if file.name in wanted and file.service:
            described = _service_file(file, types)
            response.file.add(name=described.output_name(suffix), content=render(described))
    sys.stdout.buffer.write(response.SerializeToString())


def _message_types(files: Iterable[FileDescriptorProto]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Pairs of `.package.Outer.Inner` and (proto file, `Outer.Inner`)."""

    def walk(messages: Iterable[DescriptorProto], scope: str) -> Iterator[str]:
        for message in messages:
            yield f"{scope}{message.name}"
            yield from walk(message.nested_type, f"{scope}{message.name}.")

    for file in files:
        package = f".{file.package}." if file.package else "."
        for name in walk(file.message_type, ""):
            yield package + name, (file.name, name)


def _service_file(file: FileDescriptorProto, types: dict[str, tuple[str, str]]) -> ServiceFile:
    comments = {
        tuple(location.path): _comment(location.leading_comments)
        for location in file.source_code_info.location
    }
    used: set[str] = set()

    def expression(type_name: str) -> str:
        source, name = types[type_name]
        used.add(source)
        return f"{source.rpartition('/')[2].removesuffix('.proto')}_pb2.{name}"

    services = tuple(
        Service(
            name=service.name,
            full_name=f"{file.package}.{service.name}",
            doc=comments.get((_FILE_SERVICE, i), ""),
            methods=tuple(
                Method(
                    name=method.name,
                    snake=snake_case(method.name),
                    request=expression(method.input_type),
                    response=expression(method.output_type),
                    client_streaming=method.client_streaming,
                    server_streaming=method.server_streaming,
                    doc=comments.get((_FILE_SERVICE, i, _SERVICE_METHOD, j), ""),
                )
                for j, method in enumerate(service.method)
            ),
        )
        for i, service in enumerate(file.service)
    )
    imports = tuple(sorted(_import_line(source) for source in used))
    return ServiceFile(source=file.name, imports=imports, services=services)


def _import_line(source: str) -> str:
    folder, _, name = source.removesuffix(".proto").rpartition("/")
    return f"from {folder.replace('/', '.')} import {name}_pb2"


def _comment(text: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in text.strip("\n").splitlines())
