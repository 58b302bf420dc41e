"""The proxy of a request's storage, looked at before anything goes its way."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from server.domain.web_proxy import ProxyAddress, proxy_address
from server.errors import ServiceError
from server.ports.storage import Proxy, StorageError

# One text for blocked and unknown hosts: the difference would map our network for the caller.
PROXY_ADDRESS = "the proxy's address is not allowed or cannot be reached"
PROXY_LOGIN = "the proxy refuses its username and password"

Guard = Callable[[str], Awaitable[Sequence[str] | None]]


async def vetted_proxy(proxy: Proxy | None, guard: Guard | None, *, place: str) -> ProxyAddress | None:
    """None where no proxy is named. `guard` None trusts it; `place` begins every error. Raise StorageError."""
    found = read_proxy(proxy, place=place)
    if found is not None and guard is not None:
        await addresses_of(found, guard, place=place)
    return found


def read_proxy(proxy: Proxy | None, *, place: str) -> ProxyAddress | None:
    """None where no proxy is named. Raise StorageError."""
    if proxy is None or not proxy.url:
        return None
    try:
        return proxy_address(proxy.url, proxy.username, proxy.password)
    except ValueError as problem:
        raise StorageError(f"{place}: {problem}", retryable=False) from None


async def addresses_of(proxy: ProxyAddress, guard: Guard, *, place: str) -> Sequence[str] | None:
    """To connect to; None for no restriction. Raise StorageError.

    A name may be found later, an address does not change.
    """
    try:
        return await guard(proxy.origin)
    except (ServiceError, ValueError, OSError) as error:
        passing = isinstance(error, OSError) and not _is_address(proxy.host)
        raise StorageError(f"{place}: {PROXY_ADDRESS}", retryable=passing) from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
