"""The one error type of the backend and the one table that renders it on every transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Code(str, Enum):
    """RPC status codes; values are Twirp's spelling."""

    CANCELLED = "canceled"
    UNKNOWN = "unknown"
    INVALID_ARGUMENT = "invalid_argument"
    MALFORMED = "malformed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_FOUND = "not_found"
    BAD_ROUTE = "bad_route"
    ALREADY_EXISTS = "already_exists"
    PERMISSION_DENIED = "permission_denied"
    UNAUTHENTICATED = "unauthenticated"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    FAILED_PRECONDITION = "failed_precondition"
    ABORTED = "aborted"
    OUT_OF_RANGE = "out_of_range"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    DATALOSS = "dataloss"


@dataclass(frozen=True, slots=True)
class Rendering:
    """How one code looks outside: gRPC status number, Twirp HTTP status, REST HTTP status and `error.code`."""

    grpc: int
    twirp_http: int
    rest_http: int
    rest_code: str


# contract.md C.7; Twirp columns follow the Twirp v7 specification, which differs from REST on purpose
# (failed_precondition is 412 there and 409 on REST).
RENDERINGS: Mapping[Code, Rendering] = {
    Code.CANCELLED: Rendering(1, 408, 408, "CANCELLED"),
    Code.UNKNOWN: Rendering(2, 500, 500, "INTERNAL"),
    Code.INVALID_ARGUMENT: Rendering(3, 400, 400, "INVALID_ARGUMENT"),
    Code.MALFORMED: Rendering(3, 400, 400, "INVALID_ARGUMENT"),
    Code.DEADLINE_EXCEEDED: Rendering(4, 408, 504, "DEADLINE_EXCEEDED"),
    Code.NOT_FOUND: Rendering(5, 404, 404, "NOT_FOUND"),
    Code.BAD_ROUTE: Rendering(12, 404, 404, "NOT_FOUND"),
    Code.ALREADY_EXISTS: Rendering(6, 409, 409, "ALREADY_EXISTS"),
    Code.PERMISSION_DENIED: Rendering(7, 403, 403, "PERMISSION_DENIED"),
    Code.UNAUTHENTICATED: Rendering(16, 401, 401, "UNAUTHENTICATED"),
    Code.RESOURCE_EXHAUSTED: Rendering(8, 429, 429, "RATE_LIMITED"),
    Code.FAILED_PRECONDITION: Rendering(9, 412, 409, "FAILED_PRECONDITION"),
    Code.ABORTED: Rendering(10, 409, 409, "ABORTED"),
    Code.OUT_OF_RANGE: Rendering(11, 400, 400, "OUT_OF_RANGE"),
    Code.UNIMPLEMENTED: Rendering(12, 501, 501, "UNIMPLEMENTED"),
    Code.INTERNAL: Rendering(13, 500, 500, "INTERNAL"),
    Code.UNAVAILABLE: Rendering(14, 503, 503, "UNAVAILABLE"),
    Code.DATALOSS: Rendering(15, 500, 500, "INTERNAL"),
}

# Reasons whose REST status differs from that of their code (contract.md C.7).
_REASON_STATUS: Mapping[str, int] = {
    "FILE_TOO_LARGE": 413,
    "BODY_TOO_LARGE": 413,
    "BODY_TOO_SLOW": 408,
    "HEADERS_TOO_LARGE": 431,
    "UNSUPPORTED_MEDIA_TYPE": 415,
}


class ServiceError(Exception):
    """An error meant for the caller: the same code and message on every transport.

    `reason` is a stable upper-case word that refines the code (REST `error.code`, Twirp/gRPC meta `reason`),
    e.g. `JOB_NOT_CANCELLABLE`. `field` names the request field at fault, in REST spelling (`s3Config.bucket`).
    Messages must be safe to show: no secrets, no internals.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        meta: Mapping[str, str] | None = None,
        retry_after_sec: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after_sec = retry_after_sec
        self._meta = dict(meta or {})

    @property
    def meta(self) -> dict[str, str]:
        """String pairs shown to the caller (Twirp `meta`, REST `error.details`, gRPC trailing metadata)."""
        shown = dict(self._meta)
        if self.reason:
            shown["reason"] = self.reason
        if self.field:
            shown["field"] = self.field
        return shown

    @property
    def rendering(self) -> Rendering:
        return RENDERINGS[self.code]

    @property
    def rest_status(self) -> int:
        return _REASON_STATUS.get(self.reason or "", self.rendering.rest_http)

    @property
    def rest_code(self) -> str:
        return self.reason or self.rendering.rest_code


def invalid(field: str, message: str) -> ServiceError:
    """400 that names the field; `message` is a full sentence part, e.g. ``must be between 1 and 10``."""
    return ServiceError(Code.INVALID_ARGUMENT, f"{field}: {message}", field=field)


def not_found(what: str, ident: str) -> ServiceError:
    """404; also used for what belongs to another project, so that existence is not revealed."""
    return ServiceError(Code.NOT_FOUND, f"{what} {ident} not found")


def unauthenticated(message: str = "invalid or missing credentials") -> ServiceError:
    return ServiceError(Code.UNAUTHENTICATED, message)


def permission_denied(message: str) -> ServiceError:
    return ServiceError(Code.PERMISSION_DENIED, message)


def failed_precondition(message: str, *, reason: str | None = None) -> ServiceError:
    return ServiceError(Code.FAILED_PRECONDITION, message, reason=reason)


def unavailable(message: str, *, retry_after_sec: int | None = None) -> ServiceError:
    return ServiceError(Code.UNAVAILABLE, message, retry_after_sec=retry_after_sec)
