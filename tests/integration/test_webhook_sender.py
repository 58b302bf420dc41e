"""Posting webhooks over real sockets to good, slow, dead and hostile endpoints (WB, 2.8 case 27)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from adapters.http.netguard import NetGuard
from adapters.http.webhook_sender import HttpWebhookSender
from server.errors import ServiceError
from server.ports.webhook_sender import PostResult, WebhookSender
from tests.integration.http_sources import (
    PRIVATE,
    Names,
    Request,
    head,
    public_is_loopback_2,
    serve,
    serve_both,
)

BODY = b'{"event":"video.conversion.completed", "eventId":"cm9a"}'
HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "BaxCloud-VideoConverter/1.0",
    "X-BaxCloud-Event": "video.conversion.completed",
    "X-BaxCloud-Signature": "sha256=" + "0" * 64,
}
UNREACHABLE = "could not reach the endpoint"


async def ok(request: Request) -> None:
    await request.answer(200)


async def hang(request: Request) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = HttpWebhookSender(public_is_loopback_2())
    yield sender
    await sender.close()


async def post_once(sender: HttpWebhookSender, url: str) -> PostResult:
    try:
        return await sender.post(url, BODY, HEADERS)
    finally:
        await sender.close()


async def test_sends_exactly_the_bytes_and_headers(sender: WebhookSender) -> None:
    """WB-38, WB-39, WB-40, WB-41, WB-42, WB-43, WB-44, WB-51."""
    async with serve(ok) as endpoint:
        result = await sender.post(endpoint.url("/hook"), BODY, HEADERS)
    assert (result.status_code, result.error, result.delivered) == (200, None, True)
    assert result.latency_ms >= 0
    (request,) = endpoint.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook", BODY)
    assert dict(request.headers) == {
        "host": f"media.test:{endpoint.port}",
        "accept": "*/*",
        "content-length": str(len(BODY)),
        **{name.lower(): value for name, value in HEADERS.items()},
    }


async def test_keeps_the_query_of_the_endpoint(sender: WebhookSender) -> None:
    """WB-44: ours adds no query; what the endpoint's URL has stays byte for byte."""
    async with serve(ok) as endpoint:
        await sender.post(endpoint.url("/a%2Fb?token=%2f+x&y"), BODY, HEADERS)
        await sender.post(endpoint.url(""), BODY, HEADERS)
    assert [request.path for request in endpoint.requests] == ["/a%2Fb?token=%2f+x&y", "/"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_delivered(sender: WebhookSender, status: int) -> None:
    """WB-46."""

    async def respond(request: Request) -> None:
        await request.answer(status)

    async with serve(respond) as endpoint:
        result = await sender.post(endpoint.url(), BODY, HEADERS)
    assert (result.status_code, result.error, result.delivered) == (status, None, True)


@pytest.mark.parametrize("status", [300, 400, 401, 404, 410, 429, 500, 503])
async def test_anything_else_is_a_failure_with_its_status(sender: WebhookSender, status: int) -> None:
    """WB-47."""

    async def respond(request: Request) -> None:
        await request.answer(status, b"no")

    async with serve(respond) as endpoint:
        result = await sender.post(endpoint.url(), BODY, HEADERS)
    assert (result.status_code, result.error, result.delivered) == (status, None, False)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_failures(sender: WebhookSender, status: int) -> None:
    """2.8 case 27: 301 = failure, and nobody follows it."""

    async def respond(request: Request) -> None:
        await request.answer(status, Location="/elsewhere")

    async with serve(respond) as endpoint:
        result = await sender.post(endpoint.url("/hook"), BODY, HEADERS)
    assert (result.status_code, result.delivered) == (status, False)
    assert [request.path for request in endpoint.requests] == ["/hook"]


async def test_blocked_refused_and_unknown_look_the_same(sender: WebhookSender) -> None:
    """Design 13, 2.8 case 27 (closed port)."""
    async with serve(ok) as closed:
        pass
    async with serve(ok, host=PRIVATE) as canary:
        results = [
            await sender.post(url, BODY, HEADERS)
            for url in (
                closed.url(),
                canary.url(name="inside.test"),
                canary.url(name=PRIVATE),
                closed.url(name="unknown.test"),
                "http://user:secret@media.test/",
                "ftp://media.test/",
            )
        ]
    assert {(result.status_code, result.error) for result in results} == {(None, UNREACHABLE)}
    assert canary.connections == 0


async def test_a_name_that_rebinds_is_not_followed_inside() -> None:
    """2.8 case 18: the connection is pinned, and a new one is checked anew."""
    names = Names(media_test=[["127.0.0.2"], [PRIVATE]])
    sender = HttpWebhookSender(public_is_loopback_2(names))

    async def respond(request: Request) -> None:
        await request.answer(200, Connection="close")
        request.writer.close()

    async with serve_both(respond, ok) as (endpoint, canary):
        first = await sender.post(endpoint.url(), BODY, HEADERS)
        second = await post_once(sender, endpoint.url())
    assert (first.delivered, second.error) == (True, UNREACHABLE)
    assert (endpoint.connections, canary.connections) == (1, 0)


async def test_no_answer_within_the_time_is_a_timeout() -> None:
    """WB-45."""
    async with serve(hang) as endpoint:
        result = await post_once(HttpWebhookSender(public_is_loopback_2(), timeout_sec=1.5), endpoint.url())
    assert (result.status_code, result.error) == (None, "timeout: no answer within 1.5 s")
    assert result.latency_ms >= 1500
    assert len(endpoint.requests) == 1


async def test_a_head_that_drips_is_a_timeout() -> None:
    async def respond(request: Request) -> None:
        while not request.writer.is_closing():
            await request.send(b"H")
            await asyncio.sleep(0.01)

    async with serve(respond) as endpoint:
        result = await post_once(HttpWebhookSender(public_is_loopback_2(), timeout_sec=0.2), endpoint.url())
    assert result.status_code is None


async def test_a_body_that_drips_is_cut_and_counts_as_delivered() -> None:
    """2.8 case 27: 10-minute drip body; the status was a 2xx in time (WB-46)."""
    cut = asyncio.Event()

    async def respond(request: Request) -> None:
        await request.send(head(200, {"Transfer-Encoding": "chunked"}))
        try:
            while True:
                await request.send(b"1\r\nx\r\n")
                await asyncio.sleep(0.01)
        except ConnectionError:
            cut.set()

    async with serve(respond) as endpoint:
        result = await post_once(HttpWebhookSender(public_is_loopback_2(), timeout_sec=1.5), endpoint.url())
        await asyncio.wait_for(cut.wait(), 10)
    assert (result.status_code, result.error) == (200, None)


async def test_a_gigabyte_of_answer_is_cut(sender: WebhookSender) -> None:
    """2.8 case 27: 1 GB body; what we read is bounded, the rest is the kernel's buffers."""
    sent = 0
    cut = asyncio.Event()

    async def respond(request: Request) -> None:
        nonlocal sent
        await request.send(head(200, {"Content-Length": str(1 << 30)}))
        try:
            while sent < 1 << 30:
                await request.send(b"x" * 65536)
                sent += 65536
        except ConnectionError:
            cut.set()

    async with serve(respond) as endpoint:
        result = await sender.post(endpoint.url(), BODY, HEADERS)
        await asyncio.wait_for(cut.wait(), 10)
    assert result.delivered
    assert sent < 64 * 1024 * 1024


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_an_endpoint_that_is_no_web_server(sender: WebhookSender, answer: bytes) -> None:
    async def respond(request: Request) -> None:
        await request.send(answer)
        request.writer.close()

    async with serve(respond) as endpoint:
        result = await sender.post(endpoint.url(), BODY, HEADERS)
    assert (result.status_code, result.error) == (
        None,
        "the endpoint closed the connection without a valid answer",
    )
    assert len(endpoint.requests) == 1, "a POST is never repeated behind the caller's back"


async def test_certificates_are_verified() -> None:
    """2.8 case 27: TLS self-signed fails; a trusted one for the name passes."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("media.test").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serve(ok, tls=server) as endpoint:
        url = endpoint.url(scheme="https")
        wrong_name = endpoint.url(scheme="https", name="other.test")
        guard = public_is_loopback_2()
        unknown = await post_once(HttpWebhookSender(guard), url)
        other = await post_once(HttpWebhookSender(guard, tls=trusting), wrong_name)
        trusted = await post_once(HttpWebhookSender(guard, tls=trusting), url)
    assert unknown.error == other.error == "TLS handshake or certificate check failed"
    assert trusted.delivered
    assert len(endpoint.requests) == 1


async def test_slow_endpoints_hold_up_no_other(sender: WebhookSender) -> None:
    """Issue section 6: 300 requests hang at one endpoint while another is served."""
    hanging = asyncio.Event()

    async def count(request: Request) -> None:
        if request.number == 299:
            hanging.set()
        await hang(request)

    async with serve(count) as slow, serve(ok) as healthy:
        stuck = [asyncio.ensure_future(sender.post(slow.url(), BODY, HEADERS)) for _ in range(300)]
        await asyncio.wait_for(hanging.wait(), 10)
        result = await sender.post(healthy.url(name="other.test"), BODY, HEADERS)
        assert not any(task.done() for task in stuck)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
    assert result.delivered


async def test_connections_are_kept_for_the_next_post(sender: WebhookSender) -> None:
    async with serve(ok) as endpoint:
        for _ in range(3):
            await sender.post(endpoint.url(), BODY, HEADERS)
    assert (len(endpoint.requests), endpoint.connections) == (3, 1)


async def test_works_again_after_close() -> None:
    sender = HttpWebhookSender(public_is_loopback_2())
    async with serve(ok) as endpoint:
        assert (await post_once(sender, endpoint.url())).delivered
        assert (await post_once(sender, endpoint.url())).delivered


async def test_allow_private_reaches_loopback() -> None:
    """Design 13: BAX_ALLOW_PRIVATE_URLS=1, with the system's own look-up."""
    async with serve(ok, host=PRIVATE) as endpoint:
        url = f"http://localhost:{endpoint.port}/"
        assert (await post_once(HttpWebhookSender(NetGuard(allow_private=True)), url)).delivered
        assert (await post_once(HttpWebhookSender(NetGuard()), url)).error == UNREACHABLE
    assert endpoint.connections == 1


def test_check_url_names_the_field() -> None:
    sender = HttpWebhookSender(NetGuard())
    for url in ("http://127.0.0.1/", "ftp://example.com/", "https://user:secret@example.com/"):
        with pytest.raises(ServiceError) as raised:
            sender.check_url(url, field="url")
        assert raised.value.field == "url"
        assert "secret" not in raised.value.message
    sender.check_url("https://example.com/hook?x=1", field="url")
