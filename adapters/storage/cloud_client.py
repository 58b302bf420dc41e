"""obstore clients for Google Cloud Storage and Azure: what a request names is checked before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from adapters.storage.cloud_signing import azure_address, decoded_key, google_address
from adapters.storage.proxy import Guard, addresses_of, read_proxy
from server.domain.objects import join_url
from server.ports.storage import AzureContainer, GcsBucket, StorageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_MISSING = "GCP and Azure storage needs an optional part of this server: pip install baxcloud[cloud]"
# These stand in a host name or a path: no other place than the cloud's own may come of them.
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$root|\$web|(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """Sizes in bytes, times in seconds. Attempts and pauses are LiveKit's (livekit-surface.md 3.5).

    `timeout` is one request's, whose body is at most a part. The endpoints are emulators of tests; a caller names none.
    """

    part_size: int = 8 << 20
    part_concurrency: int = 4
    connect_timeout: float = 5.0
    timeout: float = 120.0
    attempts: int = 5
    first_pause: float = 0.1
    longest_pause: float = 5.0
    gcs_endpoint: str = ""
    azure_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class CloudClient:
    """An obstore client and what it can't do: `url` is public, `signed` works for so many seconds; both take whole keys."""

    place: str
    native: Any = field(repr=False)
    url: Callable[[str], str] = field(repr=False)
    signed: Callable[[str, int], str] = field(repr=False)


async def open_cloud(
    cloud: GcsBucket | AzureContainer, options: CloudOptions, *, guard: Guard | None
) -> CloudClient:
    """`guard` vets the proxy, None trusts it. Raise StorageError, without a secret in it."""
    place = (
        f"GCP bucket {cloud.bucket}" if isinstance(cloud, GcsBucket) else f"Azure container {cloud.container}"
    )
    try:
        from obstore.exceptions import BaseError
    except ImportError:
        raise StorageError(f"{place}: {_MISSING}", retryable=False) from None
    try:
        if isinstance(cloud, GcsBucket):
            return _google(cloud, options, place, await _proxy_url(cloud, guard, place))
        return _azure(cloud, options, place)
    except _WrongPlace as wrong:
        raise StorageError(f"{place}: {wrong}", retryable=False) from None
    except BaseError:
        raise StorageError(f"{place}: the credentials cannot be used", retryable=False) from None


class _WrongPlace(Exception):
    """What is wrong with a request's storage, in words that may be shown."""


def _google(cloud: GcsBucket, options: CloudOptions, place: str, proxy_url: str) -> CloudClient:
    from obstore.store import GCSStore

    if not _BUCKET.fullmatch(cloud.bucket):
        raise _WrongPlace("this is not the name of a bucket")
    account = _service_account(cloud.credentials)
    endpoint = options.gcs_endpoint or "https://storage.googleapis.com"
    native = GCSStore(
        cloud.bucket,
        # Said in full: what is left out would be taken from the environment of this server.
        config={"service_account_key": json.dumps(account), "base_url": endpoint, "skip_signature": False},
        client_options=_http(options, proxy_url, plain=endpoint.startswith("http:")),
        retry_config=_retries(options),
    )

    def signed(key: str, seconds: int) -> str:
        try:
            return google_address(
                f"{endpoint}/{cloud.bucket}/{quote(key, safe='/-._~')}",
                email=account["client_email"],
                private_key=account["private_key"],
                seconds=seconds,
                now=datetime.now(UTC),
            )
        except (ValueError, TypeError):
            raise StorageError(f"{place}: the credentials hold no private key", retryable=False) from None

    def url(key: str) -> str:
        return join_url(f"https://{cloud.bucket}.storage.googleapis.com", key)

    return CloudClient(place, native, url, signed)


def _service_account(credentials: str) -> dict[str, str]:
    """Only what signs: the text may also name other hosts, commands and files, which this server must not follow."""
    if not credentials:
        # The server's own credentials are not for whoever may send a request.
        raise _WrongPlace("credentials are required")
    try:
        given = json.loads(credentials)
    except ValueError:
        raise _WrongPlace("the credentials are not JSON") from None
    if not isinstance(given, dict) or given.get("type") != "service_account":
        raise _WrongPlace("the credentials are not those of a service account")
    account = {name: given.get(name) for name in ("client_email", "private_key", "private_key_id")}
    missing = [name for name, value in account.items() if not value or not isinstance(value, str)]
    if missing:
        raise _WrongPlace(f"the credentials lack {missing[0]}")
    return {"type": "service_account", **{name: str(value) for name, value in account.items()}}


def _azure(cloud: AzureContainer, options: CloudOptions, place: str) -> CloudClient:
    from obstore.store import AzureStore

    if not (cloud.account and cloud.account_key):
        raise _WrongPlace("account_name and account_key are required")
    if not _ACCOUNT.fullmatch(cloud.account):
        raise _WrongPlace("account_name is not the name of a storage account")
    if not _CONTAINER.fullmatch(cloud.container):
        raise _WrongPlace("this is not the name of a container")
    try:
        decoded_key(cloud.account_key)
    except ValueError:
        raise _WrongPlace("account_key is not base64") from None
    endpoint = options.azure_endpoint or f"https://{cloud.account}.blob.core.windows.net"
    native = AzureStore(
        cloud.container,
        # Said in full: what is left out would be taken from the environment of this server.
        config={
            "account_name": cloud.account,
            "account_key": cloud.account_key,
            "credential_type": "access_key",
            "endpoint": endpoint,
            "use_emulator": False,
            "use_fabric_endpoint": False,
            "skip_signature": False,
        },
        client_options=_http(options, "", plain=endpoint.startswith("http:")),
        retry_config=_retries(options),
    )

    def url(key: str) -> str:
        # LiveKit leaves the container out, and its address leads nowhere.
        return join_url(f"{endpoint}/{cloud.container}", key)

    def signed(key: str, seconds: int) -> str:
        return azure_address(url(key), cloud, key, datetime.now(UTC) + timedelta(seconds=seconds))

    return CloudClient(place, native, url, signed)


async def _proxy_url(cloud: GcsBucket, guard: Guard | None, place: str) -> str:
    """With its user in it; its host is the vetted address, so that a name can't lead elsewhere a moment later."""
    proxy = read_proxy(cloud.proxy, place=place)
    if proxy is None:
        return ""
    if proxy.scheme != "http":
        # Its certificate needs its name, which obstore resolves anew for each connection without asking the guard.
        raise _WrongPlace("proxy url: it must start with http:// where the storage is GCP")
    if guard is not None:
        addresses = await addresses_of(proxy, guard, place=place)
        if addresses:
            proxy = replace(proxy, host=addresses[0])
    return proxy.with_login


def _http(options: CloudOptions, proxy_url: str, *, plain: bool) -> ClientConfig:
    given: ClientConfig = {
        "allow_http": plain,
        "connect_timeout": timedelta(seconds=options.connect_timeout),
        "timeout": timedelta(seconds=options.timeout),
    }
    if proxy_url:
        given["proxy_url"] = proxy_url
    return given


def _retries(options: CloudOptions) -> RetryConfig:
    return {
        "max_retries": options.attempts - 1,
        "retry_timeout": timedelta(seconds=options.timeout * options.attempts),
        "backoff": {
            "init_backoff": timedelta(seconds=options.first_pause),
            "max_backoff": timedelta(seconds=options.longest_pause),
            "base": 2,
        },
    }
