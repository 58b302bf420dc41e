"""Where a job's objects go and how they are addressed: prefixes, keys, public URLs, content types, capabilities."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from urllib.parse import quote, urlsplit

from server.domain.project import S3Config
from server.errors import invalid

MAX_KEY_BYTES = 900
MAX_PART_BYTES = 255

PLAYLIST_TYPE = "application/vnd.apple.mpegurl"

_CONTENT_TYPES = {
    "m3u8": PLAYLIST_TYPE,
    "ts": "video/mp2t",
    "m4s": "video/iso.segment",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "ogg": "audio/ogg",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "vtt": "text/vtt",
    "json": "application/json",
}

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_MAC_BYTES = 18


def normalise_prefix(prefix: str, *, field: str = "s3Config.prefix") -> str:
    """`""` or `a/b/` (B-34): leading slashes are dropped, one trailing slash is ensured, text is NFC.

    Raise ServiceError invalid_argument naming `field` for empty, `.` and `..` parts, NUL, control characters and
    backslashes, parts over 255 bytes and prefixes over 900 bytes.
    """
    text = unicodedata.normalize("NFC", prefix).lstrip("/").removesuffix("/")
    if not text:
        return ""
    problem = key_problem(text)
    if problem:
        raise invalid(field, problem)
    return text + "/"


def key_problem(key: str) -> str | None:
    """Why `key` can't name an object, or None if it can; the rules are those of `normalise_prefix`."""
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in key) or "\\" in key:
        return "must not contain control characters or backslashes"
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"must not be longer than {MAX_KEY_BYTES} bytes"
    for part in key.split("/"):
        if part in ("", ".", ".."):
            return "must not contain empty, '.' or '..' parts"
        if len(part.encode()) > MAX_PART_BYTES:
            return f"must not contain parts longer than {MAX_PART_BYTES} bytes"
    return None


def content_type(key: str) -> str:
    """The media type of an object by its extension; `application/octet-stream` if it is none of ours."""
    name = key.rpartition("/")[2]
    return _CONTENT_TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")


def is_growing(playlist: bytes) -> bool:
    """Whether an HLS media playlist still lacks its end; a master playlist is not growing."""
    return b"#EXT-X-TARGETDURATION" in playlist and b"#EXT-X-ENDLIST" not in playlist


def cache_control(media_type: str, *, growing: bool = False, immutable: bool = False) -> str:
    """Cache-Control of an object.

    `immutable` is for keys that no other job can ever write again (the data directory); a bucket's keys carry no job
    id (VC-64), so another job may replace them, and caches must ask again.
    """
    if media_type == PLAYLIST_TYPE:
        return "public, max-age=1" if growing else "public, max-age=60"
    if media_type == "application/json":
        return "no-cache"
    return "public, max-age=31536000, immutable" if immutable else "public, max-age=3600"


def check_s3(config: S3Config, *, field: str = "s3Config", keys_required: bool = True) -> None:
    """Raise ServiceError invalid_argument naming the wrong field of a configuration that stands alone (VC-14).

    `keys_required` is False only for the operator's own default, which may use the machine's AWS credentials.
    """
    if not config.bucket:
        raise invalid(f"{field}.bucket", "is required")
    if not _BUCKET.fullmatch(config.bucket) or ".." in config.bucket:
        raise invalid(f"{field}.bucket", "is not a valid bucket name")
    if config.region and not _REGION.fullmatch(config.region):
        raise invalid(f"{field}.region", "is not a valid region name")
    if keys_required or config.access_key or config.secret_key:
        for name, value in (("accessKey", config.access_key), ("secretKey", config.secret_key)):
            if not value:
                raise invalid(f"{field}.{name}", "is required")
            if not value.isascii() or not value.isprintable() or " " in value:
                raise invalid(f"{field}.{name}", "must be printable ASCII without spaces")
    if config.endpoint:
        _check_base_url(config.endpoint, f"{field}.endpoint")
    if config.cdn_url:
        _check_base_url(config.cdn_url, f"{field}.cdnUrl")
    normalise_prefix(config.prefix, field=f"{field}.prefix")


def _check_base_url(url: str, field: str) -> None:
    bad = invalid(field, "must be an http:// or https:// URL without user, query or fragment")
    if len(url) > 2048 or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise bad
    try:
        parts = urlsplit(url)
        valid_port = parts.port != 0
    except ValueError:
        raise bad from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not valid_port:
        raise bad
    if parts.username is not None or parts.password is not None or "?" in url or "#" in url:
        raise bad


@dataclass(frozen=True, slots=True)
class Destination:
    """The storage that one job uses; `s3` None is the data directory. `trusted`: the operator configured it."""

    s3: S3Config | None
    prefix: str
    trusted: bool


