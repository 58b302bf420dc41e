"""The connections of S3 clients to what callers name: to vetted addresses only, by their proxy where they have one."""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from server.domain.web_proxy import ProxyAddress

Ask = Callable[[str], Sequence[str] | None]
"""Gives the addresses of an origin, None for no restriction. Raise EndpointRefused, OSError."""


class EndpointRefused(CancelledError):
    """The guard refused an address while connecting.

    Of this base because botocore lets it through unwrapped and never retries it.
    """


class ProxyRefused(EndpointRefused):
    """It was the proxy's."""


class ProxyNotFound(OSError):
    """The guard gave no address of the proxy's: it is blocked now, or unknown. botocore tries it again like any OSError."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Times in seconds; `ca_bundle` is a PEM file."""

    connect_timeout: float
    read_timeout: float
    connections: int
    ca_bundle: str | None


def vetted_session(ask: Ask, options: SessionOptions, proxy: ProxyAddress | None) -> Any:
    """A botocore HTTP session that knows no other proxy than `proxy`.

    Each new connection asks the guard and goes to an address it gave, so a name that resolves to something else
    a moment later (DNS rebinding) changes nothing. TLS still checks the name. With a proxy it is the proxy that is
    connected to; the storage's name is then the proxy's to resolve.
    """
    from botocore.httpsession import URLLib3Session

    class Session(URLLib3Session):  # type: ignore[misc,unused-ignore]
        def _setup_ssl_cert(self, conn: Any, url: str, verify: Any) -> None:
            # botocore would not look at the certificate of a TLS proxy in front of a plain endpoint.
            super()._setup_ssl_cert(conn, proxy.origin if proxy and proxy.scheme == "https" else url, verify)

    session = Session(
        verify=options.ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True,
        proxies={"http": proxy.origin, "https": proxy.origin} if proxy else None,
        timeout=(options.connect_timeout, options.read_timeout),
        max_pool_connections=options.connections,
    )
    pools = _pools(_Dialler(ask, proxy))
    session._pool_classes_by_scheme = pools
    session._manager.pool_classes_by_scheme = pools
    if proxy is not None:
        login = _login(proxy)
        # Kept out of the address: that stands in error texts.
        session._proxy_config.proxy_headers_for = lambda _: login
    return session


def _login(proxy: ProxyAddress) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {pair}"}


@dataclass(frozen=True, slots=True)
class _Dialler:
    """Opens the sockets of connections that urllib3 made."""

    ask: Ask
    proxy: ProxyAddress | None

    def dial(self, connection: Any, scheme: str, connect: Callable[[], socket.socket]) -> socket.socket:
        from urllib3.exceptions import HTTPError

        addresses = self._addresses(_origin(scheme, connection.host, connection.port))
        if addresses is None:
            return connect()
        name = connection._dns_host
        error: Exception | None = None
        for address in addresses:
            connection._dns_host = str(ipaddress.ip_address(address))
            try:
                return connect()
            except (OSError, HTTPError) as caught:
                error = caught
            finally:
                connection._dns_host = name
        raise error or OSError("the storage endpoint has no address")

    def _addresses(self, origin: str) -> Sequence[str] | None:
        if self.proxy is None:
            return self.ask(origin)
        try:
            return self.ask(self.proxy.origin)
        except EndpointRefused as refusal:
            raise ProxyRefused("proxy refused") from refusal
        except OSError as refusal:
            raise ProxyNotFound("no address of the proxy") from refusal


def _pools(dialler: _Dialler) -> dict[str, Any]:
    from botocore.awsrequest import (
        AWSHTTPConnection,
        AWSHTTPConnectionPool,
        AWSHTTPSConnection,
        AWSHTTPSConnectionPool,
    )

    class PlainConnection(AWSHTTPConnection):  # type: ignore[misc,unused-ignore]
        def _new_conn(self) -> socket.socket:
            return dialler.dial(self, "http", super()._new_conn)

    class TlsConnection(AWSHTTPSConnection):  # type: ignore[misc,unused-ignore]
        def _new_conn(self) -> socket.socket:
            return dialler.dial(self, "https", super()._new_conn)

    class PlainPool(AWSHTTPConnectionPool):  # type: ignore[misc,unused-ignore]
        ConnectionCls = PlainConnection

    class TlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc,unused-ignore]
        ConnectionCls = TlsConnection

    return {"http": PlainPool, "https": TlsPool}


def _origin(scheme: str, host: str, port: int) -> str:
    host = host.strip("[]")
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
