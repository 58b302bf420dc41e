"""The address guard decides on every connection to an address that came with an API key (design section 13)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address

from adapters.http.target import BadUrl, Target, parse_target
from server.domain.addresses import Address, Network, effective, in_networks, is_public
from server.errors import invalid

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Host name → addresses as text; raises OSError."""


class Purpose(str, Enum):
    """What a URL is for."""

    INPUT = "input"
    WEBHOOK = "webhook"
    STREAM = "stream"
    STORAGE = "storage"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one purpose may reach: scheme → ports (None: any), and private networks that the operator opened."""

    ports: Mapping[str, frozenset[int] | None]
    networks: tuple[Network, ...] = ()


# A public host can still run a database or a mail server that trusts our address; a closed list of ports keeps
# tenants from speaking to it through us. 8080 and 8443 are where web servers without root listen.
_WEB_PORTS = frozenset({80, 443, 8080, 8443})
# 1936 and 2935 are used by RTMPS services, 5222 by Mux.
_RTMP_PORTS = frozenset({80, 443, 1935, 1936, 2935, 5222, 8080})

DEFAULT_RULES: Mapping[Purpose, Rule] = {
    Purpose.INPUT: Rule({"http": _WEB_PORTS, "https": _WEB_PORTS}),
    Purpose.WEBHOOK: Rule({"http": _WEB_PORTS, "https": _WEB_PORTS}),
    # SRT has no usual port, and its handshake over UDP says nothing to other services.
    Purpose.STREAM: Rule(
        {"rtmp": _RTMP_PORTS, "rtmps": _RTMP_PORTS, "srt": None, "ws": _WEB_PORTS, "wss": _WEB_PORTS}
    ),
    # Self-hosted S3 listens anywhere (9000, 3900, 7070…), and no tenant shapes the signed HTTP that it is sent.
    Purpose.STORAGE: Rule({"http": None, "https": None}),
}


_LOOPBACK = ip_address("127.0.0.1")
_log = logging.getLogger(__name__)


class AddressRefused(OSError):
    """Blocked, unknown and unreachable addresses alike: which of them it was, the caller never learns."""

    def __init__(self) -> None:
        super().__init__("address cannot be reached")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A URL and the vetted addresses that a connection to it must use; the name stays for Host, SNI and TLS."""

    target: Target
    addresses: tuple[str, ...]


class SystemLookup:
    """The system's resolver, in threads of its own so that slow name servers hold up nothing else."""

    def __init__(self, *, threads: int = 32) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lookup")

    async def __call__(self, host: str) -> Sequence[str]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, _getaddrinfo, host)


def _getaddrinfo(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class NetGuard:
    """Decides what may be contacted.

    `allow_private` (BAX_ALLOW_PRIVATE_URLS) lifts addresses and ports for every purpose; what the operator set
    passes with `trusted`. Schemes and syntax always hold.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        rules: Mapping[Purpose, Rule] = DEFAULT_RULES,
        lookup: Lookup | None = None,
        is_own: Callable[[Address], bool] | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._rules = rules
        self._lookup = lookup or SystemLookup()
        self._is_own = is_own or is_own_address

    def check_url(self, url: str, purpose: Purpose, *, field: str) -> Target:
        """Without a look-up: ServiceError invalid_argument naming `field` for what can never be reached."""
        try:
            target = self.parse(url, purpose)
        except BadUrl as error:
            raise invalid(field, str(error)) from error
        address = _LOOPBACK if f".{target.host}".endswith(".localhost") else target.address
        if address is not None and not self.permits(address, purpose):
            raise invalid(field, "must not point to a private or reserved address")
        return target

    def parse(self, url: str, purpose: Purpose, *, trusted: bool = False) -> Target:
        """Syntax, scheme and port. Raise BadUrl."""
        return self.admit(parse_target(url), purpose, trusted=trusted)

    def admit(self, target: Target, purpose: Purpose, *, trusted: bool = False) -> Target:
        """Scheme and port of a parsed URL. Raise BadUrl."""
        ports = self._rules[purpose].ports
        if target.scheme not in ports:
            raise BadUrl(f"must start with {' or '.join(f'{scheme}://' for scheme in ports)}")
        allowed = ports[target.scheme]
        if allowed is not None and target.port not in allowed and not (trusted or self._allow_private):
            raise BadUrl(f"must use one of the ports {', '.join(map(str, sorted(allowed)))}")
        return target

    def permits(self, address: Address, purpose: Purpose) -> bool:
        """May this address be contacted?"""
        if self._allow_private or in_networks(address, self._rules[purpose].networks):
            return True
        return is_public(address) and not self._is_own(effective(address))

    async def resolve(self, url: str, purpose: Purpose, *, trusted: bool = False) -> Pinned:
        """One look-up; every address found must be permitted. Raise BadUrl, or AddressRefused."""
        target = self.parse(url, purpose, trusted=trusted)
        return Pinned(target, await self.addresses(target.host, purpose, trusted=trusted))

    async def addresses(self, host: str, purpose: Purpose, *, trusted: bool = False) -> tuple[str, ...]:
        """The vetted addresses of a host name or literal. Raise AddressRefused.

        A name with both public and private addresses is refused as a whole: no honest name has both.
        """
        found = await self._find(host)
        if not (trusted or all(self.permits(address, purpose) for address in found)):
            _log.warning("address guard refused host %s for purpose %s", host, purpose.value)
            raise AddressRefused
        if not found:
            raise AddressRefused
        return tuple(str(address) for address in found)

    async def _find(self, host: str) -> tuple[Address, ...]:
        try:
            return (ip_address(host),)
        except ValueError:
            pass
        try:
            return tuple(ip_address(text) for text in await self._lookup(host))
        except (OSError, ValueError) as error:
            raise AddressRefused from error


def is_own_address(address: Address) -> bool:
    """True if the address belongs to this host: the kernel then picks it as its own source. Sends nothing."""
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ip_address(str(probe.getsockname()[0])) == address
    except OSError:
        return False
