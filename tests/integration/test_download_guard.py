"""Redirects, rebinding and TLS of downloads; a canary on a private address must stay untouched (2.8 cases 18, 19)."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from adapters.http.download import HttpSourceFetcher
from adapters.http.netguard import NetGuard, Purpose
from adapters.http.session import guarded_session
from server.ports.fetch import Downloaded, DownloadError
from tests.integration.http_sources import (
    PRIVATE,
    PUBLIC,
    Names,
    Request,
    Respond,
    public_is_loopback_2,
    serve,
    serve_both,
)
from tests.unit.http.test_netguard import PRIVATE_HOSTS

UNREACHABLE = "could not fetch input URL after 3 retries"


async def ok(request: Request) -> None:
    await request.answer(200, b"media")


def redirecting(*locations: str) -> Respond:
    """`/0` leads to the first location, `/1` to the second…; other paths answer."""

    async def respond(request: Request) -> None:
        step = request.path.removeprefix("/")
        if step.isdigit():
            await request.answer(302, Location=locations[int(step)])
        else:
            await ok(request)

    return respond


async def fetch(
    url: str, folder: Path, *, guard: NetGuard | None = None, tls: ssl.SSLContext | None = None
) -> Downloaded:
    source = HttpSourceFetcher(guard or public_is_loopback_2(), backoff_sec=(0, 0, 0), tls=tls)
    return await source.fetch(url, folder / "input", on_progress=lambda received, total: None)


async def refused(
    url: str, folder: Path, *, guard: NetGuard | None = None, tls: ssl.SSLContext | None = None
) -> None:
    with pytest.raises(DownloadError) as raised:
        await fetch(url, folder, guard=guard, tls=tls)
    assert (raised.value.message, raised.value.timed_out) == (UNREACHABLE, False)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_follows_three_redirects(tmp_path: Path) -> None:
    async with serve(redirecting("/1", "2", "?done")) as source:
        await fetch(source.url("/0"), tmp_path)
    assert [request.path for request in source.requests] == ["/0", "/1", "/2", "/2?done"]


async def test_refuses_a_fourth_redirect(tmp_path: Path) -> None:
    async with serve(redirecting("/1", "/2", "/3", "/end")) as source:
        await refused(source.url("/0"), tmp_path)
    assert len(source.requests) == 4 * 4


async def test_refuses_a_redirect_loop(tmp_path: Path) -> None:
    async with serve(redirecting("/0")) as source:
        await refused(source.url("/0"), tmp_path)
    assert len(source.requests) == 4 * 4


@pytest.mark.parametrize(
    "location",
    [
        "http://inside.test:{port}/",
        "http://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://127.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://localhost:{port}/",
        "http://media.test@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@media.test/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/_x",
        "http://[::1",
        "http://a..b/",
    ],
)
async def test_a_redirect_never_reaches_a_private_address(tmp_path: Path, location: str) -> None:
    """2.8 case 19."""
    async with serve(ok, host=PRIVATE) as canary:
        async with serve(redirecting(location.format(port=canary.port))) as source:
            await refused(source.url("/0"), tmp_path)
        assert canary.connections == 0
    assert len(source.requests) == 4, "blocked like any other failure, after all retries"


async def test_no_private_host_of_the_corpus_is_ever_contacted(tmp_path: Path) -> None:
    """2.8 case 17: zero connections on the canary."""
    async with serve(ok, host=PRIVATE) as canary:
        source = HttpSourceFetcher(NetGuard(), backoff_sec=())
        for host in PRIVATE_HOSTS:
            with pytest.raises(DownloadError):
                await source.fetch(
                    f"http://{host}:{canary.port}/",
                    tmp_path / "input",
                    on_progress=lambda received, total: None,
                )
    assert canary.connections == 0


async def test_a_name_that_rebinds_is_not_followed_inside(tmp_path: Path) -> None:
    """2.8 case 18: public on the first look-up, 127.0.0.1 on all later ones, with the same port open there."""
    names = Names(media_test=[[PUBLIC], [PRIVATE]])
    async with serve_both(ok, ok) as (source, canary):
        guard = public_is_loopback_2(names)
        await fetch(source.url(), tmp_path, guard=guard)
        assert names.asked == ["media.test"], "one look-up decides and connects"
        await refused(source.url(), tmp_path, guard=guard)
    assert (source.connections, canary.connections) == (1, 0)


async def test_a_name_with_both_kinds_of_address_is_refused(tmp_path: Path) -> None:
    """2.8 case 18."""
    names = Names(media_test=[[PUBLIC, PRIVATE]])
    async with serve_both(ok, ok) as (source, canary):
        await refused(source.url(), tmp_path, guard=public_is_loopback_2(names))
    assert (source.connections, canary.connections) == (0, 0)


async def test_the_session_itself_refuses_literal_addresses() -> None:
    """The HTTP client skips the resolver for a literal address, so the check sits at the socket as well."""
    async with serve(ok, host=PRIVATE) as canary, serve(ok) as source:
        session = guarded_session(public_is_loopback_2(), Purpose.INPUT, connect_timeout_sec=5)
        async with session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://{PRIVATE}:{canary.port}/")
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(source.url(name="inside.test"))
            async with session.get(f"http://{PUBLIC}:{source.port}/") as response:
                assert await response.read() == b"media"
    assert canary.connections == 0


async def test_proxies_of_the_environment_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(ok, host=PRIVATE) as proxy, serve(ok) as source:
        monkeypatch.setenv("http_proxy", f"http://{PRIVATE}:{proxy.port}")
        await fetch(source.url(), tmp_path)
    assert (source.connections, proxy.connections) == (1, 0)


async def test_cookies_are_not_carried_along(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        if request.path == "/0":
            await request.answer(302, Location="/end", Set_Cookie="session=1")
        else:
            await ok(request)

    async with serve(respond) as source:
        await fetch(source.url("/0"), tmp_path)
    assert "cookie" not in source.requests[1].headers


async def test_tls_is_verified_against_the_name(tmp_path: Path, authority: trustme.CA) -> None:
    """2.1 rule 2: connected to the checked address, SNI and certificate still by name."""
    context = server_tls(authority, "media.test")
    asked: list[str | None] = []
    context.sni_callback = lambda connection, name, _: asked.append(name)
    async with serve(ok, tls=context) as source:
        await fetch(source.url(scheme="https"), tmp_path, tls=client_tls(authority))
    assert asked == ["media.test"]
    assert source.requests[0].headers["host"] == f"media.test:{source.port}"


@pytest.mark.parametrize("case", ["unknown authority", "other name"])
async def test_untrusted_certificates_are_refused(tmp_path: Path, authority: trustme.CA, case: str) -> None:
    tls = client_tls(authority) if case == "other name" else None
    async with serve(ok, tls=server_tls(authority, "elsewhere.test")) as source:
        await refused(source.url(scheme="https"), tmp_path, tls=tls)
    assert source.requests == []


async def test_https_never_falls_back_to_http(tmp_path: Path, authority: trustme.CA) -> None:
    """2.8 case 19."""
    async with serve(ok) as plain:
        async with serve(redirecting(plain.url()), tls=server_tls(authority, "media.test")) as source:
            await refused(source.url("/0", scheme="https"), tmp_path, tls=client_tls(authority))
        assert plain.connections == 0
    assert len(source.requests) == 4


async def test_http_may_turn_into_https(tmp_path: Path, authority: trustme.CA) -> None:
    async with (
        serve(ok, tls=server_tls(authority, "other.test")) as safe,
        serve(redirecting(safe.url(name="other.test", scheme="https"))) as source,
    ):
        downloaded = await fetch(source.url("/0"), tmp_path, tls=client_tls(authority))
    assert downloaded.path.read_bytes() == b"media"