def effective_s3(
    request: S3Config | None,
    project: S3Config | None,
    operator: S3Config | None = None,
    *,
    operator_folder: str = "",
    local_fallback: bool = True,
) -> Destination:
    """The storage of a job from the request, its project's default and the operator's (GN-11, GN-13, design 13).

    `operator_folder` keeps projects apart that share the operator's bucket; empty for the bootstrap project.
    `local_fallback` False is `BAX_STORAGE_FALLBACK=none`. Raise ServiceError invalid_argument naming the field.
    """
    if request is not None and request.stands_alone:
        check_s3(request)
        return Destination(request, normalise_prefix(request.prefix), trusted=False)
    base = project or operator
    overlay = request or S3Config()
    if base is None and not local_fallback:
        raise invalid("s3Config", "is required: neither the project nor the server has a default storage")
    if overlay.region not in ("", "auto"):
        raise invalid("s3Config.bucket", "is required with region")
    if base is None:
        return _local_destination(overlay)
    if overlay.cdn_url:
        _check_base_url(overlay.cdn_url, "s3Config.cdnUrl")
    prefix = normalise_prefix(overlay.prefix) if overlay.prefix else normalise_prefix(base.prefix)
    if project is None and operator_folder:
        prefix = normalise_prefix(f"{operator_folder}/{prefix}")
    merged = replace(base, prefix=prefix, cdn_url=overlay.cdn_url or base.cdn_url)
    return Destination(merged, prefix, trusted=True)


def _local_destination(overlay: S3Config) -> Destination:
    if overlay.cdn_url:
        raise invalid("s3Config.bucket", "is required with cdnUrl: there is no default bucket to lay it over")
    return Destination(None, normalise_prefix(overlay.prefix), trusted=True)


def _quote(key: str) -> str:
    return quote(key, safe="/-._~")


def join_url(base: str, key: str) -> str:
    """`base` + `/` + `key` without double slashes (B-34); the key is percent-encoded."""
    return f"{base.rstrip('/')}/{_quote(key)}"


def s3_url(config: S3Config, key: str) -> str:
    """Public address of the full `key`: the CDN base if set (VC-20, VC-22), else the raw form of B-35."""
    if config.cdn_url:
        return join_url(config.cdn_url, key)
    if config.endpoint:
        return join_url(f"{config.endpoint.rstrip('/')}/{config.bucket}", key)
    if config.region in ("", "auto"):
        return join_url(f"https://{config.bucket}.s3.amazonaws.com", key)
    partition = "amazonaws.com.cn" if config.region.startswith("cn-") else "amazonaws.com"
    return join_url(f"https://{config.bucket}.s3.{config.region}.{partition}", key)


class Refusal(Enum):
    """Why an address of the data directory is not served: 404 and 403 outside."""

    MISSING = "missing"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a capability opens: every object of one job or recording, until `expires_at` (None: as long as they live)."""

    project_id: str
    scope: str
    expires_at: int | None = None

    def __post_init__(self) -> None:
        for name in (self.project_id, self.scope):
            if not _NAME.fullmatch(name):
                raise ValueError("project and scope must be plain identifiers")


class CapabilitySigner:
    """Signs and checks the `{capability}` of `/o/{capability}/{key}`: `project.scope[.expiry].mac`.

    The scope is signed, not the key, so relative URIs in playlists work. The first of `secret_keys` signs, all are
    accepted, so addresses survive a rotation.
    """

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        if not secret_keys or not all(secret_keys):
            raise ValueError("at least one secret key is required")
        self._keys = tuple(
            hmac.new(key, b"baxcloud object capability v1", hashlib.sha256).digest() for key in secret_keys
        )

    def issue(self, grant: Grant) -> str:
        payload = f"{grant.project_id}.{grant.scope}"
        if grant.expires_at is not None:
            payload += f".{grant.expires_at}"
        return f"{payload}.{self._mac(self._keys[0], payload)}"

    def open(self, capability: str, now: datetime) -> Grant | Refusal:
        """The grant, EXPIRED for a genuine one past its time, MISSING for anything not signed by us."""
        payload, _, mac = capability.rpartition(".")
        if not capability.isascii() or not self._genuine(payload, mac):
            return Refusal.MISSING
        project_id, scope, *expiry = payload.split(".")
        grant = Grant(project_id, scope, int(expiry[0]) if expiry else None)
        if grant.expires_at is not None and now.timestamp() >= grant.expires_at:
            return Refusal.EXPIRED
        return grant

    def _genuine(self, payload: str, mac: str) -> bool:
        matches = [hmac.compare_digest(self._mac(key, payload), mac) for key in self._keys]
        return any(matches)

    @staticmethod
    def _mac(key: bytes, payload: str) -> str:
        digest = hmac.new(key, payload.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:_MAC_BYTES]).decode()
