"""A web proxy in front of a storage, as a request names it (LK-134 … LK-136)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

_HOST = re.compile(r"[0-9A-Za-z._:%-]{1,253}")
_PORTS = {"http": 80, "https": 443}
# `urlsplit` leaves some of them out without a word; what is read would then be another text than what was sent.
_NOT_IN_URLS = re.compile(r"[\s\x00-\x20\x7f-\xa0\\]")


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where a proxy listens and who may use it. `host` is without brackets; "" as `username`: no login."""

    scheme: str
    host: str
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def origin(self) -> str:
        """The address, nothing of the login in it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def with_login(self) -> str:
        """Never to be shown."""
        if not self.username:
            return self.origin
        login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}"
        return self.origin.replace("://", f"://{login}@", 1)


def proxy_address(url: str, username: str = "", password: str = "") -> ProxyAddress:
    """`url` may hold a login, which counts where the fields are empty. Raise ValueError, the text without what is secret."""
    if _NOT_IN_URLS.search(url):
        raise ValueError("the proxy's url must not contain blanks, control characters or backslashes")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("the proxy's url cannot be read") from None
    if parts.scheme not in _PORTS or not host:
        raise ValueError("the proxy's url must start with http:// or https://")
    if not _HOST.fullmatch(host) or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("the proxy's url must be a host and a port")
    return ProxyAddress(
        parts.scheme,
        host,
        port or _PORTS[parts.scheme],
        username or unquote(parts.username or ""),
        password or unquote(parts.password or ""),
    )
