"""Refusals in LiveKit's words (livekit-surface.md 1.5), and the small checks behind them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from server.domain.web_proxy import proxy_address
from server.errors import Code, ServiceError

_LONGEST_LAYOUT = 256
_ROLE = re.compile(r"arn:[\w-]{1,32}:(iam|sts)::[^\s:]{0,64}:role/\S{1,512}", re.ASCII)
# Characters and length as STS takes them.
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
# The last four: a backslash, a login, a query, a fragment.
_NOT_IN_ENDPOINTS = re.compile(r"[\s\x00-\x20\x7f-\xa0\\@?#]")


def wrong(field: str) -> ServiceError:
    """400 in the one form that LiveKit has for a field that is missing or cannot be."""
    return ServiceError(
        Code.INVALID_ARGUMENT, f"request has missing or invalid field: {field}", meta={"field": field}
    )


def incompatible(message: str) -> ServiceError:
    return ServiceError(Code.INVALID_ARGUMENT, message)


def check_layout(layout: str) -> None:
    """Any name; one that is no layout shows the grid, as with LiveKit."""
    if len(layout) > _LONGEST_LAYOUT or not layout.isprintable():
        raise wrong("layout")


def check_proxy(proxy: Any, *, encrypted: bool) -> None:
    """A `ProxyConfig` (LK-134 … LK-136): `http://`, or `https://` where `encrypted`, and a login only for somewhere."""
    if not proxy.url:
        if proxy.username or proxy.password:
            raise wrong("proxy url")
        return
    try:
        address = proxy_address(proxy.url, proxy.username, proxy.password)
    except ValueError:
        raise wrong("proxy url") from None
    if address.scheme == "https" and not encrypted:
        raise wrong("proxy url (must start with http:// for gcp)")
    if address.password and not address.username:
        raise wrong("proxy username")


def is_endpoint(text: str) -> bool:
    """Whether an S3 or AliOSS storage may be there, with or without a scheme: nothing secret may stand in it."""
    url = text if "://" in text else f"https://{text}"
    return is_http(url) and not _NOT_IN_ENDPOINTS.search(url)


def check_role(upload: Any) -> None:
    """`assume_role_arn` and what belongs to it: all of it or nothing, and with the caller's own keys."""
    if not upload.assume_role_arn:
        if upload.assume_role_external_id:
            raise wrong("assume_role_arn")
        return
    if not _ROLE.fullmatch(upload.assume_role_arn):
        raise wrong("assume_role_arn")
    if upload.assume_role_external_id and not _EXTERNAL_ID.fullmatch(upload.assume_role_external_id):
        raise wrong("assume_role_external_id")
    for name in ("access_key", "secret"):
        if not getattr(upload, name):
            raise wrong(name)


def is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)


def enum_name(message: Any, field: str) -> str:
    """The name of an enum field's value, "" for a number that has none."""
    value = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(getattr(message, field))
    return value.name if value else ""


def has_field(message: Any, field: str) -> bool:
    return field in message.DESCRIPTOR.fields_by_name
