"""What the generated `*_twirp.py` files need beyond the `twirp` package: an asyncio client and call options.

`tools/generate.py` copies this file to `generated/twirp_runtime.py`; edit it in `tools/`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, TypeVar

import aiohttp
from google.protobuf.message import DecodeError, Message
from twirp.context import Context
from twirp.errors import Errors
from twirp.exceptions import TwirpServerException

ResponseT = TypeVar("ResponseT", bound=Message)

# Statuses that proxies answer on their own (Twirp specification v7, "Errors from intermediaries").
_INTERMEDIARY_CODES = {
    400: Errors.Internal,
    401: Errors.Unauthenticated,
    403: Errors.PermissionDenied,
    404: Errors.BadRoute,
    429: Errors.ResourceExhausted,
    502: Errors.Unavailable,
    503: Errors.Unavailable,
    504: Errors.Unavailable,
}


def endpoint_function(service: object, method: str) -> Callable[[Context, Any], Awaitable[Any]]:
    """The runtime calls `function(ctx, request)`, our services take `(request, ctx)`."""
    implementation = getattr(service, method)

    async def call(ctx: Context, request: Any) -> Any:
        return await implementation(request, ctx)

    return call


def call_options(headers: Mapping[str, str] | None, timeout: float | None) -> dict[str, Any]:
    """Keyword arguments for `_make_request`; `timeout` in seconds, None keeps the client's own."""
    options: dict[str, Any] = {}
    if headers:
        options["headers"] = dict(headers)
    if timeout is not None:
        options["timeout"] = timeout
    return options


class AsyncTwirpClient:
    """Base of the generated asyncio clients.

    `address` is scheme and authority, e.g. `http://127.0.0.1:8080`; `timeout` is in seconds per call.
    Without a `session` of the caller's, one is opened on first use and closed by `close()`.
    Every failure is a `TwirpServerException`.
    """

    def __init__(
        self, address: str, *, session: aiohttp.ClientSession | None = None, timeout: float = 5.0
    ) -> None:
        self._address = address.rstrip("/")
        self._session = session
        self._owns_session = session is None
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session if this client opened it."""
        if self._owns_session and self._session is not None:
            await self._session.close()
            self._session = None

    async def _make_request(
        self,
        *,
        url: str,
        ctx: Context,
        request: Message,
        response_obj: type[ResponseT],
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ResponseT:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with self._session.post(
                self._address + url,
                data=request.SerializeToString(),
                headers={**ctx.get_headers(), **(headers or {}), "Content-Type": "application/protobuf"},
                timeout=aiohttp.ClientTimeout(total=self._timeout if timeout is None else timeout),
                allow_redirects=False,
            ) as reply:
                body = await reply.read()
        except TimeoutError as error:
            raise TwirpServerException(code=Errors.DeadlineExceeded, message="no answer in time") from error
        except aiohttp.ClientError as error:
            raise TwirpServerException(code=Errors.Unavailable, message=str(error)) from error
        if reply.status != 200:
            raise _error(reply.status, body)
        try:
            return response_obj.FromString(body)
        except DecodeError as error:
            raise TwirpServerException(code=Errors.Internal, message="the answer is not protobuf") from error


def _error(status: int, body: bytes) -> TwirpServerException:
    try:
        described = json.loads(body)
        code = described["code"]
    except (ValueError, TypeError, KeyError):
        return TwirpServerException(
            code=_INTERMEDIARY_CODES.get(status, Errors.Unknown),
            message=f"Error from intermediary with HTTP status code {status}",
            meta={"http_error_from_intermediary": "true", "status_code": str(status)},
        )
    return TwirpServerException(code=code, message=described.get("msg", ""), meta=described.get("meta") or {})
