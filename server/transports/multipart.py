"""multipart/form-data as a client stream: the file part's bytes as they come, the other parts as the options.

Nothing is spooled: messages are made when the handler asks for the next one, so a slow handler slows the client down and
at most two chunks are in memory.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from server.errors import Code, ServiceError, invalid
from server.rpc.descriptors import field_named, is_message, message_type
from server.rpc.json_codec import REST_JSON, loads
from server.rpc.registry import Method
from server.rpc.status import malformed
from server.rpc.validation import validate
from server.transports.exchange import Exchange, too_large
from server.transports.rest_routes import Route, set_text

# Small enough that its copies stay in the processor’s cache, large enough that few thread switches are needed.
CHUNK_BYTES = 256 * 1024
_MOST_PARTS = 100
_LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class FormRoute:
    """What `google.api.http` cannot say: a method that takes a form with one file part."""

    verb: str
    template: str
    method: str
    file_part: str


FORM_ROUTES = (
    FormRoute("POST", "/video/upload", "baxcloud.v1.VideoConversionService/UploadVideo", file_part="video"),
)


def form_route(declared: FormRoute, method: Method) -> Route:
    return Route(declared.verb, declared.template, method, (), "*", form_file=declared.file_part)


def options_and_chunk(request: Descriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """The two fields that a message of an upload stream has: options and bytes."""
    options = next(one for one in request.fields if is_message(one))
    chunk = next(one for one in request.fields if one.type == FieldDescriptor.TYPE_BYTES)
    return options, chunk


def check_form(exchange: Exchange, file_part: str) -> bytes:
    """The boundary of the form. Refuses another content type, and a body that cannot fit, before anything is read."""
    kind, options = parse_options_header(exchange.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise ServiceError(
            Code.INVALID_ARGUMENT, "the request must be multipart/form-data", reason="UNSUPPORTED_MEDIA_TYPE"
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise malformed("the multipart boundary is missing or too long")
    limits = exchange.limits
    announced = exchange.headers.get("content-length", "")
    most = limits.upload_bytes + limits.json_bytes + _MOST_PARTS * 512
    if announced.isascii() and announced.isdigit() and int(announced) > most:
        raise _file_too_large(file_part, limits.upload_bytes)
    return boundary


class FormStream:
    """The messages of one form."""

    def __init__(self, exchange: Exchange, method: Method, file_part: str, boundary: bytes) -> None:
        self._exchange = exchange
        self._request_type = method.request_type
        self._options_field, self._chunk_field = options_and_chunk(method.descriptor.input_type)
        self._file_part = file_part
        self._parser = _PartParser(boundary)
        self._texts: dict[str, list[str]] = {}
        self._text_bytes = 0
        self._parts = 0
        self._filename: str | None = None
        self._file_bytes = 0

    async def messages(self) -> AsyncIterator[Message]:
        """The file's bytes in chunks of at least `CHUNK_BYTES` but for the last, then the options."""
        pending: list[bytes] = []
        size = 0
        async for data in self._exchange.stream():
            for part, piece in self._parser.feed(data):
                if part.name == self._file_part:
                    self._take_file(part, piece)
                    if piece:
                        pending.append(piece)
                        size += len(piece)
                else:
                    self._take_text(part, piece)
            if size >= CHUNK_BYTES:
                yield self._chunk(pending)
                pending, size = [], 0
        self._parser.check_complete()
        if self._filename is None:
            raise invalid(self._file_part, "is required")
        if pending:
            yield self._chunk(pending)
        yield self._options()

    def _take_file(self, part: _Part, piece: bytes | None) -> None:
        if not part.begun:
            part.begun = True
            if self._filename is not None:
                raise invalid(self._file_part, "must be given once")
            self._filename = part.filename
            self._count_part()
            # What is wrong with the fields before the file is told without waiting for the file.
            validate(self._options(), unwrap=True)
        self._file_bytes += len(piece or b"")
        if self._file_bytes > self._exchange.limits.upload_bytes:
            raise _file_too_large(self._file_part, self._exchange.limits.upload_bytes)

    def _take_text(self, part: _Part, piece: bytes | None) -> None:
        if not part.begun:
            part.begun = True
            self._count_part()
        if piece is not None:
            self._text_bytes += len(piece)
            if self._text_bytes > self._exchange.limits.json_bytes:
                raise too_large(self._exchange.limits.json_bytes)
            part.data += piece
            return
        field_ = _field_named(message_type(self._options_field), part.name)
        if field_ is None:
            return
        try:
            text = part.data.decode("utf-8")
        except UnicodeDecodeError:
            raise invalid(field_.json_name, "must be UTF-8 text") from None
        self._texts.setdefault(field_.name, []).append(text)

    def _count_part(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise malformed(f"the form has more than {_MOST_PARTS} parts")

    def _chunk(self, pieces: list[bytes]) -> Message:
        return self._request_type(**{self._chunk_field.name: b"".join(pieces)})

    def _options(self) -> Message:
        request = self._request_type()
        options = getattr(request, self._options_field.name)
        options.SetInParent()
        descriptor = message_type(self._options_field)
        for name, texts in self._texts.items():
            fill_from_form(options, descriptor.fields_by_name[name], texts)
        if self._filename:
            named = field_named(descriptor, "filename")
            if named is not None:
                setattr(options, named.name, self._filename)
        return request


def fill_from_form(message: Message, field_: FieldDescriptor, texts: list[str]) -> None:
    """Form values are text: JSON for lists, objects and any-JSON; the value itself for the rest (contract B-94)."""
    if field_.is_repeated and len(texts) > 1:
        set_text(message, field_, texts)
    elif field_.is_repeated or is_message(field_):
        if len(texts) > 1:
            raise invalid(field_.json_name, "must be given once")
        try:
            tree = loads(texts[0].encode("utf-8"))
        except ServiceError:
            raise invalid(field_.json_name, "must be JSON text") from None
        REST_JSON.decode_field(message, field_, tree)
    else:
        set_text(message, field_, texts)


def _field_named(options: Descriptor, name: str) -> FieldDescriptor | None:
    return next((one for one in options.fields if name in (one.json_name, one.name)), None)


@dataclass(slots=True)
class _Part:
    """A part being read; `data` holds the value of a text part."""

    name: str = ""
    filename: str = ""
    begun: bool = False
    data: bytearray = field(default_factory=bytearray)


class _PartParser:
    """Turns pushed bytes into (part, piece) pairs; a piece of None ends its part."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[tuple[_Part, bytes | None]] = []
        self._part = _Part()
        self._header_name = b""
        self._header_value = b""
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_data,
                "on_part_end": self._on_end,
                "on_end": self._on_complete,
            },
        )

    def feed(self, data: bytes) -> list[tuple[_Part, bytes | None]]:
        self._events = []
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise malformed("the form could not be decoded") from None
        return self._events

    def check_complete(self) -> None:
        if not self._complete:
            raise malformed("the form ends before its last boundary")

    def _on_begin(self) -> None:
        self._part = _Part()

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
            self._part.filename = _base_name(options.get(b"filename", b"").decode("utf-8", "replace"))
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        self._events.append((self._part, b""))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append((self._part, data[start:end]))

    def _on_end(self) -> None:
        self._events.append((self._part, None))

    def _on_complete(self) -> None:
        self._complete = True


def _base_name(filename: str) -> str:
    """Browsers of old sent whole paths; line breaks and other controls have no place in a name."""
    return _LINE_BREAKS.sub("", re.split(r"[/\\]", filename)[-1])


def _file_too_large(file_part: str, limit: int) -> ServiceError:
    """As the service says it where gRPC brings the file (contract B-60)."""
    return ServiceError(
        Code.RESOURCE_EXHAUSTED,
        f"{file_part}: must not be larger than {limit} bytes",
        reason="FILE_TOO_LARGE",
        field=file_part,
    )
