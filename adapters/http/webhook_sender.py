"""Posts webhooks: guarded, no redirects, ten seconds, and no interest in the answer beyond its status."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from adapters.http.netguard import NetGuard, Purpose
from adapters.http.session import ConnectionBroken, guarded_session
from adapters.http.target import BadUrl
from server.ports.webhook_sender import PostResult

# One text for blocked, refused, unknown and unreachable (design section 13).
_UNREACHABLE = "could not reach the endpoint"
_ANSWER_LIMIT = 64 * 1024
# Node's servers close an idle connection after 5 s; giving ours up earlier avoids posting into a closing one.
_KEEPALIVE_SEC = 4.0


class HttpWebhookSender:
    """The WebhookSender port over aiohttp; one instance serves all endpoints until `close()`.

    The number of connections is not limited here, so a slow endpoint holds up no other.
    """

    def __init__(
        self,
        guard: NetGuard,
        *,
        timeout_sec: float = 10.0,
        connect_timeout_sec: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._timeout = timeout_sec
        self._connect_timeout = connect_timeout_sec
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    def check_url(self, url: str, *, field: str) -> None:
        self._guard.check_url(url, Purpose.WEBHOOK, field=field)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> PostResult:
        started = time.perf_counter()

        def result(status: int | None, error: str | None) -> PostResult:
            return PostResult(status, error, round((time.perf_counter() - started) * 1000))

        answer: PostResult | None = None
        try:
            target = self._guard.parse(url, Purpose.WEBHOOK)
            async with (
                asyncio.timeout(self._timeout),
                self._open_session().post(
                    URL(target.url, encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    skip_auto_headers=("User-Agent", "Accept-Encoding"),
                ) as response,
            ):
                answer = result(response.status, None)
                await _drain(response)
        except (aiohttp.ClientSSLError, ssl.SSLError):
            return answer or result(None, "TLS handshake or certificate check failed")
        except (aiohttp.ClientError, HttpProcessingError, BadUrl) as error:
            return answer or result(None, _cause(error))
        except TimeoutError:
            return answer or result(None, f"timeout: no answer within {self._timeout:g} s")
        except OSError:
            return answer or result(None, _UNREACHABLE)
        return answer

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = guarded_session(
                self._guard,
                Purpose.WEBHOOK,
                connect_timeout_sec=self._connect_timeout,
                tls=self._tls,
                keepalive_timeout_sec=_KEEPALIVE_SEC,
            )
        return self._session


def _cause(error: Exception) -> str:
    """An endpoint that was reached and broke off is a public one, so saying so gives nothing away."""
    if isinstance(error, ConnectionBroken | aiohttp.ClientResponseError | HttpProcessingError):
        return "the endpoint closed the connection without a valid answer"
    return _UNREACHABLE


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Reads a short answer so that the connection can be used again; a longer one costs the connection."""
    left = _ANSWER_LIMIT
    while left > 0:
        chunk = await response.content.read(left)
        if not chunk:
            return
        left -= len(chunk)
    response.close()
