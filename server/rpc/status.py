"""How a `ServiceError` looks on the wire of each family."""

from __future__ import annotations

import asyncio
import math
from typing import Any
from urllib.parse import quote

from google.protobuf.message import DecodeError

from server.errors import Code, ServiceError

# RTCstack's own words for its problems (contract F).
_PROBLEMS = {
    400: ("validation", "Validation Error"),
    401: ("unauthorized", "Unauthorized"),
    404: ("not-found", "Not Found"),
    500: ("internal", "Internal Server Error"),
    503: ("unavailable", "Service Unavailable"),
}
_LONGEST_MESSAGE = 2000
_LONGEST_META = 1000
_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def to_service_error(fault: BaseException, request_id: str) -> ServiceError:
    """What the caller is told. Whatever is not meant for it becomes `internal` with nothing but the request id."""
    if isinstance(fault, ServiceError):
        return fault
    if isinstance(fault, asyncio.CancelledError):
        return ServiceError(Code.CANCELLED, "the call was cancelled")
    return ServiceError(Code.INTERNAL, "internal error", meta={"requestId": request_id})


def rest_error(error: ServiceError) -> dict[str, Any]:
    """`{"success": false, "error": {code, message, details?}}` (B-31)."""
    body: dict[str, Any] = {"code": error.rest_code, "message": shown_message(error)}
    if details := shown_meta(error):
        body["details"] = details
    return {"success": False, "error": body}


def problem(error: ServiceError, status: int) -> dict[str, Any]:
    """An RFC 9457 problem document, as the RTCstack routes answer (B-31)."""
    name, title = _PROBLEMS.get(status, ("", _TITLES.get(status, "Error")))
    return {
        "type": f"https://rtcstack.dev/errors/{name}" if name else "about:blank",
        "title": title,
        "status": status,
        "detail": shown_message(error),
        **({"code": error.reason} if error.reason else {}),
    }


def twirp_error(error: ServiceError) -> dict[str, Any]:
    """`{"code", "msg", "meta"?}` of the Twirp specification, version 7."""
    body: dict[str, Any] = {"code": error.code.value, "msg": shown_message(error)}
    if meta := shown_meta(error):
        body["meta"] = meta
    return body


def trailing_metadata(error: ServiceError) -> tuple[tuple[str, str], ...]:
    """`meta` as gRPC trailers: `bax-reason`, `bax-field` and so on, percent-encoded where not plain ASCII."""
    pairs = [
        (f"bax-{_trailer_name(name)}", quote(value, safe=_SAFE)) for name, value in shown_meta(error).items()
    ]
    if error.retry_after_sec is not None:
        pairs.append(("retry-after", str(error.retry_after_sec)))
    return tuple(pairs)


def retry_after(error: ServiceError) -> dict[str, str]:
    """The HTTP header, where the error says when to come back."""
    return {} if error.retry_after_sec is None else {"retry-after": str(math.ceil(error.retry_after_sec))}


def shown_message(error: ServiceError) -> str:
    """Messages may quote input, so their length is bounded."""
    return _cut(error.message, _LONGEST_MESSAGE)


def shown_meta(error: ServiceError) -> dict[str, str]:
    return {name: _cut(value, _LONGEST_META) for name, value in error.meta.items()}


def malformed(message: str) -> ServiceError:
    """The body is not in the encoding it claims."""
    return ServiceError(Code.MALFORMED, message)


def undecodable(fault: DecodeError) -> ServiceError:
    """The message is not protobuf of this type. The parser's own text names nothing a caller could use."""
    del fault
    return malformed("the protobuf request could not be decoded")


# Printable ASCII but for the percent sign, which the encoding itself uses.
_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def _trailer_name(name: str) -> str:
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "-_.") else "-" for char in name
    ).lower()


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
