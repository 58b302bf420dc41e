"""Addresses that streams go to: what is accepted, in which form it is used, and how it is shown without its key.

Keys are whatever follows the last slash, and every value of a query; nothing here puts one into a message
(livekit-surface.md 1.5, 2.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from server.errors import Code, ServiceError

RTMP, SRT, WEBSOCKET = "rtmp", "srt", "websocket"
_FAMILIES: Mapping[str, str] = {
    "rtmp": RTMP, "rtmps": RTMP, "mux": RTMP, "twitch": RTMP, "srt": SRT, "ws": WEBSOCKET, "wss": WEBSOCKET,
}  # fmt: skip
# Twitch's address that finds the nearest of its receivers by itself, so that no list has to be fetched first.
_SHORTHANDS: Mapping[str, str] = {
    "mux": "rtmps://global-live.mux.com:443/app/",
    "twitch": "rtmps://ingest.global-contribute.live-video.net:443/app/",
}
_LIVE_OPTION = " live=1"
_RTMP = re.compile(r"(?P<scheme>rtmps?://)(?P<app>[^/\s]+/\S*/)(?P<key>[^/\s]*)", re.IGNORECASE)
_QUERY_VALUE = re.compile(r"([?&][^=&#]*=)[^&#]*")
_USER = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/?#]*@", re.IGNORECASE)
_HIDDEN = "{...}"
_SHOWN_HIDDEN = "***"
MAX_URL = 4096


def family(url: str) -> str:
    """`rtmp`, `srt` or `websocket` by the scheme, "" for any other."""
    return _FAMILIES.get(_scheme(url), "")


def canonical(url: str, protocol: str) -> str:
    """The address as it is used: shorthands spelled out, librtmp's option dropped.

    `protocol` is the family that it must be of. Raise ServiceError invalid_argument in LiveKit's words, but with the key
    redacted.
    """
    if len(url) > MAX_URL:
        raise _refused(url, f"longer than {MAX_URL} characters")
    found = family(url)
    if not found:
        raise _refused(url, "invalid scheme")
    if found != protocol:
        raise _refused(url, "invalid protocol")
    scheme = _scheme(url)
    if scheme in _SHORTHANDS:
        key = url.partition("://")[2].strip()
        if not key or re.search(r"[\s/]", key):
            raise _refused(url, f"must be {scheme}://{{stream_key}}")
        return _SHORTHANDS[scheme] + key
    plain = url.removesuffix(_LIVE_OPTION)
    if found == RTMP and not _RTMP.fullmatch(plain):
        raise _refused(
            url, "rtmp urls must be of format rtmp(s)://{host}(/{path})/{app}/{stream_key}( live=1)"
        )
    try:
        parts = urlsplit(plain)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if not host or re.search(r"\s", plain):
        raise _refused(url, "invalid url")
    if found == SRT and not port:
        raise _refused(url, "srt urls must have a port")
    if found == SRT and parse_qs(parts.query).get("mode", ["caller"]) != ["caller"]:
        raise _refused(url, "srt urls must have mode=caller or none")
    return plain


def redacted(url: str) -> str:
    """LiveKit's form: `rtmp://host/app/{abc...xyz}`, `srt://host?streamid={...}`."""
    if _scheme(url) in _SHORTHANDS:
        scheme, _, key = url.partition("://")
        return f"{scheme}://{redacted_identifier(key)}"
    bare = _USER.sub(rf"\1{_HIDDEN}@", url)
    option = _LIVE_OPTION if bare.endswith(_LIVE_OPTION) else ""
    found = _RTMP.fullmatch(bare.removesuffix(_LIVE_OPTION))
    if found:
        return f"{found['scheme']}{found['app']}{redacted_identifier(found['key'])}{option}"
    return _QUERY_VALUE.sub(rf"\1{_HIDDEN}", bare)


def shown(url: str) -> str:
    """The seed's form (B-84): everything after the last slash of the path, and any query, is `***`."""
    if _scheme(url) in _SHORTHANDS:
        return f"{url.partition('://')[0]}://{_SHOWN_HIDDEN}"
    bare = _USER.sub(rf"\1{_SHOWN_HIDDEN}@", url)
    start = bare.find("://") + 3
    address, mark, _ = bare.partition("?")
    slash = address.rfind("/")
    if family(url) == RTMP and slash >= start:
        return f"{address[: slash + 1]}{_SHOWN_HIDDEN}"
    if mark:
        return f"{address}?{_SHOWN_HIDDEN}"
    return f"{address[: slash + 1]}{_SHOWN_HIDDEN}" if start <= slash < len(address) - 1 else address


def redacted_identifier(text: str) -> str:
    """LiveKit's `RedactIdentifier`: `streamkey` becomes `{str...key}`."""
    kept = min(len(text) // 3, 3)
    return f"{{{text[:kept]}...{text[-kept:]}}}" if kept else _HIDDEN


def in_error(url: str) -> str:
    """An address that may be of any form, so that not even its shape can be trusted to hide a key."""
    if redacted(url) != url:
        return redacted(url)
    return _as_far_as_its_host(url)


def echoed(url: str) -> str:
    """An address of a request as it is shown again: `redacted`, or not even its path where it is none to stream to."""
    try:
        canonical(url, family(url))
    except ServiceError:
        return _as_far_as_its_host(url) if url else ""
    return redacted(url)


def _as_far_as_its_host(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,15}", scheme):
        return _HIDDEN
    host = re.match(r"[A-Za-z0-9.:\[\]-]{0,253}", rest)
    # What looks like a host may be the beginning of a login.
    name = host[0] if host and "@" not in rest else ""
    return f"{scheme}://{name}" + ("" if name == rest else _HIDDEN)


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def _refused(url: str, why: str) -> ServiceError:
    return ServiceError(Code.INVALID_ARGUMENT, f"invalid url {in_error(url)}: {why}")
