"""Strict reading of URLs that came from outside: one parse gives both what is checked and what is dialled."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from urllib.parse import quote, urljoin, urlsplit

import idna

from server.domain.addresses import Address, ends_in_number, parse_ipv4

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "rtmp": 1935, "rtmps": 443, "srt": 9000}
_MAX_URL = 8192
_MAX_HOST = 253
_AUTHORITY = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Everything RFC 3986 allows, and %, so that signed URLs stay byte for byte what they were.
_KEPT = "%/:=&?~#[]@!$'()*+,;-._"


class BadUrl(ValueError):
    """The URL can never be used; the message is a sentence part that is safe to show (`must …`)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads. `host` is ASCII: a name in lower case, or a canonical address without brackets.

    `path` holds path and query as they go on the wire; it may carry credentials, so the repr leaves it out.
    """

    scheme: str
    host: str
    port: int
    path: str = field(repr=False)

    @property
    def address(self) -> Address | None:
        """The address if the host is a literal one."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if DEFAULT_PORTS.get(self.scheme) == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def parse_target(url: str) -> Target:
    """Raise BadUrl.

    User info, backslashes, blanks, control characters and doubtful hosts are refused: parsers disagree about them.
    """
    if len(url) > _MAX_URL:
        raise BadUrl(f"must be at most {_MAX_URL} characters")
    if any(_forbidden(char) for char in url):
        raise BadUrl("must not contain blanks, control characters or backslashes")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadUrl("must be a valid URL") from error
    if not parts.scheme or not parts.netloc:
        raise BadUrl("must be an absolute URL")
    if "@" in parts.netloc:
        raise BadUrl("must not contain a user name or password")
    match = _AUTHORITY.fullmatch(parts.netloc)
    if match is None:
        raise BadUrl("must have a valid host and port")
    six, name, port = match.groups()
    scheme = parts.scheme.lower()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(
        scheme, _address6(six) if six else _host(name), _port(port, scheme), quote(path, safe=_KEPT)
    )


def join_target(base: Target, location: str) -> Target:
    """Where a redirect from `base` leads. Raise BadUrl."""
    try:
        return parse_target(urljoin(base.url, location))
    except BadUrl:
        raise
    except ValueError as error:
        raise BadUrl("must be a valid URL") from error


def _forbidden(char: str) -> bool:
    return (
        char <= " "
        or char == "\\"
        or "\x7f" <= char <= "\xa0"
        or char.isspace()
        or "\ud800" <= char <= "\udfff"
    )


def _port(text: str | None, scheme: str) -> int:
    port = int(text) if text else DEFAULT_PORTS.get(scheme, 0)
    if text and not 0 < port < 65536:
        raise BadUrl("must have a port between 1 and 65535")
    return port


def _address6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError as error:
        raise BadUrl("must have a valid host and port") from error
    if address.scope_id is not None:
        raise BadUrl("must have a valid host and port")
    return str(address)


def _host(name: str) -> str:
    host = name.lower()
    try:
        if len(host) > _MAX_HOST:
            raise ValueError("too long")
        if not host.isascii() or "xn--" in host:
            host = idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
        host = host.removesuffix(".")
        if ends_in_number(host):
            return str(parse_ipv4(host))
        if not all(_LABEL.fullmatch(label) for label in host.split(".")):
            raise ValueError("not a host name")
    except ValueError as error:
        raise BadUrl("must have a valid host name") from error
    return host
